// The legend: which classes there are, how much of the image each covers, and which are shown.

export class Legend {
  constructor(list, onChange) {
    this.list = list;
    this.onChange = onChange;
    this.classes = [];
    this.hidden = new Set();
    this.alone = null;
    this.rows = new Map();
  }

  setClasses(classes) {
    this.classes = classes;
    this.hidden.clear();
    this.rows.clear();
    this.list.replaceChildren();
  }

  isShown(id) {
    return id < this.classes.length && !this.hidden.has(id) && (this.alone === null || this.alone === id);
  }

  /** Shows the classes of a result by their shares, the largest first; `isLive` keeps the order of rows. */
  show(shares, isLive = false) {
    const ids = this.classes.map((_, id) => id).filter((id) => shares[id] > 0);
    const ordered = ids.sort((a, b) => shares[b] - shares[a]).map((id) => this.rowOf(id));
    if (!isLive) this.list.replaceChildren(...ordered);
    else for (const row of ordered) if (!row.isConnected) this.list.append(row);
    for (const [id, row] of this.rows) {
      row.hidden = !(shares[id] > 0);
      row.querySelector(".share").textContent = percent(shares[id] || 0);
      row.querySelector("meter").value = shares[id] || 0;
    }
  }

  rowOf(id) {
    if (!this.rows.has(id)) this.rows.set(id, this.makeRow(id));
    return this.rows.get(id);
  }

  makeRow(id) {
    const { name, colour } = this.classes[id];
    const row = document.getElementById("legend-template").content.cloneNode(true).querySelector("li");
    const button = row.querySelector("button");
    row.querySelector(".swatch").style.background = `rgb(${colour.join(" ")})`;
    row.querySelector(".name").textContent = name; // as text: names come from the model's file
    button.dataset.id = id;
    button.setAttribute("aria-pressed", String(!this.hidden.has(id)));
    button.addEventListener("click", () => this.toggle(id));
    const alone = (value) => { if (this.alone !== value) { this.alone = value; this.onChange(); } };
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") alone(id); });
    button.addEventListener("pointerleave", () => alone(null));
    button.addEventListener("focus", () => { if (button.matches(":focus-visible")) alone(id); });
    button.addEventListener("blur", () => alone(null));
    return row;
  }

  toggle(id) {
    if (this.hidden.has(id)) this.hidden.delete(id); else this.hidden.add(id);
    this.update();
  }

  /** Shows all classes, or none. */
  setAll(isShown) {
    this.hidden = new Set(isShown ? [] : this.classes.map((_, id) => id));
    this.update();
  }

  update() {
    for (const [id, row] of this.rows) row.querySelector("button").setAttribute("aria-pressed", String(!this.hidden.has(id)));
    this.onChange();
  }

  /** Marks the class under the cursor; null for none. */
  mark(id) {
    for (const [each, row] of this.rows) row.classList.toggle("marked", each === id);
  }
}

function percent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}
