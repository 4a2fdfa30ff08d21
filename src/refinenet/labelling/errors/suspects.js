"use strict";
// Decisions stay in this browser until they are saved; nothing is sent anywhere.
document.documentElement.classList.add("js");
const articles = [...document.querySelectorAll("article")];
const columns = ["rank", "split", "image", "number", "label", "prediction", "pixels"];
const letters = { t: "proposal", k: "label", b: "neither" };
const place = `refinenet-suspects-${document.body.dataset.dataset}`;
const decisions = read();
let current = 0;

// All that sets a suspect apart, so that a later search of the same dataset does not inherit decisions about others.
function key(article) {
  return [...columns.slice(1), "place"].map((column) => article.dataset[column]).join("/");
}
function read() {
  try { return JSON.parse(localStorage.getItem(place)) || {}; } catch { return {}; }
}
function show() {
  for (const article of articles) article.dataset.is = decisions[key(article)] || "";
  const decided = articles.filter((article) => decisions[key(article)]);
  const taken = decided.filter((article) => decisions[key(article)] === "proposal").length;
  document.getElementById("count").textContent = `${decided.length} of ${articles.length} decided, ${taken} proposals taken.`;
}
function decide(article, decision) {
  decisions[key(article)] = decision;
  try { localStorage.setItem(place, JSON.stringify(decisions)); } catch { /* a private window keeps none */ }
  show();
}
function go(index) {
  current = Math.max(0, Math.min(articles.length - 1, index));
  articles[current].focus({ preventScroll: true });
  articles[current].scrollIntoView({ block: "start" });
}
function save() {
  const quote = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const rows = articles.filter((each) => decisions[key(each)]).map((each) =>
    [...columns.map((column) => each.dataset[column]), decisions[key(each)]].map(quote).join(","));
  const text = [[...columns, "decision"].join(","), ...rows].join("\n") + "\n";
  const link = document.createElement("a");
  link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`;
  link.download = "decisions.csv";
  link.click();
}
for (const [index, article] of articles.entries()) {
  article.addEventListener("focusin", () => { current = index; });
  for (const button of article.querySelectorAll("[data-decision]")) {
    button.addEventListener("click", () => decide(article, button.dataset.decision));
  }
}
document.getElementById("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !articles.length) return;
  if (letters[event.key]) {
    decide(articles[current], letters[event.key]);
    go(current + 1);
  } else if (event.key === "n") go(current + 1);
  else if (event.key === "p") go(current - 1);
});
show();
