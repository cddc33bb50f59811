// A data set: pictures in a list of which only what is in view is in the page, and one of them large, to paint on.

import { Editor } from "./studio_editor.js";
import { address, el, find, get, plural, post, repeat, tell } from "./studio.js";

const { name } = document.body.dataset;
const CHUNK = 100; // pictures in a request
const SHOWN = 28; // pictures that a window shows at most, so that the page stays small
const LEAST = 150; // pixels of a picture's cell
const MOST_SOURCES = 12;

let total = 0;
let asked = 0; // answers to earlier filters count for nothing
let chunks = new Map();
const cards = new Map();
let side = LEAST;
let columns = 1;
let current = 0; // place in the list
let look = () => {}; // asks the server at once

const filters = ["text", "source", "region", "state", "below", "group"];

function wanted() {
  const found = Object.fromEntries(filters.map((id) => [id, find(id).value]));
  if (!found.region) found.state = "";
  return { ...found, edited: find("edited").checked ? "1" : "", name };
}

async function chunk(number) {
  if (!chunks.has(number)) {
    const mine = asked;
    const request = get("/api/pictures", { ...wanted(), start: number * CHUNK, most: CHUNK }).then((answer) => {
      if (mine === asked) setTotal(answer.total, answer.done);
      return answer.pictures;
    });
    chunks.set(number, request);
    request.catch((error) => {
      if (mine === asked) chunks.delete(number);
      tell(error.message);
    });
  }
  return chunks.get(number);
}

export async function pictureAt(place) {
  const pictures = await chunk(Math.floor(place / CHUNK));
  return pictures[place % CHUNK];
}

function setTotal(value, done) {
  total = value;
  find("count").textContent = `${plural(total, "picture")}${done ? "" : ", reading…"}`;
  measure();
}

function measure() {
  const grid = find("grid");
  const { clientWidth: width, clientHeight: height } = grid;
  if (!width) return;
  side = Math.max(LEAST, Math.sqrt((width * height) / SHOWN));
  columns = Math.max(2, Math.floor(width / side));
  side = width / columns;
  find("sheet").style.height = `${Math.ceil(total / columns) * side}px`;
  show();
}

function show() {
  const grid = find("grid");
  const first = Math.max(0, Math.floor(grid.scrollTop / side)) * columns;
  const last = Math.min(total, (Math.floor((grid.scrollTop + grid.clientHeight) / side) + 1) * columns);
  for (const [place, card] of cards) {
    if (place >= first && place < last) continue;
    card.remove();
    cards.delete(place);
  }
  for (let place = first; place < last; place++) {
    let card = cards.get(place);
    if (!card) {
      card = el("a", { class: "card", tabindex: "-1" });
      cards.set(place, card);
      find("sheet").append(card);
      fill(place, card);
    }
    card.style.width = card.style.height = `${side}px`;
    card.style.transform = `translate(${(place % columns) * side}px, ${Math.floor(place / columns) * side}px)`;
    card.classList.toggle("current", place === current);
  }
}

function label(card, picture, why = "") {
  card.dataset.text = [picture.changed && "✎", picture.key, why || picture.caption].filter(Boolean).join(" · ");
  card.title = [picture.key, why, picture.caption, picture.changed && "Changed here"].filter(Boolean).join("\n");
}

async function fill(place, card) {
  const mine = asked;
  const picture = await pictureAt(place).catch(() => null);
  if (!picture || mine !== asked || cards.get(place) !== card) return;
  const why = picture.rejected ? `${picture.rejected}${picture.problem && `: ${picture.problem}`}` : picture.problem;
  label(card, picture, why);
  card.href = `#${place}`;
  const { group } = wanted();
  if (picture.shown) card.append(el("img", { src: address("/data/thumb", { name, number: picture.number, group }), alt: picture.key, loading: "lazy", decoding: "async", onerror: () => look() }));
  else card.classList.add("broken");
}

function again() {
  asked += 1;
  chunks = new Map();
  for (const card of cards.values()) card.remove();
  cards.clear();
  chunk(0);
}

function filter() {
  current = 0;
  find("state").disabled = !find("region").value;
  find("of-below").hidden = find("state").value !== "unsure" || !find("region").value;
  find("grid").scrollTop = 0;
  again();
}

function options(select, values) {
  const texts = JSON.stringify(values);
  if (select.dataset.texts === texts) return;
  select.dataset.texts = texts;
  const { value } = select;
  select.replaceChildren(...values.map(([one, text]) => el("option", { value: one }, text)));
  select.value = values.some(([one]) => one === value) ? value : values[0][0];
}

function moveTo(place) {
  current = Math.min(Math.max(place, 0), total - 1);
  const grid = find("grid");
  const top = Math.floor(current / columns) * side;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + side > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + side - grid.clientHeight;
  show();
}

const editor = name
  ? new Editor(name, {
      move: (by) => open(current + by),
      leave: () => location.assign("#"),
      changed: (picture) => {
        for (const [number, request] of chunks) {
          request.then((pictures) => {
            const found = pictures.find((one) => one.number === picture.number);
            if (!found) return;
            Object.assign(found, { caption: picture.caption, changed: picture.changed.length > 0 });
            const card = cards.get(number * CHUNK + pictures.indexOf(found));
            if (card) label(card, found);
          });
        }
      },
    })
  : null;

async function open(place) {
  if (place < 0 || place >= total) return;
  location.hash = place;
}

async function route() {
  const place = location.hash.length > 1 ? Number(location.hash.slice(1)) : null;
  const large = place !== null && Number.isInteger(place);
  if (large) {
    current = place;
    const picture = await pictureAt(place).catch(() => null);
    if (picture?.shown) {
      find("list").hidden = true;
      find("editor").hidden = false;
      await editor.open(picture.number, wanted().group);
      return;
    }
    if (picture) tell(picture.problem || "This picture can't be shown.");
  }
  const back = !find("editor").hidden;
  editor.close();
  find("editor").hidden = true;
  find("list").hidden = false;
  measure();
  if (place === null && total) moveTo(current);
  if (back) find("grid").focus({ preventScroll: true });
}

if (name) {
  let known = "";
  for (const id of [...filters, "edited"]) find(id).addEventListener("change", filter);
  let pause = 0;
  find("text").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(filter, 250);
  });
  find("set")?.addEventListener("change", (event) => location.assign(address("/data", { name: event.target.value })));
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("grid").addEventListener("scroll", show, { passive: true });
  find("grid").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -5 * columns, PageDown: 5 * columns, Home: -total, End: total }[event.key];
    if (by !== undefined) moveTo(current + by);
    else if (event.key === "Enter") open(current);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(measure).observe(find("grid"));
  window.addEventListener("hashchange", route);
  let first = true;
  look = repeat(async () => {
    let facts = await get("/api/data", { name });
    if (facts.changed && find("editor").hidden) facts = await post("/api/reload", { name }); // before pictures are asked for that are gone
    editor.facts(facts);
    options(find("region"), [["", "any"], ...facts.regions.map((one) => [one, one])]);
    const { sources } = facts;
    find("of-source").hidden = sources.length < 2;
    options(find("source"), [["", "any"], ...sources.slice(0, MOST_SOURCES).map((one) => [one, one])]);
    const groups = [["kept", "pictures"], ...(facts.broken ? [["broken", `can't be used (${facts.broken})`]] : [])];
    options(find("group"), [...groups, ...Object.entries(facts.rejected).map(([reason, number]) => [reason, `left out, ${reason} (${number})`])]);
    const state = JSON.stringify([facts.all, facts.done, facts.broken]);
    if (state !== known) {
      known = state;
      if (!facts.done && total > CHUNK) {
        setTotal((await get("/api/pictures", { ...wanted(), most: 1 })).total, false);
      } else {
        again();
        await chunk(0);
      }
      if (first && total) await route();
      first = first && !total;
    }
    if (facts.problem) throw new Error(facts.problem);
    return facts.done ? 8 : 0.7;
  });
}
