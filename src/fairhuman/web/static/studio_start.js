// A form of all settings of a training run, and what a dry run finds beside it.

import { address, el, find, get, post, tell } from "./studio.js";

const [DATA, REGIONS] = ["data", "regions.names"];
const AGAIN_MS = 1200; // pause in typing after which the dry run is tried again
const chosen = new Map();
let asked = 0;
let pause = 0;
let recipes = {}; // what each names, by setting
let choices = {}; // all values of some settings

function field(setting, from) {
  const { name, type, range, description, effect } = setting;
  const id = `set-${name}`;
  const words = type.split(" or ").map((one) => one.trim());
  const fixed = choices[name] ? choices[name] : type === "true or false" ? ["true", "false"] : words.length > 1 && words.every((one) => /^'?[a-z0-9_-]+'?$/.test(one) && !["null", "number", "text", "path", "list"].includes(one)) ? words.map((one) => one.replaceAll("'", "")) : null;
  const input = fixed
    ? el("select", { id }, el("option", { value: "" }), fixed.map((one) => el("option", {}, one)))
    : el("input", { id, list: name === DATA ? "data-sets" : undefined, spellcheck: "false" });
  input.addEventListener("input", () => {
    set(name, input.value, input);
    soon();
  });
  input.dataset.setting = name;
  input.dataset.usual = setting.default === "required" ? "" : setting.default;
  const more = [description, range, effect && `needs ${effect}`].filter(Boolean).join("; ");
  const hint = el("small", { class: "soft", id: `${id}-hint-${from}` }, more);
  input.setAttribute("aria-describedby", hint.id);
  if (from === "all") input.id = `${id}-all`;
  return el("div", { class: "setting" }, el("label", { for: input.id }, name), input, name === REGIONS && el("div", { class: "ticks", role: "group", "aria-label": "Regions of the data set" }), hint);
}

function set(name, value, from = null) {
  if (value.trim()) chosen.set(name, value.trim());
  else chosen.delete(name);
  for (const input of inputs(name)) if (input !== from) input.value = value;
  if (name === REGIONS) tick();
}

const inputs = (name) => document.querySelectorAll(`[data-setting="${CSS.escape(name)}"]`);
const current = (name) => chosen.get(name) ?? recipes[find("recipe").value]?.[name] ?? inputs(name)[0].dataset.usual;
const regions = () => current(REGIONS).replace(/[[\]'"]/g, "").split(",").map((one) => one.trim()).filter(Boolean);

let regionsOf = null; // the data set whose regions can be ticked

// The data set's regions, to be ticked: without them the names would have to be known.
async function showRegions() {
  const data = current(DATA);
  if (data === regionsOf) return;
  regionsOf = data;
  const found = await get("/api/regions", { data }).catch(() => ({ regions: [] }));
  if (data !== regionsOf) return;
  for (const ticks of document.querySelectorAll(".ticks")) {
    ticks.replaceChildren(...found.regions.map((name) => el("label", { class: "check" }, el("input", { type: "checkbox", value: name, onchange: pickRegion }), ` ${name}`)));
  }
  tick();
}

function pickRegion(event) {
  const { value, checked } = event.target;
  const names = regions().filter((name) => name !== value);
  set(REGIONS, [...names, ...(checked ? [value] : [])].join(", ") || "[]");
  soon();
}

function tick() {
  const names = regions();
  for (const box of document.querySelectorAll(".ticks input")) box.checked = names.includes(box.value);
}

// What an empty field stands for: the value of the chosen recipe, or the setting's own default.
function showRecipe() {
  const values = recipes[find("recipe").value] ?? {};
  for (const input of document.querySelectorAll("[data-setting]")) {
    const value = values[input.dataset.setting] ?? input.dataset.usual;
    if (input.options) input.options[0].textContent = `as in the recipe (${value})`;
    else input.placeholder = value;
  }
  tick();
}

const settings = () => [...chosen].map(([name, value]) => `${name}=${value}`);
const body = () => ({ recipe: find("recipe").value, settings: settings() });

function soon() {
  find("start").disabled = true;
  clearTimeout(pause);
  pause = setTimeout(attempt, AGAIN_MS);
}

let busy = false; // a dry run takes seconds and memory, so one runs at a time

async function attempt() {
  clearTimeout(pause);
  const mine = ++asked;
  if (busy) return;
  busy = true;
  find("start").disabled = true;
  find("state").textContent = "Trying…";
  showRegions();
  try {
    const { ready, findings, command } = await post("/api/plan", body());
    if (mine !== asked) return;
    find("state").textContent = ready ? "It can start now." : "It can't start like this.";
    find("findings").replaceChildren(...findings.map((text) => el("li", { class: text.trimStart().split(/\s/)[0] }, text)));
    find("command").textContent = command ?? "";
    find("start").disabled = !ready;
    tell("");
  } catch (error) {
    if (mine !== asked) return;
    find("state").textContent = error.message;
    find("findings").replaceChildren();
  } finally {
    busy = false;
    if (mine !== asked) attempt();
  }
}

async function start() {
  find("start").disabled = true;
  try {
    await post("/api/start", body());
    find("state").textContent = "Started. It appears on the overview once its data and model are read.";
    setTimeout(() => location.assign(address("")), 2500);
  } catch (error) {
    tell(error.message);
  }
}

async function build() {
  const found = await get("/api/form");
  ({ recipes, choices } = found);
  const names = Object.keys(recipes);
  find("recipe").append(...names.map((name) => el("option", {}, name)));
  const usual = names.find((name) => name.endsWith("lora-small.yaml"));
  if (usual) find("recipe").value = usual;
  find("data-sets").append(...found.data.map((path) => el("option", { value: path })));
  const byName = new Map(found.settings.map((setting) => [setting.name, setting]));
  find("first").append(...found.first.filter((name) => byName.has(name)).map((name) => field(byName.get(name), "first")));
  const sections = new Map();
  for (const setting of found.settings) {
    const section = setting.name.includes(".") ? setting.name.split(".")[0] : "general";
    if (!sections.has(section)) sections.set(section, []);
    sections.get(section).push(field(setting, "all"));
  }
  find("others").append(...[...sections].map(([name, fields]) => el("fieldset", { class: "settings" }, el("legend", {}, name), fields)));
  for (const [name, value] of Object.entries({ data: found.data[0] ?? "", out: found.out })) set(name, value);
  showRecipe();
  attempt();
}

find("recipe").addEventListener("change", () => {
  showRecipe();
  soon();
});
find("try").addEventListener("click", attempt);
find("start").addEventListener("click", start);
find("form").addEventListener("submit", (event) => event.preventDefault());
find("search").addEventListener("input", () => {
  const text = find("search").value.toLowerCase();
  for (const field of document.querySelectorAll("#others .setting")) field.hidden = !field.textContent.toLowerCase().includes(text);
  for (const section of document.querySelectorAll("#others fieldset")) section.hidden = ![...section.querySelectorAll(".setting")].some((one) => !one.hidden);
});
build().catch((error) => tell(error.message));
