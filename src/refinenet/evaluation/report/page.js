"use strict";
document.documentElement.classList.add("js");

// Values of a column: numbers by data-value, names by their text; what has none stays last either way.
function sortBy(table, column, descending) {
  const value = (row) => {
    const cell = row.cells[column];
    if (cell.tagName === "TH") return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: value(row) }));
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return descending ? compare(b.value, a.value) : compare(a.value, b.value);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

const PAIRS = [["image", "prediction"], ["truth", "prediction"], ["image", "truth"], ["image", "mistakes"]];

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A picture over another one, wiped away from the left by the slider that lies over both.
function makeComparison(entry) {
  const tiles = entry.querySelector(".tiles");
  const picture = (view) => tiles.querySelector(`img[data-view="${view}"]`).cloneNode();
  const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: 50, autocomplete: "off" });
  const stage = make("div", { className: "stage" });
  const sides = make("div", { className: "sides" });
  const buttons = PAIRS.map((pair) => make("button", { type: "button", textContent: pair.join(" | ") }));

  function choose(index) {
    const [left, right] = PAIRS[index];
    const over = picture(right);
    over.classList.add("over");
    stage.replaceChildren(picture(left), over, slider);
    sides.replaceChildren(make("span", { textContent: "◂ " + left }), make("span", { textContent: right + " ▸" }));
    slider.setAttribute("aria-label", `Wipe between ${left} and ${right}`);
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(k === index)));
  }

  slider.addEventListener("input", () => stage.style.setProperty("--at", slider.value + "%"));
  buttons.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  const pairs = make("div", { className: "pairs" }, ...buttons);
  pairs.setAttribute("role", "group");
  pairs.setAttribute("aria-label", "What to compare");
  const both = make("div", { className: "both" });
  tiles.replaceWith(both);
  both.append(make("div", {}, pairs, stage, sides), tiles);
  entry.classList.add("opened");
  choose(0);
}

makeSortable(document.getElementById("class-table"));
document.querySelectorAll(".entry").forEach(makeComparison);
