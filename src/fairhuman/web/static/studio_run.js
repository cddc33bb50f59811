// Runs side by side: state, curves, held-out losses, previews over steps, log. Everything goes on while they run.

import { Chart, range, smoothed } from "./studio_charts.js";
import { address, duration, el, find, get, plural, post, readOnly, remember, remembered, repeat, short, span, svg, tell } from "./studio.js";

const names = JSON.parse(document.body.dataset.names);
const most = Number(document.body.dataset.most);
const LIVE_SECONDS = 2;
const DETAIL_SECONDS = 10;
const QUIET_SECONDS = 10;
const AROUND = 1.7; // side of a close-up as a multiple of the box's longer side
const LEAST = 16; // pixels
const FEW = 3; // objectives whose pairs go into one chart
const CHARTS = [
  { title: "Training loss", prefix: "loss/", loss: true },
  { title: "Who decides the direction (share)", prefix: "share/", fixed: [0, 1] },
  { title: "Weights", prefix: "weight/" },
  { title: "Cosine of gradient and direction", prefix: "rate/" },
  { title: "Cosines between gradients", prefix: "cos/", pairs: true },
  { title: "Samples with the region in view", prefix: "coverage/", fixed: [0, 1] },
  { title: "Regions that are whole in view", prefix: "whole/", fixed: [0, 1] },
  { title: "Pictures a second", names: ["images_per_s"] },
  { title: "Time that waits for data", names: ["waiting"], fixed: [0, 1] },
  { title: "Peak memory, MiB", names: ["peak_memory_mib"] },
  { title: "Learning rate", names: ["lr"] },
  { title: "Norm of the direction", names: ["grad_norm"] },
];
const LIVE = ["starting", "running", "stopping"];
const views = new Map();
let picked = null; // [first, last] steps of a drag
let previewStep = Infinity;
let paired = "global"; // the objective whose pairs are shown, where there are more than a few

const ORDER = ["global", "face", "hand"];
const place = (name) => (ORDER.indexOf(name.split("/")[1]) + ORDER.length + 1) % (ORDER.length + 1);

class RunView {
  constructor(name) {
    this.name = name;
    this.known = null;
    this.curves = null;
    this.state = null;
    this.problems = {}; // by what of the run couldn't be shown
    this.problem = el("p", { class: "problem", role: "alert" });
    this.head = el("div", { class: "run-state" });
    this.charts = el("div", { class: "charts" });
    this.heldOut = el("div", {});
    this.previews = el("div", { class: "preview-rows" });
    this.scrubber = el("div", { class: "scrubber" });
    this.logText = el("pre", { class: "log", tabindex: "0", "aria-label": `Log of ${name}` });
    this.recipe = el("pre", { tabindex: "0", "aria-label": `Recipe of ${name}` });
    this.notes = el("ul", {});
    this.overlay = el("div", {});
    this.drawn = new Map();
    const remove = el("a", { class: "quiet-link", href: address("/run", { name: names.filter((one) => one !== name) }), "aria-label": `Leave out ${name}` }, "✕");
    this.stop = el("button", { type: "button", hidden: true, onclick: () => this.end() }, "Stop and save");
    this.resume = el("button", { type: "button", hidden: true, onclick: () => this.goOn() }, "Resume");
    this.element = el(
      "section",
      { class: "run", "aria-label": name },
      el("div", { class: "run-head" }, el("h2", {}, name), this.stop, this.resume, names.length > 1 && remove),
      this.problem,
      this.head,
      this.charts,
      this.section("Held-out losses", this.heldOut, true),
      this.section("Previews", el("div", {}, this.scrubber, this.previews), true),
      this.section("Log", this.logText, true),
      this.section("What the model sees", this.overlay, false),
      this.section("Notes on the data", this.notes, false),
      this.section("Recipe", this.recipe, false),
    );
  }

  section(title, content, open) {
    const details = el("details", { open }, el("summary", {}, title), content);
    return details;
  }

  async end() {
    if (!window.confirm(`Stop ${this.name}? It saves a checkpoint after this step; the same command resumes it.`)) return;
    this.stop.disabled = true;
    tell("");
    try {
      await post("/api/stop", { run: this.name });
      now();
    } catch (error) {
      tell(error.message);
      this.stop.disabled = false;
    }
  }

  async goOn() {
    this.resume.disabled = true;
    tell("");
    try {
      await post("/api/resume", { run: this.name });
      now();
    } catch (error) {
      tell(error.message);
      this.resume.disabled = false;
    }
  }

  // Calls one of the methods below; what goes wrong with this run alone is told in its section, and keeps up no other.
  async attempt(part) {
    try {
      await this[part]();
      delete this.problems[part];
    } catch (error) {
      if (error.offline) throw error;
      this.problems[part] = error.message;
    }
    const text = Object.values(this.problems)[0] ?? "";
    if (this.problem.textContent !== text) this.problem.textContent = text;
  }

  get live() {
    return LIVE.includes(this.state?.state);
  }

  async refresh() {
    const width = Math.max(120, Math.min(1200, this.charts.clientWidth || 800));
    const steps = this.range();
    const asked = JSON.stringify(steps);
    if (asked !== this.asked) this.known = null;
    const found = await get("/api/metrics", { run: this.name, points: Math.round(width / 2), known: this.known, ...steps });
    this.asked = asked;
    this.state = found.state;
    this.known = found.version;
    if (found.curves) Object.assign(this, { curves: found.curves, colours: found.colours });
    this.showState();
  }

  range() {
    if (picked) return { first: picked[0], last: picked[1] };
    const share = Number(find("range").value);
    return share < 1 && this.state ? { first: Math.floor(this.state.step * (1 - share)) } : {};
  }

  showState() {
    const { state } = this;
    const live = state.state === "running" || state.state === "stopping";
    this.stop.hidden = Boolean(readOnly) || !live;
    this.stop.disabled = state.state === "stopping";
    this.resume.hidden = Boolean(readOnly) || state.state !== "stopped";
    this.resume.disabled = false;
    const done = state.steps ? `${state.step.toLocaleString("en")} of ${state.steps.toLocaleString("en")}` : state.step.toLocaleString("en");
    const facts = [
      ["Step", done],
      ["Left", live ? duration(state.left) : "–"],
      ["Speed", state.images_per_s === null ? "–" : `${short(state.images_per_s)} pictures/s`],
      ["A step", state.seconds_a_step === null ? "–" : `${short(state.seconds_a_step)} s`],
      ["Peak memory", state.peak_memory_mib === null ? "–" : `${Math.round(state.peak_memory_mib).toLocaleString("en")} MiB`],
      ["Strategy", state.strategy ?? "–"],
      ["Model", state.model ?? "–"],
      ["Device", state.device ?? "–"],
    ];
    const bar = el("progress", { max: state.steps || 1, value: state.steps ? Math.min(state.step, state.steps) : 0, "aria-label": `Steps of ${this.name}` });
    this.head.replaceChildren(
      el("p", {}, el("span", { class: `state ${state.state}` }, `${state.state}${state.host && live ? ` on ${state.host}` : ""}`), state.host && state.state === "stopped" ? el("span", { class: "soft" }, ` no sign from ${state.host} since ${new Date(1000 * state.changed).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}`) : null, state.damaged ? el("span", { class: "soft" }, ` ${plural(state.damaged, "damaged line")} left out`) : null),
      el("p", { class: "soft says", hidden: !state.says }, state.says ?? ""),
      bar,
      el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    );
  }

  lines(kind) {
    if (!this.curves) return [];
    const columns = this.curves.columns;
    const found = kind.names ? kind.names.filter((name) => name in columns) : Object.keys(columns).filter((name) => name.startsWith(kind.prefix));
    const other = kind.pairs ? this.partners() : null;
    const shown = other ? found.filter((name) => other.has(name)) : found;
    return shown.sort((a, b) => place(a) - place(b)).map((name) => {
      const label = other?.get(name) ?? (kind.prefix ? name.slice(kind.prefix.length) : name);
      const { mean, low, high } = columns[name];
      const smooth = smoothed(mean, Math.round((Number(find("smoothing").value) / 400) * mean.length));
      return { name, label: kind.prefix ? label : "", colour: this.colours[label] ?? "#167AFA", values: mean, low, high, smooth };
    });
  }

  objectives() {
    return Object.keys(this.curves?.columns ?? {}).filter((name) => name.startsWith("loss/")).sort((a, b) => place(a) - place(b)).map((name) => name.slice(5));
  }

  // With more than a few objectives, the pairs are those of the chosen one: columns and the other objective of each.
  partners() {
    const all = this.objectives();
    if (all.length <= FEW) return null;
    const one = all.includes(paired) ? paired : all[0];
    return new Map(all.flatMap((name) => [[`cos/${one}-${name}`, name], [`cos/${name}-${one}`, name]]));
  }

  offerPairs(chart) {
    const all = this.objectives();
    this.pair ??= el("select", { "aria-label": `Cosines of ${this.name}`, onchange: (event) => ((paired = event.target.value), drawCharts()) });
    if (!this.pair.isConnected) chart.element.querySelector("figcaption").append(this.pair);
    this.pair.hidden = all.length <= FEW;
    if (this.pair.dataset.all !== all.join()) this.pair.replaceChildren(...all.map((name) => el("option", { value: name }, `of ${name} with`)));
    this.pair.dataset.all = all.join();
    this.pair.value = all.includes(paired) ? paired : all[0];
  }

  async detail() {
    const found = await get("/api/run", { run: this.name });
    this.recipe.textContent = found.recipe || "recipe.yaml is missing.";
    this.notes.replaceChildren(...(found.notes.length ? found.notes : ["nothing"]).map((text) => el("li", {}, text)));
    const log = found.log.join("\n") || "No log: the run was started by an earlier version, or from Python.";
    if (log !== this.logText.textContent) {
      const end = this.logText.scrollHeight - this.logText.scrollTop - this.logText.clientHeight < 40;
      this.logText.textContent = log;
      if (end) this.logText.scrollTop = this.logText.scrollHeight;
    }
    if (!found.overlay) this.overlay.textContent = this.live ? "Not drawn yet." : "overlay.png is missing.";
    else if (!this.overlay.querySelector("img")) {
      this.overlay.replaceChildren(el("img", { src: this.picture("overlay.png"), loading: "lazy", alt: "Training samples with their masks on the picture and on the latent grid" }));
    }
    this.showHeldOut(found.held_out);
    this.rows = found.previews;
    showPreviews();
  }

  showHeldOut({ steps, objectives, problem }) {
    const text = JSON.stringify([steps, objectives, problem]);
    if (text === this.heldOutText) return;
    this.heldOutText = text;
    this.heldOut.replaceChildren();
    if (problem) this.heldOut.append(el("p", { class: "problem" }, problem));
    if (!steps.length) {
      this.heldOut.append(el("p", { class: "soft" }, "Not measured yet."));
      return;
    }
    const several = steps.length > 1; // before that there is nothing to compare
    const rows = Object.entries(objectives).map(([name, found]) => {
      const last = found[found.length - 1];
      const later = several ? [el("td", { class: "number" }, short(last.value)), el("td", { class: "number" }, last.change?.text ?? "–"), el("td", { class: "verdict" }, last.change?.verdict ?? "")] : [];
      return el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, short(found[0].value)), later);
    });
    const head = ["Objective", `Step ${steps[0]}`, ...(several ? [`Step ${steps[steps.length - 1]}`, "Paired change, 95 %", ""] : [])];
    const table = el("table", {}, el("thead", {}, el("tr", {}, head.map((name) => (name ? el("th", { scope: "col" }, name) : el("td", {}))))), el("tbody", {}, rows));
    const chart = new Chart("Held-out loss with 95 % intervals", () => {}, () => {});
    this.heldOut.append(el("div", { class: "held-out" }, chart.element, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Held-out losses of ${this.name}` }, table)));
    const lines = Object.entries(objectives).map(([name, found]) => ({
      name, label: name, colour: this.colours?.[name] ?? "#167AFA", dots: true,
      values: found.map((one) => one.value), low: found.map((one) => one.low), high: found.map((one) => one.high),
    }));
    const x = steps.length > 1 ? [steps[0], steps[steps.length - 1]] : [steps[0], steps[0] + 1];
    chart.set(steps, lines, x, range(lines, true), true);
  }

  picture(file) {
    return address("/run/picture", { run: this.name, file });
  }

  showPreviews(step) {
    if (!this.rows) return;
    if (!this.rows.length) {
      this.previews.replaceChildren(el("p", { class: "soft" }, "None drawn yet."));
      return;
    }
    const shots = this.rows.map((row) => row.steps.filter((shot) => shot.step <= step).pop() ?? row.steps[0]);
    const key = JSON.stringify([this.rows.map((row) => row.caption), shots]);
    if (key === this.previewKey) return;
    this.previewKey = key;
    this.previews.replaceChildren(...this.rows.map((row, i) => this.row(row, shots[i])));
  }

  row(row, shot) {
    const frame = (label, file, close) =>
      file ? el("figure", {}, this.shown(file, `${label}: ${row.caption}`), close && this.closeUps(row, file, label), el("figcaption", {}, label)) : null;
    return el(
      "article",
      { class: "preview" },
      el("p", {}, row.caption, el("span", { class: "soft" }, ` seed ${row.seed}`)),
      el("div", { class: "shots" }, frame("Photo", row.photo, true), frame(`Denoised, step ${shot?.step}`, shot?.photo, true), frame(`From the caption, step ${shot?.step}`, shot?.caption, false)),
    );
  }

  shown(file, alt) {
    return el("img", { src: this.picture(file), alt, loading: "lazy", decoding: "async" });
  }

  closeUps(row, file, label) {
    const parts = Object.entries(row.boxes).map(([region, boxes]) => {
      const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
      const box = boxes.reduce((best, one) => (area(one) > area(best) ? one : best));
      const side = AROUND * Math.max(box[2] - box[0], box[3] - box[1], LEAST);
      const view = svg("svg", { class: "close-up", role: "img", "aria-label": `${region}, ${label}` });
      const image = new Image();
      image.onload = () => {
        const fit = Math.min(side, image.naturalWidth, image.naturalHeight);
        const clamp = (middle, size) => Math.min(Math.max(middle - fit / 2, 0), size - fit);
        const [x, y] = [clamp((box[0] + box[2]) / 2, image.naturalWidth), clamp((box[1] + box[3]) / 2, image.naturalHeight)];
        view.setAttribute("viewBox", `${x} ${y} ${fit} ${fit}`);
        view.append(svg("image", { href: image.src, width: image.naturalWidth, height: image.naturalHeight }));
      };
      image.src = this.picture(file);
      return el("span", { class: "of-region" }, view, region);
    });
    return el("div", { class: "close-ups" }, parts);
  }
}

function drawCharts() {
  const log = find("log").checked;
  const all = [...views.values()].filter((view) => view.curves);
  if (!all.length) return;
  const x = [Math.min(...all.map((view) => view.curves.steps[0] ?? 0)), Math.max(...all.map((view) => view.curves.steps[view.curves.steps.length - 1] ?? 1))];
  if (x[0] === x[1]) x[1] += 1;
  for (const kind of CHARTS) {
    const lines = new Map(all.map((view) => [view, view.lines(kind)]));
    const logarithmic = Boolean(kind.loss && log);
    const y = range([...lines.values()].flat(), logarithmic, kind.fixed);
    const there = [...lines.values()].some((found) => found.length);
    for (const [view, found] of lines) {
      let chart = view.drawn.get(kind.title);
      if (!chart && there) {
        chart = new Chart(kind.title, point, (first, last) => pick([first, last]));
        view.drawn.set(kind.title, chart);
        view.charts.append(chart.element);
      }
      chart?.set(view.curves.steps, found, x, y, logarithmic);
      if (chart && kind.pairs) view.offerPairs(chart);
    }
  }
}

function point(fraction) {
  for (const view of views.values()) {
    for (const chart of view.drawn.values()) chart.point(fraction === null ? null : chart.step(fraction));
  }
}

function pick(steps) {
  picked = steps;
  if (steps) {
    let option = find("range").querySelector("[value=picked]");
    if (!option) find("range").append((option = el("option", { value: "picked" })));
    option.textContent = span(steps);
    find("range").value = "picked";
  }
  now();
}

function showPreviews() {
  const steps = [...new Set([...views.values()].flatMap((view) => (view.rows ?? []).flatMap((row) => row.steps.map((shot) => shot.step))))].sort((a, b) => a - b);
  for (const view of views.values()) {
    view.showPreviews(previewStep);
    if (steps.length < 2) {
      view.scrubber.replaceChildren();
      continue;
    }
    const index = steps.filter((step) => step <= previewStep).length - 1;
    let slider = view.scrubber.querySelector("input");
    if (!slider) {
      slider = el("input", { type: "range", min: 0, "aria-label": "Step of the previews" });
      slider.addEventListener("input", () => {
        const place = Number(slider.value);
        previewStep = place === Number(slider.max) ? Infinity : view.steps[place];
        showPreviews();
      });
      view.scrubber.append(slider, el("output", {}));
    }
    view.steps = steps;
    slider.max = steps.length - 1;
    slider.value = Math.max(0, index);
    const text = `step ${steps[Math.max(0, index)].toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", text);
    view.scrubber.querySelector("output").textContent = text;
  }
}

async function offer() {
  const { runs } = await get("/api/runs");
  const listed = runs.filter((run) => run.listed);
  const others = listed.filter((run) => !names.includes(run.name));
  find("add").replaceChildren(el("option", { value: "" }, others.length ? "…" : "no other"), ...others.map((run) => el("option", { value: run.name }, `${run.name} (${run.state})`)));
  find("add").disabled = !others.length || names.length >= most;
  if (!names.length && listed.length) location.replace(address("/run", { name: listed[0].name }));
  else if (!names.length) find("runs").replaceChildren(el("p", { class: "soft" }, "No run yet in the given folders. Reload this page once one has begun."));
}

let detailed = 0;
for (const name of names) {
  const view = new RunView(name);
  views.set(name, view);
  find("runs").append(view.element);
}
find("runs").classList.add(`of-${names.length}`);
find("add").addEventListener("change", (event) => event.target.value && location.assign(address("/run", { name: [...names, event.target.value] })));
find("range").addEventListener("change", (event) => event.target.value !== "picked" && pick(null));
for (const id of ["smoothing", "log"]) {
  const input = find(id);
  const kept = remembered(id);
  if (kept !== null) input.type === "checkbox" ? (input.checked = kept === "true") : (input.value = kept);
  input.addEventListener("input", () => {
    remember(id, input.type === "checkbox" ? input.checked : input.value);
    drawCharts();
  });
}
find("choice").addEventListener("submit", (event) => event.preventDefault());

const now = repeat(async () => {
  await Promise.all([...views.values()].map((view) => view.attempt("refresh")));
  drawCharts();
  const live = [...views.values()].some((view) => view.live);
  if (Date.now() - detailed > 1000 * (live ? DETAIL_SECONDS : 6 * DETAIL_SECONDS)) {
    detailed = Date.now();
    await Promise.all([...views.values()].map((view) => view.attempt("detail")));
    await offer();
  }
  return live ? LIVE_SECONDS : QUIET_SECONDS;
});
