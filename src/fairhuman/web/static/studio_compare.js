// Pictures of the same prompt and seed: side by side, blinking, or under a slider, with one zoom for all.

import { address, el, find, get, plural, post, readOnly, tell } from "./studio.js";
import { View } from "./view.js";

const names = JSON.parse(document.body.dataset.names);
const BLINK_MS = 700;
const STEP = 0.08; // of a key that moves, as a share of what is in view
const PIXELS = 4; // from this zoom on a picture's pixels are drawn as squares
let rows = [];
let place = 0;
let mode = "beside";
let shown = 0; // of blinking pictures
let view = null;
const frames = find("frames");

const listed = () => (find("stars").checked ? rows.filter((row) => row.star) : rows);
const current = () => listed()[place];
const source = (row, of) => address("/compare/picture", { name: names, row: row.id, of });

function show() {
  const row = current();
  find("of").textContent = `of ${listed().length}`;
  find("row").max = listed().length;
  if (!row) {
    frames.replaceChildren(el("p", { class: "soft" }, find("stars").checked ? "No row has a star." : "No rows."));
    return;
  }
  find("row").value = place + 1;
  find("prompt").textContent = row.prompt ? `${row.label} · ${row.prompt}` : row.label;
  find("note").value = row.note;
  showStar();
  frames.className = `frames ${mode}`;
  frames.replaceChildren(
    ...names.map((name) => {
      const image = el("img", { src: source(row, name), alt: `${name}: ${row.prompt}`, draggable: "false" });
      return el("figure", { class: "compared" }, el("div", { class: "frame" }, image), el("figcaption", {}, name));
    }),
  );
  if (mode === "slider" && names.length > 1) frames.lastElementChild.append(line());
  const ahead = listed()[place + 1];
  if (ahead) for (const name of names) new Image().src = source(ahead, name);
  view.apply();
  apply();
}

// What parts the two pictures under the slider; dragged, it moves the slider.
function line() {
  const split = el("div", { class: "split" });
  const move = (event) => {
    event.stopPropagation();
    if (!split.hasPointerCapture(event.pointerId)) return;
    const { left, width } = split.parentElement.getBoundingClientRect();
    find("share").value = (100 * (event.clientX - left)) / width;
    apply();
  };
  split.addEventListener("pointerdown", (event) => {
    split.setPointerCapture(event.pointerId);
    move(event);
  });
  split.addEventListener("pointermove", move);
  return split;
}

function apply() {
  const figures = [...frames.querySelectorAll(".compared")];
  const share = Number(find("share").value);
  find("of-share").hidden = mode !== "slider";
  const split = frames.querySelector(".split");
  if (split) split.style.marginLeft = `calc(${share}% - 1.5px)`;
  figures.forEach((figure, i) => {
    const last = mode === "slider" && i === figures.length - 1 && i > 0;
    figure.querySelector(".frame").style.clipPath = last ? `inset(0 0 0 ${share}%)` : "";
    figure.classList.toggle("away", (mode === "blink" && i !== shown % figures.length) || (mode === "slider" && i > 0 && !last));
  });
}

function choose(next) {
  if (next !== "slider" && document.activeElement === find("share")) frames.focus({ preventScroll: true }); // it hides
  mode = next;
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  show();
}

function go(to) {
  place = Math.min(Math.max(to, 0), Math.max(0, listed().length - 1));
  show();
}

function showStar() {
  const { star } = current();
  find("star").setAttribute("aria-pressed", star);
  find("star").firstChild.textContent = star ? "★ Star " : "☆ Star ";
}

async function save(change) {
  const row = current();
  if (!row || readOnly) return;
  Object.assign(row, change);
  showStar();
  try {
    await post("/api/choice", { names, row: row.id, star: row.star, note: row.note });
    find("saved").textContent = "Saved.";
    tell("");
  } catch (error) {
    find("saved").textContent = "Not saved.";
    tell(error.message);
  }
}

const star = () => current() && save({ star: !current().star });

async function handOver() {
  try {
    const { command, stars } = await post("/api/study", { names });
    find("handed").textContent = `The list has all rows but ${plural(stars, "row")} with a star. Run:`;
    find("command").textContent = command;
    find("command").hidden = false;
    tell("");
  } catch (error) {
    tell(error.message);
  }
}

async function start() {
  try {
    const found = await get("/api/compare", { name: names });
    rows = found.rows;
    find("notes").replaceChildren(...(found.notes.length ? found.notes : ["Nothing that is known."]).map((text) => el("li", {}, text)));
    show();
    frames.focus({ preventScroll: true });
  } catch (error) {
    tell(error.message);
  }
}

if (names.length) {
  view = new View(frames, () => frames.classList.toggle("close", view.scale > PIXELS));
  const clicks = { previous: () => go(place - 1), next: () => go(place + 1), fit: () => view.reset(), star, study: handOver };
  for (const [id, act] of Object.entries(clicks)) find(id)?.addEventListener("click", act);
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => choose(button.dataset.mode));
  find("bar").addEventListener("submit", (event) => event.preventDefault());
  find("row").addEventListener("change", () => go(Number(find("row").value) - 1));
  find("stars").addEventListener("change", () => go(0));
  find("share").addEventListener("input", apply);
  find("note").addEventListener("change", () => save({ note: find("note").value }));
  for (const id of ["star", "note"]) find(id).disabled = Boolean(readOnly);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=range], [type=checkbox]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const back = () => go(place - 1);
    const on = () => go(place + 1);
    const acts = { ArrowLeft: back, "<": back, ",": back, ArrowRight: on, ">": on, ".": on, 1: () => choose("beside"), 2: () => choose("blink"), 3: () => choose("slider"), 0: () => view.reset(), "+": () => view.larger(), "=": () => view.larger(), "-": () => view.smaller(), s: star, b: () => ((shown += 1), apply()) };
    if (event.shiftKey && moves[event.key]) view.pan(...moves[event.key]);
    else if (acts[event.key.toLowerCase()] ?? acts[event.key]) (acts[event.key] ?? acts[event.key.toLowerCase()])();
    else return;
    event.preventDefault();
  });
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  setInterval(() => {
    if (mode !== "blink" || still.matches) return; // B shows the next one by hand
    shown += 1;
    apply();
  }, BLINK_MS);
  start();
}
