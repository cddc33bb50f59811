// The participant's page: shows one question about one group of pictures at a time and queues each answer. An answer is
// the place of the chosen picture, null for a tie, or a list with the rank of each picture.

import { find, store, stored } from "./page.js";
import { Queue } from "./study_queue.js";
import { View } from "./view.js";

const AGAIN_MS = 2000; // delay before a failed request is retried
const LEAST_MS = 300; // earlier clicks are ignored, as they were meant for the previous question
const MOST_SECONDS = 86_400; // the server's maximum
const AHEAD = 2; // groups to preload
const LEAST_PX = 200; // minimum width of a picture; smaller pages scroll
const GAP_PX = 10;
const SEEN = 0.9; // share of a picture, or of the screen if the picture is larger, that must have been in view
const RANK_PX = 46; // width and height of a number of a rank, with its gap
const LETTERS = "ABCDEFGHI";

const { root, changes } = document.body.dataset;
const questions = JSON.parse(document.body.dataset.questions);
const texts = JSON.parse(document.body.dataset.texts);
const ranked = document.body.dataset.ranked === "true";
const area = find("pictures");
const answers = new Map(); // by step: trial * questions.length + question
const images = new Map(); // by name: promises of decoded images
const queue = new Queue(root, tell);
const view = new View(area, () => find("zoom").setAttribute("aria-pressed", view.zoomed));
let trials = [];
let step = -1;
let since = null; // time at which the pictures of this step were shown; null: not yet
let unseen = []; // pictures and close-ups that haven't been in view since then; answers wait for them
let failing = false;
let ranks = []; // of the pictures that are shown; null: none yet
let current = 0; // the picture whose rank a digit sets

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const element = (name, properties) => Object.assign(document.createElement(name), properties);
const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const valueOf = (answer) => answer.ranks ?? answer.choice;
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const total = () => trials.length * questions.length;
const stepOf = (answer) => answer.trial * questions.length + questions.findIndex((question) => question.name === answer.question);

function firstOpen() {
  for (let open = 0; open < total(); open += 1) if (!answers.has(open)) return open;
  return null;
}

// Loading

async function load() {
  for (;;) {
    try {
      const response = await fetch(`${root}/api/trials`);
      if (response.ok) return await response.json();
      if (response.status === 404) queue.end();
      if (queue.ended) return { trials: [], answers: [] };
    } catch {
      // reported below
    }
    find("problem").textContent = texts.unreachable;
    await later(AGAIN_MS);
  }
}

function picture(name) {
  if (!images.has(name)) images.set(name, loadImage(name));
  return images.get(name);
}

async function loadImage(name) {
  for (;;) {
    const image = new Image();
    image.draggable = false;
    image.src = `${root}/pictures/${name}`;
    try {
      await image.decode();
      return image;
    } catch {
      failing = true;
      tell();
      await later(AGAIN_MS);
      if (!images.has(name)) return null; // no longer needed
    }
  }
}

const namesOf = (trial) => [...trial.pictures, ...trial.zooms.flat()];

// Keep only nearby pictures in memory; the browser caches the rest.
function preload(index) {
  const near = trials.slice(index, index + 1 + AHEAD).flatMap(namesOf);
  for (const name of images.keys()) if (!near.includes(name)) images.delete(name);
  near.forEach(picture);
}

// Showing

async function show(next) {
  step = next ?? total();
  since = null;
  unseen = [];
  const done = next === null;
  find("comparing").hidden = done;
  find("done").hidden = !done;
  tell();
  if (done) {
    find("done").focus();
    return;
  }
  const index = Math.floor(step / questions.length);
  const question = questions[step % questions.length];
  const trial = trials[index];
  find("question").textContent = question.text;
  find("prompt").textContent = trial.prompt ?? "";
  find("asked").hidden = !trial.prompt;
  find("back").disabled = step === 0;
  lock();
  area.classList.add("waiting");
  preload(index);
  const loaded = new Map(await Promise.all(namesOf(trial).map(async (name) => [name, await picture(name)])));
  if (step !== next) return;
  failing = false;
  if (area.dataset.trial !== String(index)) view.reset();
  area.dataset.trial = index;
  scrollTo(0, 0);
  area.replaceChildren(...trial.pictures.map((name, place) => figure(loaded, name, question.zoom ? trial.zooms[place] : [], LETTERS[place])));
  if (ranked) showRanks(trial.pictures.length);
  else showChoices(trial.pictures.length);
  fit();
  view.pan(0, 0);
  area.classList.remove("waiting");
  since = performance.now();
  unseen = parts();
  look();
  tell();
}

const parts = () => [...area.querySelectorAll(".frame, .zooms img")];

// Answers are taken once all pictures have been in view. The answers' bar covers the lower end of the screen.
function look() {
  if (since === null || !unseen.length) return;
  const end = Math.min(find("answering").getBoundingClientRect().top, innerHeight);
  const isSeen = (part) => {
    const { top, bottom, height } = part.getBoundingClientRect();
    return Math.min(bottom, end) - Math.max(top, 0) >= SEEN * Math.min(height, end);
  };
  unseen = unseen.filter((part) => !isSeen(part));
  lock();
}

function lock() {
  const waiting = since === null || unseen.length > 0;
  for (const button of choices) button.setAttribute("aria-disabled", waiting || (button.id === "next" && ranks.includes(null)));
  find("unseen").textContent = unseen.length ? texts.unseen : "";
}

function figure(loaded, name, zooms, letter) {
  const frame = element("div", { className: "frame" });
  const image = loaded.get(name);
  image.alt = fill(texts.picture, { letter });
  frame.append(image, element("b", { textContent: letter, ariaHidden: "true" }));
  const whole = element("figure", {});
  whole.append(frame);
  if (zooms.length) {
    const strip = element("div", { className: "zooms" });
    zooms.forEach((zoom, index) => {
      const copy = loaded.get(zoom);
      copy.alt = fill(texts.enlarged, { letter, number: index + 1 });
      strip.append(copy);
    });
    whole.append(strip);
  }
  return whole;
}

// Height of the numbers below a picture of a width, on as many lines as they need.
const ranksHeight = (count, width) => RANK_PX * (Math.ceil(count / Math.max(1, Math.floor(width / RANK_PX))) + 0.3);

// Columns, at most so many, that fill all rows about equally.
const evenly = (count, most) => Math.ceil(count / Math.ceil(count / Math.max(1, most)));

// Choose the number of rows that makes the pictures largest, preferring one row.
function fit() {
  const figures = [...area.children];
  if (!figures.length) return;
  const first = figures[0].querySelector(".frame img");
  const aspect = first.naturalHeight / first.naturalWidth;
  const rowsOfZooms = [...figures[0].querySelectorAll(".zooms img")].filter((_, index) => index % 2 === 0);
  const tall = aspect + rowsOfZooms.reduce((sum, zoom) => sum + zoom.naturalHeight / zoom.naturalWidth / 2, 0);
  area.style.maxWidth = "";
  const height = innerHeight - (document.body.offsetHeight - area.offsetHeight);
  const count = figures.length;
  const columnCounts = count <= 4 ? [count, 2, 1] : figures.map((_, index) => Math.ceil(count / (index + 1)));
  const widths = columnCounts.map((columns) => {
    const rows = Math.ceil(count / columns);
    const across = (area.clientWidth - GAP_PX * (columns - 1)) / columns;
    const fits = (below) => Math.min(across, ((height - GAP_PX * (rows - 1)) / rows - below) / tall);
    return ranked ? fits(ranksHeight(count, fits(ranksHeight(count, across)))) : fits(0);
  });
  const width = Math.floor(Math.max(...widths, Math.min(LEAST_PX, (area.clientWidth - GAP_PX) / 2)));
  if (count > 4) area.style.maxWidth = `${evenly(count, Math.floor((area.clientWidth + GAP_PX) / (width + GAP_PX))) * (width + GAP_PX)}px`;
  for (const each of figures) {
    each.style.width = `${width}px`;
    each.firstChild.style.height = `${width * aspect}px`;
  }
  look();
}

// Answering

let choices = [];

function showChoices(count) {
  if (choices.length !== count + 1) {
    const key = (place) => (count === 2 ? "←→"[place] : place + 1);
    const pictures = [...LETTERS.slice(0, count)].map((letter, place) => choiceButton(fill(texts.choose, { letter }), key(place), place));
    const tie = choiceButton(texts.tie, "T", null);
    choices = count === 2 ? [pictures[0], tie, pictures[1]] : [...pictures, tie];
    find("choices").replaceChildren(...choices);
  }
  for (const button of choices) {
    const { choice } = button.dataset;
    button.setAttribute("aria-pressed", answers.has(step) && String(answers.get(step)) === choice);
  }
}

function choiceButton(text, key, choice, handle = () => answer(choice)) {
  const button = element("button", {});
  button.dataset.choice = choice;
  button.append(element("span", { textContent: text }), element("kbd", { textContent: key }));
  button.addEventListener("click", handle);
  return button;
}

// Ranks: a row of numbers below each picture. A digit sets the rank of the current picture and goes on to the next one.

function showRanks(count) {
  const before = answers.get(step);
  ranks = before ? [...before] : Array(count).fill(null);
  current = 0;
  [...area.children].forEach((each, place) => each.append(rankButtons(place, count)));
  if (!choices.length) {
    const tie = choiceButton(texts.tie, "T", null, () => answer(Array(ranks.length).fill(1)));
    const next = choiceButton(texts.next, "↵", "next", submit);
    next.id = "next";
    choices = [tie, next];
    find("choices").replaceChildren(...choices);
  }
  tellRanks();
}

function rankButtons(place, count) {
  const row = element("div", { className: "ranks", role: "group", ariaLabel: fill(texts.rank, { letter: LETTERS[place] }) });
  for (let rank = 1; rank <= count; rank += 1) {
    const button = element("button", { textContent: rank });
    button.addEventListener("click", () => setRank(place, ranks[place] === rank ? null : rank));
    button.addEventListener("focus", () => goTo(place));
    row.append(button);
  }
  return row;
}

function setRank(place, rank) {
  ranks[place] = rank;
  goTo(place);
}

function goTo(place) {
  current = Math.min(Math.max(place, 0), ranks.length - 1);
  tellRanks();
}

function typeRank(rank) {
  if (!ranked || since === null || rank > ranks.length) return;
  setRank(current, rank);
  const open = ranks.findIndex((each, place) => each === null && place > current);
  const left = ranks.indexOf(null);
  if (left >= 0) goTo(open >= 0 ? open : left);
  reveal(area.children[current]);
}

const reveal = (part) => {
  document.documentElement.style.scrollPaddingBottom = `${find("answering").offsetHeight}px`;
  part.scrollIntoView({ block: "nearest" });
};

function tellRanks() {
  [...area.children].forEach((each, place) => {
    each.classList.toggle("current", place === current && find("shortcuts").checked);
    [...each.querySelectorAll(".ranks button")].forEach((button, index) => button.setAttribute("aria-pressed", ranks[place] === index + 1));
  });
  const levels = [...new Set(ranks.filter((rank) => rank !== null))].sort((a, b) => a - b);
  const groups = levels.map((level) => [...LETTERS].filter((_, place) => ranks[place] === level).join(" = "));
  find("order").textContent = groups.join(" > ");
  lock();
}

// Ranks without gaps, as only the order counts.
function dense(given) {
  const levels = [...new Set(given)].sort((a, b) => a - b);
  return given.map((rank) => levels.indexOf(rank) + 1);
}

function submit() {
  const open = ranks.indexOf(null);
  if (open >= 0 && !unseen.length) {
    goTo(open);
    find("unseen").textContent = texts.unranked;
    reveal(area.children[open]);
  } else answer(dense(ranks));
}

function answer(choice) {
  const passed = since === null ? 0 : performance.now() - since;
  if (passed < LEAST_MS || queue.ended) return;
  if (unseen.length) {
    reveal(unseen[0]);
    return;
  }
  if (!answers.has(step) || !same(answers.get(step), choice)) {
    answers.set(step, choice);
    const [trial, place] = [Math.floor(step / questions.length), step % questions.length];
    const given = Array.isArray(choice) ? { choice: null, ranks: choice } : { choice };
    queue.add({ trial, question: questions[place].name, ...given, seconds: Math.min(passed / 1000, MOST_SECONDS) });
  }
  show(step + 1 < total() ? step + 1 : firstOpen());
}

function back() {
  if (step > 0) show(step - 1);
}

function tell() {
  const count = trials.length && queue.pending().length;
  find("bar").max = total() || 1;
  find("bar").value = answers.size;
  if (trials.length) {
    const now = Math.min(Math.floor(step / questions.length) + 1, trials.length);
    find("counts").textContent = fill(texts.progress, { now, all: trials.length });
  }
  const waiting = count ? fill(texts.waiting, { count }) : "";
  find("status").textContent = waiting || (step >= total() && step > 0 && !queue.ended ? texts.saved : "");
  const settled = queue.settled && fill(texts.settled, { count: changes });
  const problems = [queue.ended && texts.ended, queue.refused && texts.refused, settled, queue.unkept && texts.unkept, failing && since === null && texts.failed];
  find("problem").textContent = problems.filter(Boolean).join(" ");
  for (const id of ["comparing", "done"]) find(id).hidden ||= queue.ended;
}

// Keys, clicks, other tabs

const isPair = () => !ranked && choices.length === 3;
const has = (place) => place < choices.length - 1;
const keys = { t: () => choices.find((button) => button.dataset.choice === "null")?.click(), b: back, backspace: back, z: () => view.toggle(), "+": () => view.larger(), "=": () => view.larger(), "-": () => view.smaller() };
for (const place of LETTERS.split("").keys()) keys[place + 1] = () => (ranked ? typeRank(place + 1) : has(place) && answer(place));
keys.arrowleft = () => (ranked ? goTo(current - 1) : isPair() && answer(0));
keys.arrowright = () => (ranked ? goTo(current + 1) : isPair() && answer(1));
if (ranked) keys.enter = submit;
const moves = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !find("shortcuts").checked) return;
  const move = event.shiftKey && moves[event.key];
  if (ranked && event.key === "Enter" && event.target.closest("button:not(.ranks [aria-pressed=true]), a")) return; // that is pressed
  const handle = move ? () => view.pan(...move) : keys[event.key.toLowerCase()];
  if (!handle) return;
  event.preventDefault();
  if (move || !event.repeat) handle(); // a key that is held down counts once
});
const clicks = { back, return: back, zoom: () => view.toggle(), larger: () => view.larger(), smaller: () => view.smaller() };
for (const [id, handle] of Object.entries(clicks)) find(id).addEventListener("click", handle);
find("shortcuts").addEventListener("change", (event) => store("study-shortcuts", event.target.checked));
addEventListener("storage", (event) => {
  const other = queue.fromElsewhere(event);
  if (other) {
    answers.set(stepOf(other), valueOf(other));
    if (stepOf(other) === step) show(firstOpen());
  }
  tell();
});
addEventListener("resize", fit);
addEventListener("scroll", look, { passive: true });

find("shortcuts").checked = stored("study-shortcuts") !== "false";
for (const [, each] of queue.pending()) answers.set(stepOf(each), valueOf(each)); // they may be sent before the trials are loaded
const loaded = await load();
trials = loaded.trials;
for (const each of loaded.answers) if (!answers.has(stepOf(each))) answers.set(stepOf(each), valueOf(each));
show(firstOpen());
queue.hurry();
