// Label maps as PNG files. They are written here rather than by a canvas, which some browsers let return altered pixels.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  let code = value;
  for (let bit = 0; bit < 8; bit++) code = code & 1 ? 0xedb88320 ^ (code >>> 1) : code >>> 1;
  return code;
});

/** Returns a grey PNG file of ids: 8 bits of a Uint8Array, 16 bits of a Uint16Array. */
export async function encodeMask(ids, width, height) {
  const depth = 8 * ids.BYTES_PER_ELEMENT;
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = depth; // colour type 0 is grey; no interlacing
  const packed = new Blob([filterRows(ids, width, height)]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array(0))];
  return new Blob(parts, { type: "image/png" });
}

/** Returns the rows, each after a byte that says that it is not filtered. */
function filterRows(ids, width, height) {
  const size = ids.BYTES_PER_ELEMENT;
  const rows = new Uint8Array(height * (1 + width * size));
  for (let row = 0, place = 0; row < height; row++) {
    place += 1;
    if (size === 1) {
      rows.set(ids.subarray(row * width, (row + 1) * width), place);
      place += width;
      continue;
    }
    for (let k = row * width; k < (row + 1) * width; k++) {
      rows[place++] = ids[k] >> 8;
      rows[place++] = ids[k] & 255;
    }
  }
  return rows;
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let k = 0; k < 4; k++) bytes[4 + k] = name.charCodeAt(k);
  bytes.set(data, 8);
  let code = 0xffffffff;
  for (let k = 4; k < 8 + data.length; k++) code = CRC_TABLE[(code ^ bytes[k]) & 255] ^ (code >>> 8);
  view.setUint32(8 + data.length, (code ^ 0xffffffff) >>> 0);
  return bytes;
}
