// The review page: shows one picture, sends the decision, and shows the next picture once it is saved.

import { find, plural, store, stored, svg } from "./page.js";

const ENLARGED = 2.5; // zoom factor relative to the fitted size
const STEP = 1.4;
const LARGEST = 12;
const MEASURE_MS = 400; // pause in typing after which a prompt is measured
const READ_BYTES = 75; // a prompt has no more tokens than bytes, so one of so many is read as a whole
const AGAIN_MS = 5000; // interval of polling for pictures that other reviewers release

const { reviewer, root } = document.body.dataset;
const regions = JSON.parse(document.body.dataset.regions); // their order numbers their elements
const [stage, canvas, prompt, status, problem] = ["stage", "canvas", "prompt", "status", "problem"].map(find);
const images = new Map(); // preloaded images of the assigned pictures, by key
const drafts = new Map(); // prompts that were rewritten and not saved when another picture was shown, by key
let current = null;
let original = ""; // the current prompt, as the text field spells it
let waiting = false; // whether all remaining pictures are assigned to others
let zoom = 1;
let busy = false;

async function ask(path, body) {
  let response;
  try {
    response = await fetch(`${root}${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, reviewer }),
    });
  } catch {
    throw new Error("The server can't be reached, so nothing was saved. Is it still running?");
  }
  const answer = await response.json().catch(() => ({ message: `The server answered ${response.status}, nothing was saved.` }));
  if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status });
  return answer;
}

async function act(path, body, said) {
  if (busy) return;
  busy = true;
  problem.textContent = "";
  try {
    take(await ask(path, body));
    status.textContent = said;
  } catch (error) {
    status.textContent = "";
    problem.textContent = error.message;
    // Another reviewer was faster, or a prompt was changed, so the assigned pictures have changed.
    if (error.status === 409) await ask("/api/work", {}).then(take, () => {});
  } finally {
    busy = false;
  }
}

function take(work) {
  find("bar").max = work.total;
  find("bar").value = work.done;
  find("counts").textContent = `${work.done} of ${work.total} done · ${work.own} by you`;
  const keys = new Set(work.pictures.map((picture) => picture.key));
  for (const key of [...images.keys()]) if (!keys.has(key)) images.delete(key);
  for (const picture of work.pictures) load(picture);
  waiting = !work.pictures.length && work.elsewhere > 0;
  if (work.pictures.length) show(work.pictures[0], work.undone);
  else showNothing(work);
}

function load(picture) {
  if (images.has(picture.key)) return;
  const image = new Image();
  image.alt = `Picture ${picture.key}`;
  image.src = `${root}/picture?key=${encodeURIComponent(picture.key)}`;
  image.onerror = () => images.delete(picture.key); // retried when it is shown
  image.decode().catch(() => {});
  images.set(picture.key, image);
}

function show(picture, undone) {
  find("deciding").hidden = false;
  find("view").hidden = false;
  find("nothing").hidden = true;
  if (current?.key === picture.key && current.prompt === picture.prompt && !undone) return;
  const image = images.get(picture.key);
  image.onerror = () => fail(picture, image);
  canvas.replaceChildren(image, drawBoxes(picture));
  leave(picture);
  prompt.value = picture.prompt;
  original = prompt.value;
  prompt.value = undone?.prompt || (drafts.get(picture.key) ?? original);
  drafts.delete(picture.key);
  find("key").textContent = picture.key;
  setZoom(1);
  showEdit();
  measure();
}

function leave(next) {
  if (current && isEdited()) drafts.set(current.key, prompt.value);
  current = next;
}

function fail(picture, image) {
  images.delete(picture.key);
  if (current !== picture) return;
  const text = document.createElement("p");
  text.className = "failed";
  text.textContent = "This picture can't be shown.";
  image.replaceWith(text);
}

function drawBoxes(picture) {
  const rects = Object.entries(picture.boxes).flatMap(([region, boxes]) => {
    const count = find(`count-${regions.indexOf(region)}`);
    if (!count) return []; // a region that is newer than the page
    count.textContent = boxes ? boxes.length : "unknown";
    const stroke = count.dataset.colour;
    return (boxes ?? []).map(([x0, y0, x1, y1]) => svg("rect", { class: region, stroke, x: x0, y: y0, width: x1 - x0, height: y1 - y0 }));
  });
  return svg("svg", { viewBox: `0 0 ${picture.width} ${picture.height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, rects);
}

function showNothing(work) {
  const news = find("nothing").hidden;
  leave(null);
  find("deciding").hidden = true;
  find("view").hidden = true;
  find("nothing").hidden = false;
  find("nothing-title").textContent = waiting ? "Nothing to do right now" : "All done";
  find("nothing-text").textContent = waiting
    ? `Other reviewers are working on the last ${work.elsewhere}. This page updates automatically.`
    : `You have made ${plural(work.own, "decision")}. Thank you!`;
  if (news) find("nothing").focus();
}

// Zoom: the canvas has the picture's aspect ratio and scrolls when it is larger than the stage.

function setZoom(value, x = 0.5, y = 0.5) {
  zoom = Math.min(Math.max(value, 1), LARGEST);
  stage.classList.toggle("zoomed", zoom > 1);
  find("zoom").setAttribute("aria-pressed", zoom > 1);
  fit();
  stage.scrollTo(canvas.offsetWidth * x - stage.clientWidth / 2, canvas.offsetHeight * y - stage.clientHeight / 2);
}

function fit() {
  if (!current) return;
  const scale = zoom * Math.min(stage.offsetWidth / current.width, stage.offsetHeight / current.height);
  canvas.style.width = `${current.width * scale}px`;
  canvas.style.height = `${current.height * scale}px`;
}

function middle() {
  return [
    (stage.scrollLeft + stage.clientWidth / 2) / canvas.offsetWidth,
    (stage.scrollTop + stage.clientHeight / 2) / canvas.offsetHeight,
  ];
}

const toggleZoom = (x, y) => setZoom(zoom > 1 ? 1 : ENLARGED, x, y);
const larger = () => setZoom(zoom * STEP, ...middle());
const smaller = () => setZoom(zoom / STEP, ...middle());

// Decisions

function keep() {
  if (!current) return;
  if (document.activeElement === prompt) stage.focus();
  const edited = isEdited();
  const { key, prompt: shown } = current;
  act("/api/decisions", { key, shown, action: "keep", prompt: edited ? prompt.value : null }, edited ? "Kept with the new prompt." : "Kept.");
}

function drop(button) {
  if (!current) return;
  const text = button.firstElementChild.textContent;
  const { key, prompt: shown } = current;
  act("/api/decisions", { key, shown, action: "drop", reason: button.dataset.reason }, `Dropped: ${text.toLowerCase()}.`);
}

const undo = () => act("/api/undo", {}, "Undone: decide again.");

function isEdited() {
  return prompt.value !== original;
}

function showEdit() {
  const edited = current !== null && isEdited();
  find("deciding").classList.toggle("changed", edited);
  find("original").hidden = !edited;
  find("keep").firstElementChild.textContent = edited ? "Keep with this prompt" : "Keep";
}

function restore() {
  prompt.value = original;
  showEdit();
  measure();
}

let asked = 0; // an answer that comes after another question counts for nothing
let pause = 0;

async function measure() {
  clearTimeout(pause);
  const mine = ++asked;
  const long = new TextEncoder().encode(prompt.value).length > READ_BYTES;
  const answer = long ? await ask("/api/unread", { prompt: prompt.value }).catch(() => null) : null;
  if (mine === asked) find("unread").textContent = answer?.unread ?? "";
}

function measureSoon() {
  clearTimeout(pause);
  pause = setTimeout(measure, MEASURE_MS);
}

function setBoxes(shown) {
  find("boxes").setAttribute("aria-pressed", shown);
  find("view").classList.toggle("no-boxes", !shown);
  store("boxes", shown);
}

const toggleBoxes = () => setBoxes(find("boxes").getAttribute("aria-pressed") !== "true");

function edit() {
  prompt.focus();
  prompt.setSelectionRange(prompt.value.length, prompt.value.length);
}

const reasons = [...document.querySelectorAll("[data-reason]")];
const keys = { k: keep, u: undo, e: edit, b: toggleBoxes, z: () => toggleZoom(), "+": larger, "=": larger, "-": smaller };
reasons.forEach((button, index) => {
  keys[index + 1] = () => drop(button);
  button.addEventListener("click", () => drop(button));
});
const clicks = { keep, undo, edit, original: restore, zoom: () => toggleZoom(), larger, smaller, boxes: toggleBoxes };
for (const [id, handle] of Object.entries(clicks)) find(id).addEventListener("click", handle);

prompt.addEventListener("input", showEdit);
prompt.addEventListener("input", measureSoon);
prompt.addEventListener("keydown", (event) => {
  if (event.isComposing || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!event.repeat) keep();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && current) {
    // wherever the focus is, as a click on the picture or a button takes it from the prompt
    restore();
    if (document.activeElement === prompt) stage.focus();
    return;
  }
  if (event.target === prompt || event.altKey || event.ctrlKey || event.metaKey || !find("shortcuts").checked) return;
  const handle = keys[event.key.toLowerCase()];
  if (!handle) return;
  event.preventDefault();
  if (!event.repeat) handle(); // a key that is held down counts once
});
canvas.addEventListener("click", (event) => {
  const place = canvas.getBoundingClientRect();
  toggleZoom((event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height);
});
find("shortcuts").checked = stored("shortcuts") !== "false";
find("shortcuts").addEventListener("change", (event) => store("shortcuts", event.target.checked));
window.addEventListener("beforeunload", (event) => current && isEdited() && event.preventDefault());
new ResizeObserver(fit).observe(stage);

setBoxes(stored("boxes") !== "false");
act("/api/work", {}, "");
setInterval(() => waiting && act("/api/work", {}, ""), AGAIN_MS);
