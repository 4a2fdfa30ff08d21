// Pixels of results: label maps and confidences from PNG files, and what is drawn of them.

const SURE = [[13, 8, 60], [84, 16, 122], [170, 50, 110], [230, 100, 70], [251, 170, 50], [252, 250, 190]];
/** Colours from a confidence of 0 to 1. */
const OPAQUE = 0xff000000;

/** Returns one byte for each pixel of a grey PNG file: ids or confidences, without conversion of colours. */
export async function readGrey(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const found = new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
  bitmap.close();
  return Uint8Array.from(found, (pixel) => pixel & 255);
}

/** Returns the share of the pixels of each class, by its id; pixels without a class do not count. */
export function measure(ids, classes) {
  const counts = new Uint32Array(256);
  for (const id of ids) counts[id] += 1;
  const shown = counts.subarray(0, classes.length);
  const known = Math.max(1, shown.reduce((sum, count) => sum + count, 0));
  return Array.from(shown, (count) => count / known);
}

/** Colours as little-endian RGBA, by id; 0, which is transparent, where a class is not shown. */
export function palette(classes, isShown) {
  const table = new Uint32Array(256);
  classes.forEach((each, id) => { if (isShown(id)) table[id] = pack(each.colour); });
  return table;
}

function pack([red, green, blue]) {
  return (OPAQUE | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Draws the classes: filled, or only along the borders of regions. `least` is a confidence in [0, 255]. */
export function drawClasses(image, found, table, { outlines, least }) {
  const { ids, sure } = found;
  const pixels = new Uint32Array(image.data.buffer);
  const { width } = image;
  const reach = Math.max(1, Math.round(width / 640));
  for (let k = 0; k < ids.length; k++) {
    const colour = table[ids[k]];
    if (colour === 0 || (sure && sure[k] < least)) continue;
    if (!outlines || isEdge(ids, k, width, reach)) pixels[k] = colour;
  }
}

function isEdge(ids, k, width, reach) {
  const id = ids[k];
  const column = k % width;
  return (column >= reach && ids[k - reach] !== id) || (column + reach < width && ids[k + reach] !== id)
    || (k >= reach * width && ids[k - reach * width] !== id)
    || (k + reach * width < ids.length && ids[k + reach * width] !== id);
}

/** Draws confidences from dark to bright. */
export function drawConfidence(image, found, { least }) {
  const pixels = new Uint32Array(image.data.buffer);
  const table = Uint32Array.from({ length: 256 }, (_, value) => (value < least ? 0 : pack(between(value / 255))));
  for (let k = 0; k < found.sure.length; k++) pixels[k] = table[found.sure[k]];
}

function between(share) {
  const place = share * (SURE.length - 1);
  const first = Math.min(SURE.length - 2, Math.floor(place));
  return SURE[first].map((value, k) => Math.round(value + (SURE[first + 1][k] - value) * (place - first)));
}

/** Draws the scale of confidences. */
export function drawScale(canvas) {
  Object.assign(canvas, { width: 256, height: 1 });
  const image = new ImageData(256, 1);
  new Uint32Array(image.data.buffer).set(Uint32Array.from({ length: 256 }, (_, value) => pack(between(value / 255))));
  canvas.getContext("2d").putImageData(image, 0, 0);
}
