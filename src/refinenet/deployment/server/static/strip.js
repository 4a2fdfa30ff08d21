// The strip of images: a small picture of each, its state, and which one is looked at.

const MOST = 30; // images that are kept; older ones are let go, so that memory stays bounded
const SIDE = 96;

export class Strip {
  constructor(list, { onSelect, onRemove }) {
    this.list = list;
    this.items = [];
    this.selected = null;
    this.onSelect = onSelect;
    this.onRemove = onRemove;
    list.addEventListener("keydown", (event) => this.step(event));
  }

  /** Adds a file and returns its item: `state` is "waiting", "running", "done" or "failed". */
  add(file) {
    const node = document.getElementById("strip-template").content.cloneNode(true).querySelector("li");
    const item = { file, name: file.name || "image", state: "waiting", node, result: null, error: "" };
    const [open, remove] = node.querySelectorAll("button");
    node.querySelector(".name").textContent = item.name; // as text: names come from files
    remove.setAttribute("aria-label", `Remove ${item.name}`);
    open.addEventListener("click", () => this.select(item));
    remove.addEventListener("click", () => this.remove(item));
    this.items.push(item);
    this.list.append(node);
    while (this.items.length > MOST) this.remove(this.items.find((each) => each !== this.selected && each !== item));
    this.mark(item, "waiting");
    return item;
  }

  mark(item, state, error = "") {
    item.state = state;
    item.error = error;
    item.node.dataset.state = state;
    const words = { waiting: "waiting", running: "is segmented", done: "done", failed: "failed" };
    item.node.querySelector("button").setAttribute("aria-label", `${item.name}: ${error || words[state]}`);
    item.node.title = error || item.name;
  }

  /** Draws the small picture of an item. */
  draw(item, bitmap) {
    const canvas = item.node.querySelector("canvas");
    const scale = SIDE / Math.min(bitmap.width, bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    Object.assign(canvas, { width: SIDE, height: SIDE });
    canvas.getContext("2d").drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  }

  select(item) {
    this.selected = item;
    for (const each of this.items) {
      const button = each.node.querySelector("button");
      if (each === item) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
    }
    item.node.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.onSelect(item);
  }

  remove(item) {
    const place = this.items.indexOf(item);
    const hadFocus = item.node.contains(document.activeElement);
    this.items.splice(place, 1);
    item.node.remove();
    this.onRemove(item);
    const next = this.items[Math.min(place, this.items.length - 1)] || null;
    if (this.selected === item) {
      this.selected = null;
      if (next) this.select(next);
    }
    if (hadFocus) (next ? next.node.querySelector("button") : document.getElementById("file")).focus();
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const place = this.items.findIndex((each) => each.node.contains(document.activeElement));
    if (place < 0) return;
    if (event.key === "Delete") { this.remove(this.items[place]); return; }
    const next = by && this.items[place + by];
    if (!next) return;
    event.preventDefault();
    next.node.querySelector("button").focus();
    this.select(next);
  }
}
