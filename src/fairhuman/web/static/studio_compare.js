// Pictures of the same prompt and seed: side by side, blinking, or under a slider, with one zoom for all.

import { address, el, find, get, plural, post, readOnly, tell } from "./studio.js";

const names = JSON.parse(document.body.dataset.names);
const BLINK_MS = 700;
const LARGEST = 24;
let rows = [];
let place = 0;
let mode = "beside";
let shown = 0; // of blinking pictures
let zoom = { scale: 1, x: 0.5, y: 0.5 }; // the middle of the view, as shares of the picture
const frames = find("frames");
const pointers = new Map();

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
      image.addEventListener("load", apply);
      return el("figure", { class: "compared" }, el("div", { class: "window" }, image), el("figcaption", {}, name));
    }),
  );
  if (mode === "slider" && names.length > 1) frames.lastElementChild.append(line());
  const ahead = listed()[place + 1];
  if (ahead) for (const name of names) new Image().src = source(ahead, name);
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
    const image = figure.querySelector("img");
    const { scale, x, y } = zoom;
    image.style.transform = `scale(${scale}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    image.style.imageRendering = scale > 4 ? "pixelated" : "auto";
    const last = mode === "slider" && i === figures.length - 1 && i > 0;
    figure.querySelector(".window").style.clipPath = last ? `inset(0 0 0 ${share}%)` : "";
    figure.classList.toggle("away", (mode === "blink" && i !== shown % figures.length) || (mode === "slider" && i > 0 && !last));
  });
}

function setZoom(scale, x = zoom.x, y = zoom.y) {
  scale = Math.min(Math.max(scale, 1), LARGEST);
  const room = 0.5 / scale;
  const inside = (value) => Math.min(Math.max(value, room), 1 - room);
  zoom = { scale, x: inside(x), y: inside(y) };
  apply();
}

function size() {
  const image = frames.querySelector(".compared:not(.away) img");
  return image ? [image.offsetWidth || 1, image.offsetHeight || 1] : [1, 1];
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
  const clicks = { previous: () => go(place - 1), next: () => go(place + 1), fit: () => setZoom(1, 0.5, 0.5), star, study: handOver };
  for (const [id, act] of Object.entries(clicks)) find(id)?.addEventListener("click", act);
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => choose(button.dataset.mode));
  find("bar").addEventListener("submit", (event) => event.preventDefault());
  find("row").addEventListener("change", () => go(Number(find("row").value) - 1));
  find("stars").addEventListener("change", () => go(0));
  find("share").addEventListener("input", apply);
  find("note").addEventListener("change", () => save({ note: find("note").value }));
  for (const id of ["star", "note"]) find(id).disabled = Boolean(readOnly);
  frames.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      setZoom(zoom.scale * Math.exp(-event.deltaY / 400));
    },
    { passive: false },
  );
  frames.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    frames.setPointerCapture(event.pointerId);
  });
  frames.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
      setZoom((zoom.scale * apart([event.clientX, event.clientY])) / apart(before));
      return;
    }
    const [width, height] = size();
    setZoom(zoom.scale, zoom.x - (event.clientX - before[0]) / (width * zoom.scale), zoom.y - (event.clientY - before[1]) / (height * zoom.scale));
  });
  for (const kind of ["pointerup", "pointercancel"]) frames.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  frames.addEventListener("dblclick", () => setZoom(zoom.scale > 1 ? 1 : 3));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=range], [type=checkbox]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const step = 0.08 / zoom.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const back = () => go(place - 1);
    const on = () => go(place + 1);
    const acts = { ArrowLeft: back, "<": back, ",": back, ArrowRight: on, ">": on, ".": on, 1: () => choose("beside"), 2: () => choose("blink"), 3: () => choose("slider"), 0: () => setZoom(1, 0.5, 0.5), "+": () => setZoom(zoom.scale * 1.4), "=": () => setZoom(zoom.scale * 1.4), "-": () => setZoom(zoom.scale / 1.4), s: star, b: () => ((shown += 1), apply()) };
    if (event.shiftKey && moves[event.key]) setZoom(zoom.scale, zoom.x + moves[event.key][0], zoom.y + moves[event.key][1]);
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
