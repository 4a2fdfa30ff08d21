// The picture with its labels over it: what is drawn, zoom, and the pointers on it.

const OPAQUE = 0xff000000;
const [LINE, DARK] = [0xffffffff, 0x80000000]; // hatch of pixels without a class, as in all pictures of the package
const LARGEST = 32; // screen pixels of a pixel
const NEAR = 2; // from this many on, pixels are squares

/** A stage whose pointers paint or move. `acts` has start, drag, end, cancel and hover, called with points in pixels. */
export class View {
  constructor({ stage, sheet, picture, overlay, ring }, acts) {
    Object.assign(this, { stage, sheet, picture, overlay, ring, acts });
    Object.assign(this, { scale: 1, x: 0, y: 0, width: 1, height: 1, ids: null, moves: false, isWhole: true, diameter: 1, last: null });
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => { if (this.isWhole) this.fit(); else this.move(0, 0); }).observe(stage);
  }

  /** Colours by id; `ignored` is drawn hatched. */
  setClasses(classes, ignored) {
    this.table = new Uint32Array(ignored + 1);
    classes.forEach(({ colour: [red, green, blue] }, id) => { this.table[id] = (OPAQUE | (blue << 16) | (green << 8) | red) >>> 0; });
    this.ignored = ignored;
  }

  show(bitmap, ids) {
    const { width, height } = bitmap;
    Object.assign(this, { width, height, ids });
    for (const canvas of [this.picture, this.overlay]) Object.assign(canvas, { width, height });
    this.stage.style.setProperty("--ratio", width / height);
    Object.assign(this.sheet.style, { width: `${width}px`, height: `${height}px` });
    this.picture.getContext("2d").drawImage(bitmap, 0, 0);
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.draw([0, 0, width, height]);
    this.fit();
  }

  /** Draws the labels in a box. */
  draw(box) {
    if (!box) return;
    const { ids, pixels, table, ignored, width } = this;
    const step = Math.max(1, Math.round(Math.max(width, this.height) / 640));
    for (let y = box[1]; y < box[3]; y++) {
      for (let k = y * width + box[0], x = box[0]; x < box[2]; k++, x++) {
        const id = ids[k];
        pixels[k] = id !== ignored ? table[id] : (x + y) % (6 * step) < 2 * step ? LINE : DARK;
      }
    }
    this.overlay.getContext("2d").putImageData(this.image, 0, 0, box[0], box[1], box[2] - box[0], box[3] - box[1]);
  }

  get wholeScale() {
    const { clientWidth, clientHeight } = this.stage;
    return Math.min(clientWidth / this.width, clientHeight / this.height) || 1;
  }

  fit() {
    this.scale = this.wholeScale;
    this.place((this.stage.clientWidth - this.scale * this.width) / 2, (this.stage.clientHeight - this.scale * this.height) / 2);
    this.isWhole = true;
  }

  /** Puts the corner of the image at a place of the stage, so that a part of the image is always seen. */
  place(x, y) {
    const { clientWidth, clientHeight } = this.stage;
    const inside = (value, size, room) => Math.min(room - Math.min(room, size) / 2, Math.max(Math.min(room, size) / 2 - size, value));
    this.x = inside(x, this.scale * this.width, clientWidth);
    this.y = inside(y, this.scale * this.height, clientHeight);
    this.sheet.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.sheet.classList.toggle("near", this.scale >= NEAR);
    this.showRing();
  }

  move(byX, byY) {
    this.isWhole = false;
    this.place(this.x + byX, this.y + byY);
  }

  /** Zooms so that a place of the stage, by default its middle, keeps its pixel. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const before = this.scale;
    this.isWhole = false;
    this.scale = Math.max(this.wholeScale / 2, Math.min(Math.max(LARGEST, this.wholeScale), before * factor));
    const ratio = this.scale / before;
    this.place(x - ratio * (x - this.x), y - ratio * (y - this.y));
  }

  setTool(moves, diameter) {
    Object.assign(this, { moves, diameter });
    this.showRing();
  }

  showRing() {
    this.ring.hidden = !this.last || !this.diameter || this.moves;
    if (this.ring.hidden) return;
    const size = `${Math.max(2, this.scale * this.diameter)}px`;
    Object.assign(this.ring.style, { left: `${this.last.x}px`, top: `${this.last.y}px`, width: size, height: size });
  }

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** Returns a place of the stage in pixels of the image, with fractions. */
  toImage({ x, y }) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  isInside({ x, y }) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.release(event));
    stage.addEventListener("pointerleave", () => this.leave());
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = this.at(event);
      this.zoom(2 ** (-(event.deltaMode ? 30 * event.deltaY : event.deltaY) / 300), x, y);
    }, { passive: false });
    stage.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (!moves[event.key]) return;
      event.preventDefault();
      this.move(...moves[event.key]);
    });
  }

  press(event) {
    if (!this.ids || event.button > 1) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    if (this.pointers.size > 1) { this.acts.cancel(); this.action = "move"; return; }
    this.action = this.moves || event.button === 1 ? "move" : "paint";
    this.last = this.at(event);
    if (this.action === "paint") this.acts.start(this.toImage(this.last));
  }

  drag(event) {
    const place = this.at(event);
    this.last = event.pointerType === "mouse" || this.pointers.size ? place : null;
    this.showRing();
    const point = this.toImage(place);
    this.acts.hover(this.isInside(point) ? point : null);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    if (this.action === "paint") this.acts.drag(point);
    else if (this.pointers.size === 1) this.move(place.x - before.x, place.y - before.y);
    else this.pinch(event.pointerId, before, place);
    this.pointers.set(event.pointerId, place);
  }

  /** Zooms and moves by one of two fingers. */
  pinch(pointer, before, place) {
    const [, other] = [...this.pointers].find(([id]) => id !== pointer);
    const [old, now] = [before, place].map((each) => Math.hypot(each.x - other.x, each.y - other.y));
    this.move((place.x - before.x) / 2, (place.y - before.y) / 2);
    if (old > 0) this.zoom(now / old, (place.x + other.x) / 2, (place.y + other.y) / 2);
  }

  release(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.action === "paint") this.acts[event.type === "pointercancel" ? "cancel" : "end"]();
    if (!this.pointers.size) this.action = null;
    if (event.pointerType !== "mouse") this.leave();
  }

  leave() {
    if (this.pointers.size) return;
    this.last = null;
    this.showRing();
    this.acts.hover(null);
  }
}
