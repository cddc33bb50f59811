// A data set: pictures in a list of which only what is in view is in the page, and one of them large, to paint on.

import { Editor } from "./studio_editor.js";
import { address, el, find, get, plural, post, remember, remembered, repeat, tell } from "./studio.js";

const { name } = document.body.dataset;
const CHUNK = 100; // pictures in a request
const SHOWN = 28; // pictures that a window shows at most, so that the page stays small
const LEAST = 150; // pixels of a picture's cell
const MOST_SOURCES = 12;
const RETRY_MS = 3000;

let total = 0;
let reading = true; // whether the server may know of more
let asked = 0; // answers to earlier filters count for nothing
let chunks = new Map();
const cards = new Map();
let side = LEAST;
let columns = 1;
let current = 0; // place in the list
let readAt = 0; // when the reading began that the numbers of pictures are of
let routes = 0; // a later address counts, whichever answer comes first
let look = () => {}; // asks the server at once

// The filters are in the page's address, so that a reload and Back keep them.
const filters = ["text", "source", "region", "state", "below", "group"];

function wanted() {
  const found = Object.fromEntries(filters.map((id) => [id, find(id).value]));
  if (!found.region) found.state = "";
  return { ...found, edited: find("edited").checked ? "1" : "", name };
}

const usual = { state: "unknown", below: "50", group: "kept" }; // not in the address
const served = ["source", "region", "group"]; // their choices come from the server
let search = ""; // of the address, whose filters are shown
let routed = ""; // the address whose page is shown

function here(place) {
  const values = wanted();
  for (const [id, value] of Object.entries(usual)) if (values[id] === value) values[id] = "";
  return `${address("/data", values)}${place}`;
}

function fromAddress() {
  search = location.search;
  const values = new URLSearchParams(search);
  for (const id of filters) {
    const value = values.get(id) ?? usual[id] ?? "";
    if (served.includes(id) && ![...find(id).options].some((one) => one.value === value)) find(id).append(el("option", { value }, value));
    find(id).value = value;
  }
  find("edited").checked = values.get("edited") === "1";
  showFilters();
}

function showFilters() {
  find("state").disabled = !find("region").value;
  find("of-below").hidden = find("state").value !== "unsure" || !find("region").value;
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

async function pictureAt(place) {
  const pictures = await chunk(Math.floor(place / CHUNK));
  return pictures[place % CHUNK];
}

function setTotal(value, done) {
  total = value;
  reading = !done;
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

function thumb({ number, key, version }) {
  const values = { name, number, key, group: wanted().group, read: readAt };
  return address("/data/thumb", find("outlines").checked ? { ...values, regions: "1", version } : values);
}

async function fill(place, card) {
  const mine = asked;
  const picture = await pictureAt(place).catch(() => null);
  if (!picture || mine !== asked || cards.get(place) !== card) return;
  const why = picture.rejected ? `${picture.rejected}${picture.problem && `: ${picture.problem}`}` : picture.problem;
  label(card, picture, why);
  card.href = `#${place}`;
  if (picture.shown) card.append(el("img", { src: thumb(picture), alt: picture.key, loading: "lazy", decoding: "async", onerror: () => look() }));
  else card.classList.add("broken");
}

function again() {
  asked += 1;
  chunks = new Map();
  for (const card of cards.values()) card.remove();
  cards.clear();
  chunk(0).catch(() => {}); // it has told
}

function filter() {
  const to = here(location.hash);
  if (to === `${location.pathname}${location.search}${location.hash}`) return; // the search's field is left, by a click
  current = 0;
  history.replaceState(null, "", to);
  [search, routed] = [location.search, location.href];
  showFilters();
  find("grid").scrollTop = 0;
  again();
}

function options(select, values, done) {
  const { value } = select;
  if (!done && !values.some(([one]) => one === value)) values.push([value, value]); // it may come yet
  const texts = JSON.stringify(values);
  if (select.dataset.texts === texts) return;
  select.dataset.texts = texts;
  select.replaceChildren(...values.map(([one, text]) => el("option", { value: one }, text)));
  select.value = values.some(([one]) => one === value) ? value : values[0][0];
  if (select.value !== value) filter();
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
      move(by) {
        if (current + by < 0 || current + by >= total) return;
        history.replaceState(null, "", here(`#${current + by}`)); // Back goes to the list
        route();
      },
      leave: () => location.assign("#"),
      changed: (picture) => {
        for (const [number, request] of chunks) {
          const known = request.catch(() => []);
          known.then((pictures) => {
            const found = pictures.find((one) => one.number === picture.number);
            if (!found) return;
            Object.assign(found, { caption: picture.caption, changed: picture.changed.length > 0, version: picture.version });
            const card = cards.get(number * CHUNK + pictures.indexOf(found));
            if (!card) return;
            label(card, found);
            const image = card.querySelector("img");
            if (image) image.src = thumb(found);
          });
        }
      },
    })
  : null;

function open(place) {
  if (place < 0 || place >= total) return;
  location.hash = place;
}

async function route() {
  const mine = ++routes;
  routed = location.href;
  const back = !find("editor").hidden;
  editor.close();
  if (location.search !== search) {
    fromAddress();
    again();
  }
  const place = location.hash.length > 1 ? Number(location.hash.slice(1)) : null;
  const large = place !== null && Number.isInteger(place);
  if (large) {
    current = place;
    const picture = await pictureAt(place).catch((error) => error);
    if (mine !== routes) return;
    if (picture?.offline || (!picture && reading)) {
      setTimeout(() => mine === routes && route(), RETRY_MS);
      return;
    }
    if (picture?.shown) {
      find("list").hidden = true;
      find("editor").hidden = false;
      await editor.open(picture, wanted().group);
      return;
    }
    if (picture) tell(picture.problem || picture.message || "This picture can't be shown.");
  }
  find("editor").hidden = true;
  find("list").hidden = false;
  measure();
  if (place === null && total) moveTo(current);
  if (back) find("grid").focus({ preventScroll: true });
}

if (name) {
  let known = "";
  fromAddress();
  find("outlines").checked = remembered("outlines") === "1";
  find("outlines").addEventListener("change", () => {
    remember("outlines", find("outlines").checked ? "1" : "");
    again();
  });
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
  for (const kind of ["hashchange", "popstate"]) window.addEventListener(kind, () => location.href !== routed && route());
  let first = true;
  look = repeat(async () => {
    let facts = await get("/api/data", { name });
    if (facts.changed && find("editor").hidden) facts = await post("/api/reload", { name }); // before pictures are asked for that are gone
    editor.facts(facts);
    readAt = facts.read_at;
    options(find("region"), [["", "any"], ...facts.regions.map((one) => [one, one])], facts.done);
    const { sources } = facts;
    find("of-source").hidden = sources.length < 2;
    options(find("source"), [["", "any"], ...sources.slice(0, MOST_SOURCES).map((one) => [one, one])], facts.done);
    const groups = [["kept", "pictures"], ...(facts.broken ? [["broken", `can't be used (${facts.broken})`]] : [])];
    options(find("group"), [...groups, ...Object.entries(facts.rejected).map(([reason, number]) => [reason, `left out, ${reason} (${number})`])], facts.done);
    const state = JSON.stringify([facts.read_at, facts.all, facts.done, facts.broken]);
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
