// The page of `refinenet label correct`: one image after the other, its draft over it, and what a person makes of it.

import { calm, complain, find } from "./alerts.js";
import { Server } from "./api.js";
import { encodeMask } from "./mask_file.js";
import { Painting } from "./painting.js";
import { View } from "./view.js";

const server = new Server();
const kept = new Map(); // paintings with changes that are not saved, by the places of their images
const view = new View(
  { stage: find("stage"), sheet: find("sheet"), picture: find("picture"), overlay: find("overlay"), ring: find("ring") },
  { start, drag, end: endStroke, cancel: () => redraw(painting.cancel()), hover },
);
let todo = null; // what /list says
let current = 0; // the image that is shown, or is about to be
let painting = null; // its labels; null while they are loaded
let [tool, chosen] = ["brush", 0];
let last = null; // the point that a stroke has reached
let under = null; // the id under the pointer
let isSaving = false;

async function load() {
  todo = await (await server.ask("/list")).json();
  calm();
  view.setClasses(todo.classes, todo.ignore_index);
  find("palette").replaceChildren(...[...todo.classes.keys(), todo.ignore_index].map(makeEntry));
  find("desk").hidden = false;
  choose(0);
  await open(Math.max(0, todo.images.findIndex((each) => !each.is_reviewed)));
}

/** Returns an entry of the palette; that of void chooses the eraser. */
function makeEntry(id) {
  const entry = find("class-template").content.cloneNode(true);
  const isVoid = id === todo.ignore_index;
  const { name, colour } = isVoid ? { name: `${todo.void.name} (no class)`, colour: null } : todo.classes[id];
  entry.querySelector(".name").textContent = name;
  entry.querySelector("kbd").textContent = isVoid ? "E" : id < 9 ? String(id + 1) : "";
  const swatch = entry.querySelector(".swatch");
  if (colour) swatch.style.background = `rgb(${colour.join(" ")})`;
  else swatch.classList.add("hatched");
  const button = entry.querySelector("button");
  button.dataset.id = id;
  button.addEventListener("click", () => choose(id));
  return entry;
}

function choose(id) {
  if (tool === "fill") setTool(tool, id);
  else if (id === todo.ignore_index) setTool("erase");
  else setTool("brush", id);
}

function setTool(name, id = chosen) {
  [tool, chosen] = [name, id];
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  for (const button of find("palette").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.id) === paintedId()));
  }
  find("stage").dataset.tool = name;
  find("size-text").textContent = find("size").value;
  view.setTool(name === "move", name === "fill" ? 0 : Number(find("size").value));
}

/** The id that the tool gives: that of void for the eraser. */
function paintedId() {
  return tool === "erase" ? todo.ignore_index : chosen;
}

/** Shows an image; changes of the one before are kept. */
async function open(index) {
  keep();
  current = index;
  painting = view.ids = null;
  calm();
  describe();
  try {
    const [picture, labels] = await Promise.all(["picture", "labels"].map((what) => server.ask(`/images/${index}/${what}`)));
    const [bitmap, ids] = [await createImageBitmap(await picture.blob()), await readIds(labels)];
    if (current !== index) { bitmap.close(); return; } // the person has gone on
    const size = ["width", "height"].map((name) => Number(labels.headers.get(`x-${name}`)));
    painting = kept.get(index) || new Painting(ids, ...size);
    view.show(bitmap, painting.ids);
    bitmap.close();
  } catch (error) {
    if (current === index) complain(error);
  }
  describe();
}

async function readIds(answer) {
  const bytes = await answer.arrayBuffer();
  return todo.ignore_index > 255 ? new Uint16Array(bytes) : new Uint8Array(bytes);
}

function keep() {
  painting?.end();
  if (painting?.isChanged) kept.set(current, painting);
  else if (painting) kept.delete(current);
}

function describe() {
  const image = todo.images[current];
  const reviewed = todo.images.filter((each) => each.is_reviewed).length;
  const state = painting?.isChanged ? "changed" : image.is_reviewed ? "reviewed" : "draft";
  find("progress").textContent = `${reviewed} of ${todo.images.length} reviewed`;
  find("name").textContent = `${current + 1}. ${image.name}`;
  find("reasons").textContent = image.reasons;
  find("state").textContent = isSaving ? "saving …" : !painting ? "loading …" : { changed: "changed, not saved", reviewed: "reviewed", draft: "draft" }[state];
  find("state").dataset.state = painting && !isSaving ? state : "";
  find("picture").setAttribute("aria-label", `The image ${image.name}`);
  find("withdraw").hidden = !image.is_reviewed;
  for (const [id, isIdle] of Object.entries({
    previous: current === 0, next: current === todo.images.length - 1, accept: !painting || isSaving,
    undo: !painting?.done.length, redo: !painting?.undone.length,
  })) find(id).disabled = isIdle;
}

function redraw(box) {
  view.draw(box);
  describe();
}

function start(point) {
  if (!painting || isSaving) return;
  if (tool === "fill") {
    if (view.isInside(point)) redraw(painting.fill(Math.floor(point.x), Math.floor(point.y), chosen));
    return;
  }
  painting.begin(paintedId());
  last = point;
  drag(point);
}

function drag(point) {
  if (!painting?.step) return;
  view.draw(painting.paintLine(last, point, Number(find("size").value)));
  last = point;
}

function endStroke() {
  painting?.end();
  describe();
}

function hover(point) {
  under = point && painting ? painting.ids[Math.floor(point.y) * painting.width + Math.floor(point.x)] : null;
  const name = under === null ? "" : (todo.classes[under] || todo.void).name;
  find("readout").textContent = under === null ? "" : `${name} at ${Math.floor(point.x)}, ${Math.floor(point.y)}`;
}

function takeBack() { if (painting && !isSaving) redraw(painting.undo()); }

function repeat() { if (painting && !isSaving) redraw(painting.redo()); }

/** Saves the labels, and goes to the next image that is not reviewed. */
async function accept() {
  if (!painting || isSaving) return;
  painting.end();
  isSaving = true;
  describe();
  const [index, saved] = [current, painting];
  try {
    const body = await encodeMask(saved.ids, saved.width, saved.height);
    await server.ask(`/images/${index}/labels`, { method: "PUT", body, headers: { "Content-Type": "image/png" } });
    saved.saved = saved.version;
    todo.images[index].is_reviewed = true;
    kept.delete(index);
  } catch (error) {
    complain(error);
    return;
  } finally {
    isSaving = false;
    describe();
  }
  const waiting = [...todo.images.keys()].filter((each) => !todo.images[each].is_reviewed);
  const following = waiting.find((each) => each > index) ?? waiting[0];
  if (following !== undefined) await open(following);
}

/** Removes the saved labels of an image, and shows its draft. */
async function withdraw() {
  if (isSaving || !confirm("Remove the saved labels of this image and show the draft again?")) return;
  const index = current;
  try {
    await server.ask(`/images/${index}/labels`, { method: "DELETE" });
    todo.images[index].is_reviewed = false;
    kept.delete(index);
    if (current !== index) { describe(); return; } // the person has gone on
    painting = null;
    await open(index);
  } catch (error) {
    complain(error);
  }
}

function go(by) {
  const index = current + by;
  if (!isSaving && index >= 0 && index < todo.images.length) open(index);
}

function resize(factor) {
  const size = Number(find("size").value);
  find("size").value = factor > 1 ? Math.max(size + 1, Math.round(size * factor)) : Math.min(size - 1, Math.round(size * factor));
  setTool(tool);
}

function hide() {
  find("overlay").hidden = !find("overlay").hidden;
}

const KEYS = {
  a: accept, n: () => go(1), p: () => go(-1), z: takeBack, y: repeat, h: hide,
  b: () => setTool("brush", pick(chosen)), f: () => setTool("fill"), e: () => setTool("erase"), m: () => setTool("move"),
  c: () => { if (under !== null) choose(under); },
  "[": () => resize(0.8), "]": () => resize(1.25),
  "+": () => view.zoom(1.5), "=": () => view.zoom(1.5), "-": () => view.zoom(1 / 1.5), 0: () => view.fit(),
};

/** Returns a class: the id, or the first one for void. */
function pick(id) {
  return id === todo.ignore_index ? 0 : id;
}

function press(event) {
  const isTyped = event.target.matches("input:not([type=range])") || find("keys").open;
  const isCommand = (event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph");
  const key = event.key.toLowerCase();
  if (isTyped || !todo || (event.altKey && !event.getModifierState("AltGraph"))) return;
  if (isCommand && key !== "z" && key !== "y") return;
  const act = isCommand && key === "z" && event.shiftKey ? repeat : KEYS[key];
  if (act) { event.preventDefault(); act(); return; }
  const id = Number(key) - 1;
  if (id >= 0 && id < todo.classes.length) choose(id);
}

function listen() {
  document.addEventListener("keydown", press);
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => KEYS[button.dataset.tool[0]]());
  for (const [id, act] of Object.entries({
    accept, withdraw, undo: takeBack, redo: repeat, previous: () => go(-1), next: () => go(1),
    fit: () => view.fit(), larger: () => view.zoom(1.5), smaller: () => view.zoom(1 / 1.5),
    dismiss: calm, "keys-open": () => find("keys").showModal(),
  })) find(id).addEventListener("click", act);
  find("size").addEventListener("input", () => setTool(tool));
  find("opacity").addEventListener("input", () => { find("overlay").style.opacity = find("opacity").value / 100; });
  find("overlay").style.opacity = find("opacity").value / 100;
  find("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    server.token = find("token").value;
    find("token-form").hidden = true;
    load().catch(complain);
  });
  window.addEventListener("beforeunload", (event) => {
    if (kept.size || painting?.isChanged) event.preventDefault();
  });
}

listen();
load().catch(complain);
