// A picture with its result over it, and the settings of this view. Two of them can stand side by side.

import { drawClasses, drawConfidence, drawScale, palette } from "./pixels.js";

const NAMES = { classes: "classes", confidence: "confidence" };
const GRIP = 20; // pixels beside the divider in which a finger or a mouse takes it

/** A pane, made from the template of the page. `legend` says which classes are shown. */
export class Pane {
  constructor(title, legend, onRead) {
    const copy = document.getElementById("pane-template").content.cloneNode(true);
    this.root = copy.querySelector(".pane");
    this.legend = legend;
    this.onRead = onRead;
    this.found = null;
    this.place = null;
    this.title = title;
    this.root.setAttribute("aria-label", title);
    for (const each of this.root.querySelectorAll("[data-name]")) this[each.dataset.name] = each;
    for (const each of [this.view, this.outlines, this.certain]) each.addEventListener("input", () => this.paint());
    this.opacity.addEventListener("input", () => this.fade());
    this.divider.addEventListener("input", () => this.divide());
    this.listen();
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => {
      const box = stage.getBoundingClientRect();
      const place = box.left + (box.width * this.divider.value) / 100;
      if (Math.abs(event.clientX - place) > GRIP) { this.point(event); return; }
      stage.setPointerCapture(event.pointerId);
      this.isDragged = true;
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.isDragged) { this.point(event); return; }
      const box = stage.getBoundingClientRect();
      this.divider.value = Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
      this.divide();
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { this.isDragged = false; });
    stage.addEventListener("pointerleave", () => { if (this.place && !this.place.isKept) this.leave(); });
    stage.addEventListener("blur", () => this.leave());
    stage.addEventListener("keydown", (event) => this.step(event));
  }

  /** Names the kinds of pictures that there are. */
  setViews(names) {
    const before = this.view.value;
    this.view.replaceChildren(...names.map((name) => new Option(NAMES[name] || name.replace("_colour", "").replaceAll(/[_:]/g, " "), name)));
    if (names.includes(before)) this.view.value = before;
  }

  /** Shows a result; pixels that are drawn belong to it. */
  show(found) {
    this.found = found;
    const { width, height } = found;
    for (const canvas of [this.picture, this.overlay]) {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    }
    this.stage.style.setProperty("--ratio", width / height);
    const context = this.picture.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (found.picture) context.drawImage(found.picture, 0, 0, width, height);
    this.picture.setAttribute("aria-label", `The image ${found.name}`);
    this.paint();
    if (this.place) this.read(this.place.x, this.place.y, this.place.isKept);
  }

  paint() {
    if (!this.found) return;
    const { found } = this;
    const { width, height } = this.overlay;
    const context = this.overlay.getContext("2d");
    const view = this.view.value;
    const settings = { outlines: this.outlines.checked, least: Math.round(2.55 * this.certain.value) };
    this.certainText.textContent = `${this.certain.value} %`;
    this.classSettings.hidden = view !== "classes";
    this.certainSettings.hidden = view !== "classes" && view !== "confidence";
    this.scale.hidden = view !== "confidence";
    this.bar.hidden = true;
    context.clearRect(0, 0, width, height);
    if (view === "classes" || view === "confidence") {
      const image = new ImageData(width, height);
      if (view === "classes") drawClasses(image, found, palette(this.legend.classes, (id) => this.legend.isShown(id)), settings);
      else { drawConfidence(image, found, settings); drawScale(this.scaleBar); }
      context.putImageData(image, 0, 0);
    } else this.drawPicture(found.views[view]);
    this.overlay.setAttribute("aria-label", `${this.view.selectedOptions[0]?.text || "Result"} found in the image`);
    this.fade();
    this.divide();
  }

  /** Draws a picture that the server has drawn; rows below those of the image are the scale of its colours. */
  drawPicture(bitmap) {
    if (!bitmap) return;
    const { width, height } = this.overlay;
    const rows = Math.round((bitmap.width * height) / width);
    this.overlay.getContext("2d").drawImage(bitmap, 0, 0, bitmap.width, rows, 0, 0, width, height);
    this.bar.hidden = bitmap.height <= rows;
    if (this.bar.hidden) return;
    Object.assign(this.bar, { width: bitmap.width, height: bitmap.height - rows });
    this.bar.getContext("2d").drawImage(bitmap, 0, -rows);
  }

  fade() {
    const isLine = this.view.value === "classes" && this.outlines.checked;
    this.overlay.style.opacity = isLine ? 1 : this.opacity.value / 100;
  }

  divide() {
    const share = Number(this.divider.value);
    this.overlay.style.clipPath = `inset(0 0 0 ${share}%)`;
    this.handle.style.left = `${share}%`;
  }

  point(event) {
    const box = this.stage.getBoundingClientRect();
    this.read((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, false);
  }

  /** Moves the cross by arrow keys, for those who have no mouse. */
  step(event) {
    const by = event.shiftKey ? 0.1 : 0.01;
    const steps = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    const move = steps[event.key];
    if (!move || !this.found) return;
    event.preventDefault();
    const { x, y } = this.place || { x: 0.5, y: 0.5 };
    const inside = (value) => Math.min(0.999, Math.max(0, value));
    this.read(inside(x + move[0]), inside(y + move[1]), true);
  }

  /** Says which class a place has, given in shares of width and height. */
  read(x, y, isKept) {
    const { found } = this;
    if (!found || x < 0 || y < 0 || x >= 1 || y >= 1) { this.leave(); return; }
    this.place = { x, y, isKept };
    this.cross.hidden = !isKept;
    this.cross.style.left = `${100 * x}%`;
    this.cross.style.top = `${100 * y}%`;
    const column = Math.floor(x * found.width);
    const row = Math.floor(y * found.height);
    this.onRead(found, row * found.width + column, column, row);
  }

  leave() {
    this.place = null;
    this.cross.hidden = true;
    this.onRead(null);
  }

  /** Returns what is seen, picture and overlay, as a PNG file. */
  async toBlob() {
    const canvas = new OffscreenCanvas(this.found.width, this.found.height);
    const context = canvas.getContext("2d");
    const start = Math.round((this.divider.value / 100) * canvas.width);
    context.drawImage(this.picture, 0, 0);
    context.globalAlpha = Number(this.overlay.style.opacity);
    if (start < canvas.width) {
      context.drawImage(this.overlay, start, 0, canvas.width - start, canvas.height, start, 0, canvas.width - start, canvas.height);
    }
    return canvas.convertToBlob();
  }

  /** Takes over the settings of another pane. */
  copy(other) {
    for (const name of ["view", "opacity", "certain", "divider"]) this[name].value = other[name].value;
    this.outlines.checked = other.outlines.checked;
  }
}
