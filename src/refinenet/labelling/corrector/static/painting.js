// A label map that is painted, and its history. Pixels are numbered row by row; a box is [left, top, right, bottom], the
// last two exclusive. Every step gives some pixels one id.

const MOST_KEPT = 4e7; // pixels of all steps that can be undone, about 200 MB

/** The pixels that a step changed, with their ids before, in arrays that grow. */
class Step {
  constructor(number, id, ids) {
    Object.assign(this, { number, id, count: 0, places: new Uint32Array(1024), before: new ids.constructor(1024) });
    this.box = null;
  }

  add(place, old) {
    if (this.count === this.places.length) {
      for (const name of ["places", "before"]) {
        const longer = new this[name].constructor(2 * this.count);
        longer.set(this[name]);
        this[name] = longer;
      }
    }
    this.places[this.count] = place;
    this.before[this.count++] = old;
  }
}

export class Painting {
  constructor(ids, width, height) {
    Object.assign(this, { ids, width, height, done: [], undone: [], steps: 0, saved: 0, base: 0 });
    this.step = null;
  }

  /** Number of the last step that holds; it comes back with undo. */
  get version() {
    return this.done.length ? this.done.at(-1).number : this.base;
  }

  get isChanged() {
    return this.step !== null || this.version !== this.saved;
  }

  begin(id) {
    this.end();
    this.step = new Step(this.steps + 1, id, this.ids);
  }

  /** Ends a step; one that has changed nothing is forgotten. */
  end() {
    const { step } = this;
    this.step = null;
    if (!step?.count) return;
    this.steps = step.number;
    this.undone = [];
    this.done.push(step);
    let kept = this.done.reduce((sum, each) => sum + each.count, 0);
    while (kept > MOST_KEPT && this.done.length > 1) {
      const first = this.done.shift();
      this.base = first.number;
      kept -= first.count;
    }
  }

  /** Paints a line with round ends from one point to another, in pixels with fractions; returns the box it lies in. */
  paintLine(from, to, diameter) {
    const { ids, width, height, step } = this;
    const reach = Math.max(diameter / 2, 0.5);
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = dx * dx + dy * dy;
    const box = [
      Math.max(0, Math.floor(Math.min(from.x, to.x) - reach)), Math.max(0, Math.floor(Math.min(from.y, to.y) - reach)),
      Math.min(width, Math.ceil(Math.max(from.x, to.x) + reach)), Math.min(height, Math.ceil(Math.max(from.y, to.y) + reach)),
    ];
    const [column, row] = [Math.floor(to.x), Math.floor(to.y)];
    for (let y = box[1]; y < box[3]; y++) {
      for (let x = box[0]; x < box[2]; x++) {
        const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
        const share = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ex, ey] = [px - share * dx, py - share * dy];
        const isUnder = x === column && y === row; // the thinnest brush paints the pixel that it points at
        if (isUnder || ex * ex + ey * ey <= (diameter * diameter) / 4) this.set(y * width + x);
      }
    }
    step.box = join(step.box, box);
    return ids.length ? box : null;
  }

  set(place) {
    const { ids, step } = this;
    if (ids[place] === step.id) return;
    step.add(place, ids[place]);
    ids[place] = step.id;
  }

  /** Gives the connected region of a pixel an id; returns the box of the region, null if it has the id already. */
  fill(column, row, id) {
    const { ids, width } = this;
    const old = ids[row * width + column];
    if (old === id) return null;
    this.begin(id);
    const box = [column, row, column + 1, row + 1];
    const waiting = [row * width + column];
    while (waiting.length) {
      const place = waiting.pop();
      if (ids[place] !== old) continue;
      const start = place - (place % width);
      let [first, end] = [place, place + 1];
      while (first > start && ids[first - 1] === old) first -= 1;
      while (end < start + width && ids[end] === old) end += 1;
      for (let k = first; k < end; k++) this.set(k);
      const y = start / width;
      box.splice(0, 4, Math.min(box[0], first - start), Math.min(box[1], y), Math.max(box[2], end - start), Math.max(box[3], y + 1));
      for (const by of [-width, width]) addRuns(ids, first + by, end + by, old, waiting);
    }
    this.step.box = box;
    this.end();
    return box;
  }

  /** Takes the last step back; returns the box that it lay in, null if there is none. */
  undo() {
    this.end();
    const step = this.done.pop();
    if (!step) return null;
    for (let k = step.count - 1; k >= 0; k--) this.ids[step.places[k]] = step.before[k];
    this.undone.push(step);
    return step.box;
  }

  /** Forgets the step that has begun, and what it has changed. */
  cancel() {
    if (!this.step?.count) { this.step = null; return null; }
    const box = this.undo();
    this.undone.pop();
    return box;
  }

  redo() {
    const step = this.step ? null : this.undone.pop();
    if (!step) return null;
    for (let k = 0; k < step.count; k++) this.ids[step.places[k]] = step.id;
    this.done.push(step);
    return step.box;
  }
}

/** Adds the first pixel of each run of an id between two pixels of a row. */
function addRuns(ids, first, end, id, waiting) {
  if (first < 0 || end > ids.length) return;
  for (let k = first; k < end; k++) {
    if (ids[k] === id && (k === first || ids[k - 1] !== id)) waiting.push(k);
  }
}

function join(one, other) {
  if (!one) return other;
  return [Math.min(one[0], other[0]), Math.min(one[1], other[1]), Math.max(one[2], other[2]), Math.max(one[3], other[3])];
}
