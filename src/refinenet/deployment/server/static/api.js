// Requests to the server, and its refusals in words.

const MEBIBYTE = 2 ** 20;
const JPEG_QUALITY = 0.95;
const MOST_PIXELS = 4e6; // sent at most, so that nobody waits long for a photograph

export class Refused extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Requests to the server that this page came from, with its token if it has one. */
export class Server {
  constructor() {
    this.token = "";
    this.model = null;
  }

  async ask(path, options = {}) {
    const headers = { ...(options.headers || {}), ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, navigator.onLine
        ? "The server cannot be reached. Is it still running?"
        : "You are offline: the server cannot be reached. Try again when you are connected.");
    }
    if (answer.ok) return answer;
    const found = await answer.json().catch(() => ({}));
    const wait = Number(answer.headers.get("retry-after")) || 0;
    throw new Refused(answer.status, found.error || `The server answered with the status ${answer.status}.`, wait);
  }

  async loadModel() {
    this.model = await (await this.ask("/model")).json();
    // Canvases hold 8 bits for each channel: of more classes only the colours are shown.
    this.hasIds = this.model.kinds.includes("labels") && this.model.classes.length <= 255;
    return this.model;
  }

  /** The kinds of pictures that the page draws, besides the ids of classes. */
  get views() {
    const { kinds, views } = this.model;
    return [...(!this.hasIds && kinds.includes("colour") ? ["colour"] : []), ...views];
  }

  /** Returns the summary and the files, as blobs by kind, for the bytes of an image. */
  async segment(blob, kinds, signal) {
    const query = kinds.map((kind) => `kind=${encodeURIComponent(kind)}`).join("&");
    const type = blob.type.startsWith("image/") ? blob.type : "application/octet-stream";
    const options = { method: "POST", body: blob, signal, headers: { "Content-Type": type } };
    const { files, ...summary } = await (await this.ask(`/segment?${query}`, options)).json();
    const blobs = {};
    for (const [kind, each] of Object.entries(files || {})) blobs[kind] = toBlob(each);
    return { summary, blobs };
  }

  /** Returns what to send for a file: itself, or a smaller picture if it exceeds a limit; and words that say so. */
  async fit(file, bitmap) {
    const { max_bytes: mostBytes } = this.model.limits;
    const mostPixels = Math.min(MOST_PIXELS, this.model.limits.max_pixels);
    if (!bitmap) {
      if (file.size <= mostBytes) return { blob: file, note: "" };
      throw new Refused(413, `The file has ${megabytes(file.size)} MiB, at most ${megabytes(mostBytes)} are read, and `
        + "this browser cannot make it smaller. Choose a smaller one.");
    }
    const { width, height } = bitmap;
    const scale = Math.min(1, Math.sqrt(mostPixels / (width * height)));
    if (scale === 1 && file.size <= mostBytes) return { blob: file, note: "" };
    const canvas = new OffscreenCanvas(Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale)));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    if (blob.size > mostBytes) {
      throw new Refused(413, `The picture has ${megabytes(blob.size)} MiB, at most ${megabytes(mostBytes)} are read. Choose a smaller one.`);
    }
    const note = scale < 1
      ? `Reduced from ${width} × ${height} pixels, as this page sends at most ${(mostPixels / 1e6).toFixed(1)} million.`
      : `Sent as JPEG, as this server reads at most ${megabytes(mostBytes)} MiB.`;
    return { blob, note };
  }
}

function megabytes(bytes) {
  return (bytes / MEBIBYTE).toFixed(1);
}

function toBlob(file) {
  return new Blob([Uint8Array.from(atob(file.base64), (letter) => letter.charCodeAt(0))], { type: file.type });
}
