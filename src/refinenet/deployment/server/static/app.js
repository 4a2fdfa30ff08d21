// The page of `refinenet serve`: images to the server one after the other, and what it answers to the screen.

import { calm, complain, find } from "./alerts.js";
import { Refused, Server } from "./api.js";
import { Camera } from "./camera.js";
import { Legend } from "./legend.js";
import { Pane } from "./pane.js";
import { measure, readGrey } from "./pixels.js";
import { Strip } from "./strip.js";

const CANCELLED = "Cancelled.";
const ATTEMPTS = 3;
const LONGEST_WAIT = 5; // seconds
const server = new Server();
const legend = new Legend(find("legend"), () => paint());
const panes = [new Pane("Result", legend, read), new Pane("Second result", legend, read)];
const strip = new Strip(find("strip"), { onSelect: select, onRemove: (item) => discard(item) });
const camera = new Camera({ mostPixels: () => server.model.limits.max_pixels, onFrame: showFrame, onRate: showRate, onEnd: endLive });
let running = null; // the item that the server computes, and how to stop it
let shown = null; // the result on the screen
let liveRequest = null;

find("panes").append(...panes.map((pane) => pane.root));
panes[1].root.hidden = true;

function say(text) {
  find("status").textContent = text;
}

async function loadModel() {
  try {
    const model = await server.loadModel();
    calm();
    const outputs = model.outputs.filter((each) => each.kind !== "classes").map((each) => each.name);
    const classes = model.classes.length ? [`${model.classes.length} classes`] : [];
    find("model-line").textContent = `${model.name}: ${[...classes, ...outputs].join(", ")}`;
    legend.setClasses(server.hasIds ? model.classes : []);
    for (const pane of panes) pane.setViews([...(server.hasIds ? ["classes", "confidence"] : []), ...server.views]);
    find("classes-card").hidden = !server.hasIds;
    find("save-labels").hidden = !model.kinds.includes("labels");
  } catch (error) {
    complain(error);
  }
}

function select(item) {
  camera.stop();
  open(item).catch(complain);
}

/** Adds images to the strip; they are segmented one after the other. */
function take(files) {
  const images = [...(files || [])];
  if (images.length === 0) return;
  calm();
  const items = images.map((file) => strip.add(file));
  strip.select(items[0]);
  work();
}

async function work() {
  if (running) return;
  if (!server.model) await loadModel();
  const item = strip.items.find((each) => each.state === "waiting");
  if (running || !item || !server.model) return;
  running = { item, control: new AbortController() };
  strip.mark(item, "running");
  report();
  try {
    await segment(item, running.control.signal);
    strip.mark(item, "done");
  } catch (error) {
    const words = error.name === "AbortError" ? CANCELLED : error.message;
    item.status = error.status;
    strip.mark(item, "failed", words);
  } finally {
    running = null;
    report();
  }
  if (strip.selected === item) await open(item).catch(complain);
  else describe();
  work();
}

/** Says what is on the screen, unless the server still computes. */
function describe() {
  const result = strip.selected?.result;
  if (running || camera.isLive) return;
  if (!result) { say(strip.selected?.error === CANCELLED ? CANCELLED : ""); return; }
  const { summary, seconds, notes } = result;
  say(`${summary.width} × ${summary.height} pixels in ${seconds.toFixed(2)} s. ${notes.join(" ")}`);
}

function report() {
  const waiting = strip.items.filter((each) => each.state === "waiting").length;
  find("cancel").hidden = !running;
  document.body.classList.toggle("busy", running !== null);
  if (running) say(`Segmenting ${running.item.name}${waiting ? `, ${waiting} more waiting` : ""} …`);
}

async function segment(item, signal) {
  const bitmap = await createImageBitmap(item.file, { imageOrientation: "from-image" }).catch(() => null);
  if (bitmap) strip.draw(item, bitmap);
  const { blob, note } = await server.fit(item.file, bitmap);
  bitmap?.close();
  const kinds = ["summary", ...(server.model.kinds.includes("labels") ? ["labels"] : []), ...(server.hasIds ? ["confidence"] : []), ...server.views];
  const started = performance.now();
  const { summary, blobs } = await patiently(() => server.segment(blob, kinds, signal), signal);
  signal.throwIfAborted();
  const seconds = (performance.now() - started) / 1000;
  item.result = { summary, blobs, seconds, sent: blob, notes: [note, ...summary.notes].filter(Boolean) };
}

/** Asks again, a few times, when the server is busy and says for how long. */
async function patiently(ask, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      const wait = error.retryAfter;
      if (error.status !== 503 || !wait || wait > LONGEST_WAIT || attempt === ATTEMPTS) throw error;
      say(`The server is busy. Asking again in ${wait} s …`);
      await new Promise((resolve) => { setTimeout(resolve, 1000 * wait); });
      signal.throwIfAborted();
    }
  }
}

/** Shows an item of the strip, whatever its state. */
async function open(item) {
  if (item.state === "failed") {
    find("result").hidden = true;
    const name = strip.items.length > 1 ? `${item.name}: ` : "";
    if (item.error === CANCELLED) calm(); else complain(new Refused(item.status, name + item.error));
    describe();
    return;
  }
  calm();
  if (!item.result) return;
  const result = await decode(item);
  if (strip.selected !== item) { release(result); return; }
  show(result);
  describe();
}

async function decode(item) {
  const { summary, blobs, sent } = item.result;
  const { width, height } = summary;
  const picture = await createImageBitmap(sent, { imageOrientation: "from-image" }).catch(() => null);
  const views = {};
  for (const name of server.views) views[name] = await createImageBitmap(blobs[name]);
  const ids = server.hasIds ? await readGrey(blobs.labels) : null;
  const sure = server.hasIds ? await readGrey(blobs.confidence) : null;
  if (!picture) item.result.notes = ["This browser cannot show such files; only the result is shown."];
  return { item, name: item.name, width, height, picture, ids, sure, views };
}

function show(result, isLive = false) {
  const before = shown;
  shown = result;
  find("result").hidden = false;
  document.body.classList.add("has-result");
  if (result.ids) legend.show(measure(result.ids, legend.classes), isLive);
  for (const pane of panes) if (!pane.root.hidden) pane.show(result);
  if (before !== result) release(before);
  if (!panes.some((pane) => pane.place)) read(null);
}

function release(result) {
  if (!result) return;
  result.picture?.close?.();
  for (const bitmap of Object.values(result.views)) bitmap.close();
}

function discard(item) {
  if (running?.item === item) running.control.abort();
  if (strip.items.length > 0) return;
  release(shown);
  shown = null;
  find("result").hidden = true;
  document.body.classList.remove("has-result");
  calm();
  say("");
}

function paint() {
  for (const pane of panes) if (!pane.root.hidden) pane.paint();
}

function read(result, place, column, row) {
  const id = result?.ids ? result.ids[place] : null;
  legend.mark(id);
  if (id === null) {
    find("readout").textContent = shown?.ids ? "Point at the picture to see the class of a pixel." : "";
    return;
  }
  const name = legend.classes[id]?.name || "no class";
  find("readout").textContent = `${name}, confidence ${Math.round(result.sure[place] / 2.55)} %, at ${column}, ${row}`;
}

/** Shows a frame of the camera; called when it is to be sent. */
async function showFrame(blob, frame) {
  const names = panes.filter((pane) => !pane.root.hidden).map((pane) => pane.view.value);
  const kinds = server.hasIds ? ["labels", "confidence"] : [];
  const views = server.views.filter((name) => names.includes(name));
  liveRequest = new AbortController();
  const { blobs } = await server.segment(blob, ["summary", ...kinds, ...views], liveRequest.signal);
  if (!camera.isLive) return;
  const decoded = {};
  for (const name of views) decoded[name] = await createImageBitmap(blobs[name]);
  const [ids, sure] = await Promise.all(kinds.map((kind) => readGrey(blobs[kind])));
  const { width, height } = frame;
  show({ item: null, name: "camera", width, height, picture: frame, ids: ids || null, sure: sure || null, views: decoded, blob }, true);
}

function showRate(rate, milliseconds) {
  find("rate").textContent = `${rate.toFixed(1)} frames/s, ${Math.round(milliseconds)} ms each`;
}

async function toggleLive() {
  calm();
  if (camera.isLive) { camera.stop(); return; }
  if (!server.model) await loadModel();
  if (!server.model) return;
  try {
    find("live").disabled = true;
    await camera.start();
    find("live").textContent = "Stop the camera";
    find("live").setAttribute("aria-pressed", "true");
    find("live-line").hidden = false;
    say("The camera runs.");
  } catch (error) {
    complain(error);
  } finally {
    find("live").disabled = false;
  }
}

function endLive(reason) {
  liveRequest?.abort();
  find("live").textContent = "Live camera";
  find("live").setAttribute("aria-pressed", "false");
  find("live-line").hidden = true;
  say("");
  if (reason) complain(new Refused(0, reason));
}

/** Keeps the frame that is on the screen as an image of the strip. */
function keepFrame() {
  if (!shown?.blob) return;
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  take([new File([shown.blob], `camera-${time}.jpg`, { type: "image/jpeg" })]);
}

function save(blob, suffix) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = `${shown.name.replace(/\.[^.]*$/, "") || "image"}${suffix}`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
}

async function compare() {
  const isOn = panes[1].root.hidden;
  find("compare").setAttribute("aria-pressed", String(isOn));
  find("panes").classList.toggle("two", isOn);
  panes[1].root.hidden = !isOn;
  if (!isOn) return;
  panes[1].copy(panes[0]);
  if (shown) panes[1].show(shown);
}

function listen() {
  for (const id of ["file", "photo"]) {
    find(id).addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  }
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); take(event.dataTransfer.files); });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { cancel(); camera.stop(); } });
  find("cancel").addEventListener("click", cancel);
  find("live").addEventListener("click", toggleLive);
  find("keep").addEventListener("click", keepFrame);
  find("compare").addEventListener("click", compare);
  find("show-all").addEventListener("click", () => legend.setAll(true));
  find("hide-all").addEventListener("click", () => legend.setAll(false));
  find("dismiss").addEventListener("click", calm);
  find("keys-open").addEventListener("click", () => find("keys").showModal());
  find("save-picture").addEventListener("click", async () => save(await panes[0].toBlob(), "-overlay.png"));
  find("save-labels").addEventListener("click", () => savePart("labels", "-labels.png"));
  find("save-summary").addEventListener("click", () => savePart("summary", ".json"));
  find("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    server.token = find("token").value;
    find("token-form").hidden = true;
    loadModel().then(work);
  });
}

function savePart(part, suffix) {
  const result = shown?.item?.result;
  if (!result) { complain(new Refused(0, "A frame of the camera has no files: keep it first.")); return; }
  save(part === "labels" ? result.blobs.labels : new Blob([JSON.stringify(result.summary, null, 2)], { type: "application/json" }), suffix);
}

function cancel() {
  for (const item of strip.items) if (item.state === "waiting") strip.mark(item, "failed", CANCELLED);
  running?.control.abort();
}

listen();
read(null);
loadModel();
