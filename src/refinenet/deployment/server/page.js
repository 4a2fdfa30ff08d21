"use strict";
// The page of `refinenet serve`: one image at a time, drawn from the label map and the confidence that the server returns.

const find = (id) => document.getElementById(id);
const state = { model: null, token: "", found: null, hidden: new Set(), alone: null, running: null };

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(state.token ? { Authorization: `Bearer ${state.token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached. Is it still running, and are you online?");
  }
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) find("token-form").hidden = false;
  throw new Refused(answer.status, found.error || `The server answered with the status ${answer.status}.`);
}

function complain(error) {
  find("status").textContent = "";
  find("error").hidden = false;
  find("error").textContent = error instanceof Refused ? error.message : `This page failed: ${error.message}`;
}

async function loadModel() {
  try {
    state.model = await (await ask("/model")).json();
  } catch (error) {
    complain(error);
    return;
  }
  find("error").hidden = true;
  find("model-line").textContent = `${state.model.name}: ${state.model.classes.length} classes`;
  const options = state.model.kinds.includes("labels") ? ["classes", "confidence"] : [];
  find("view").replaceChildren(...[...options, ...state.model.views].map((name) => new Option(name.replaceAll("_", " "), name)));
}

async function pixelsOf(file) {
  const bytes = Uint8Array.from(atob(file.base64), (letter) => letter.charCodeAt(0));
  const blob = new Blob([bytes], { type: file.type });
  // Without conversion, as the grey of a label map is an id and no colour.
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { blob, bitmap, data: context.getImageData(0, 0, bitmap.width, bitmap.height).data };
}

function redChannel(pixels) {
  return Uint8Array.from({ length: pixels.data.length / 4 }, (_, k) => pixels.data[4 * k]);
}

async function segment(file) {
  if (!state.model) await loadModel();
  if (!state.model) return;
  if (state.running) state.running.abort();
  const running = new AbortController();
  state.running = running;
  find("error").hidden = true;
  find("cancel").hidden = false;
  find("status").textContent = `Segmenting ${file.name || "the image"} ...`;
  try {
    await show(file, running.signal);
  } catch (error) {
    if (error.name === "AbortError") { if (state.running === running) find("status").textContent = "Cancelled."; }
    else complain(error);
  } finally {
    if (state.running === running) { state.running = null; find("cancel").hidden = true; }
  }
}

async function show(file, signal) {
  const limit = state.model.limits.max_bytes;
  if (file.size > limit) throw new Refused(413, `The file has ${(file.size / 2 ** 20).toFixed(1)} MiB, at most ${(limit / 2 ** 20).toFixed(1)} are read. Choose a smaller one.`);
  const hasClasses = state.model.kinds.includes("labels");
  const kinds = ["summary", ...(hasClasses ? ["labels", "confidence"] : []), ...state.model.views];
  const started = performance.now();
  const answer = await ask(`/segment?${kinds.map((kind) => `kind=${encodeURIComponent(kind)}`).join("&")}`, {
    method: "POST", body: file, signal, headers: { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" },
  });
  const { files, ...summary } = await answer.json();
  const elapsed = performance.now() - started;
  const decoded = {};
  for (const [kind, each] of Object.entries(files || {})) decoded[kind] = await pixelsOf(each);
  const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (signal.aborted) return;
  state.found = { ...summary, summary, decoded, picture, ids: hasClasses ? redChannel(decoded.labels) : null, sure: hasClasses ? redChannel(decoded.confidence) : null };
  state.hidden.clear();
  state.alone = null;
  draw(elapsed);
}

function draw(elapsed) {
  const { found } = state;
  for (const id of ["picture", "overlay"]) Object.assign(find(id), { width: found.width, height: found.height });
  if (found.picture) find("picture").getContext("2d").drawImage(found.picture, 0, 0, found.width, found.height);
  const notes = [...found.notes, ...(found.picture ? [] : ["This browser cannot show such files; only the result is shown."])];
  find("status").textContent = `${found.width} × ${found.height} pixels in ${(elapsed / 1000).toFixed(2)} s. ${notes.join(" ")}`;
  find("result").hidden = false;
  drawLegend();
  paint();
  find("save-labels").hidden = !found.ids;
  link("save-summary", new Blob([JSON.stringify(found.summary, null, 2)], { type: "application/json" }));
  if (found.ids) link("save-labels", found.decoded.labels.blob);
}

function link(id, blob) {
  URL.revokeObjectURL(find(id).href);
  find(id).href = URL.createObjectURL(blob);
}

function drawLegend() {
  const { found, model } = state;
  const present = model.classes.filter((each) => found.areas[each.name] > 0).sort((a, b) => found.areas[b.name] - found.areas[a.name]);
  find("legend").replaceChildren(...present.map((each) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    const swatch = document.createElement("span");
    const name = document.createElement("span");
    const share = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${each.colour.join(" ")})`;
    name.textContent = each.name;
    share.className = "share";
    share.textContent = `${(100 * found.areas[each.name]).toFixed(1)} %`;
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(swatch, name, share);
    button.addEventListener("click", () => {
      if (state.hidden.has(each.id)) state.hidden.delete(each.id); else state.hidden.add(each.id);
      button.setAttribute("aria-pressed", String(!state.hidden.has(each.id)));
      paint();
    });
    for (const [event, id] of [["mouseenter", each.id], ["focus", each.id], ["mouseleave", null], ["blur", null]]) {
      button.addEventListener(event, () => { if (event !== "focus" || button.matches(":focus-visible")) { state.alone = id; paint(); } });
    }
    row.append(button);
    return row;
  }));
}

function isShown(id) {
  return id < state.model.classes.length && !state.hidden.has(id) && (state.alone === null || state.alone === id);
}

function isEdge(ids, k, width) {
  const id = ids[k];
  const column = k % width;
  const differs = (other) => ids[other] !== undefined && ids[other] !== id;
  return (column > 0 && differs(k - 1)) || (column < width - 1 && differs(k + 1)) || differs(k - width) || differs(k + width);
}

function classPixels() {
  const { ids, width, height } = state.found;
  const pixels = new ImageData(width, height);
  const opacity = Math.round(2.55 * find("opacity").value);
  const outlines = find("outlines").checked;
  const colours = state.model.classes.map((each) => each.colour);
  for (let k = 0; k < ids.length; k++) {
    const id = ids[k];
    if (!isShown(id)) continue;
    if (outlines && !isEdge(ids, k, width)) continue;
    pixels.data.set(colours[id], 4 * k);
    pixels.data[4 * k + 3] = outlines ? 255 : opacity;
  }
  return pixels;
}

function confidencePixels() {
  const { sure, width, height } = state.found;
  const pixels = new ImageData(width, height);
  const opacity = Math.round(2.55 * find("opacity").value);
  for (let k = 0; k < sure.length; k++) {
    pixels.data.fill(sure[k], 4 * k, 4 * k + 3);
    pixels.data[4 * k + 3] = opacity;
  }
  return pixels;
}

function paint() {
  const { found } = state;
  if (!found) return;
  const view = find("view").value;
  const canvas = find("overlay");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (view === "classes") context.putImageData(classPixels(), 0, 0);
  else if (view === "confidence") context.putImageData(confidencePixels(), 0, 0);
  else {
    const { bitmap } = found.decoded[view];
    context.globalAlpha = find("opacity").value / 100;
    context.drawImage(bitmap, 0, 0, canvas.width, (bitmap.height * canvas.width) / bitmap.width);
    context.globalAlpha = 1;
  }
  split();
}

function split() {
  const share = Number(find("split").value);
  find("overlay").style.clipPath = `inset(0 0 0 ${share}%)`;
  find("handle").style.left = `${share}%`;
  find("handle").hidden = share === 0 || share === 100;
}

function read(event) {
  const { found } = state;
  if (!found || !found.ids) return;
  const box = find("overlay").getBoundingClientRect();
  const scale = Math.min(box.width / found.width, box.height / found.height);
  const x = Math.floor((event.clientX - box.left - (box.width - found.width * scale) / 2) / scale);
  const y = Math.floor((event.clientY - box.top - (box.height - found.height * scale) / 2) / scale);
  if (x < 0 || y < 0 || x >= found.width || y >= found.height) return;
  const place = y * found.width + x;
  const each = state.model.classes[found.ids[place]];
  const name = each ? each.name : "no class";
  find("readout").textContent = `${name}, confidence ${Math.round(found.sure[place] / 2.55)} %, at ${x}, ${y}`;
}

async function savePicture(event) {
  event.preventDefault();
  const canvas = new OffscreenCanvas(state.found.width, state.found.height);
  const context = canvas.getContext("2d");
  context.drawImage(find("picture"), 0, 0);
  context.drawImage(find("overlay"), 0, 0);
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(await canvas.convertToBlob());
  anchor.download = "overlay.png";
  anchor.click();
  URL.revokeObjectURL(anchor.href);
}

function take(files) {
  if (files && files.length > 0) segment(files[0]);
}

for (const id of ["file", "camera"]) {
  find(id).addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
}
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); take(event.dataTransfer.files); });
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.running) state.running.abort(); });
find("cancel").addEventListener("click", () => state.running && state.running.abort());
for (const id of ["opacity", "outlines", "view"]) find(id).addEventListener("input", paint);
find("split").addEventListener("input", split);
find("overlay").addEventListener("pointermove", read);
find("save-overlay").addEventListener("click", savePicture);
find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = find("token").value;
  find("token-form").hidden = true;
  loadModel();
});
loadModel();
