// Line charts: lines of one scale, drawn as SVG, with the values under the pointer in their legend.

import { el, short, span, svg, told } from "./studio.js";

const HEIGHT = 190;
const LEFT = 46;
const RIGHT = 8;
const TOP = 6;
const BOTTOM = 20;

export class Chart {
  // `moved(fraction)` is called with the place of the pointer, null when it leaves; `picked(first, last)` after a drag.
  constructor(title, moved, picked) {
    this.plot = svg("svg", { class: "plot", role: "img" });
    this.legend = el("ul", { class: "legend-list" });
    this.element = el("figure", { class: "chart" }, el("figcaption", {}, title), this.plot, this.legend);
    this.title = title;
    this.items = new Map();
    this.at = null;
    this.start = null;
    this.plot.addEventListener("pointermove", (event) => moved(this.fraction(event)));
    this.plot.addEventListener("pointerleave", () => moved(null));
    this.plot.addEventListener("pointerdown", (event) => (this.start = this.fraction(event)));
    this.plot.addEventListener("pointerup", (event) => {
      const ends = [this.start, this.fraction(event)].sort((a, b) => a - b);
      if (this.start !== null && ends[1] - ends[0] > 0.03) picked(...ends.map((one) => this.step(one)));
      this.start = null;
    });
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  fraction(event) {
    const box = this.plot.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT), 0), 1);
  }

  step(fraction) {
    return Math.round(this.x[0] + fraction * (this.x[1] - this.x[0]));
  }

  // lines: { name, colour, values, low, high, smooth } over `steps`; bars: { low, high } are drawn as a band.
  set(steps, lines, x, y, log) {
    Object.assign(this, { steps, lines, x, y, log });
    this.draw();
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width || !this.lines) return;
    const [y0, y1] = this.y;
    const digits = Math.ceil(Math.log10(Math.max(Math.abs(y0), Math.abs(y1)) / (y1 - y0))) + 2; // a hundredth of the scale
    this.digits = Math.min(Math.max(digits, 3), 5); // the server sends five
    const over = this.log ? Math.log : (value) => value;
    const px = (step) => LEFT + ((width - LEFT - RIGHT) * (step - this.x[0])) / (this.x[1] - this.x[0] || 1);
    const inside = (share) => Math.min(Math.max(share, 0), 1); // what smoothing leaves out of the scale
    const py = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - inside((over(value) - over(y0)) / (over(y1) - over(y0) || 1)));
    this.plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plot.setAttribute("aria-label", this.described());
    const parts = [];
    const levels = ticks(y0, y1, this.log);
    for (const [i, text] of told(levels).entries()) {
      const y = py(levels[i]);
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick", x: LEFT - 5, y: y + 4, "text-anchor": "end" }, text));
    }
    const marks = ticks(...this.x, false, Math.max(2, Math.floor(width / 110))).filter(Number.isInteger);
    for (const [i, text] of told(marks).entries()) {
      const end = px(marks[i]) > width - 30;
      parts.push(svg("text", { class: "tick", x: end ? width - 1 : px(marks[i]), y: HEIGHT - 4, "text-anchor": end ? "end" : "middle" }, text));
    }
    for (const line of this.lines) {
      if (line.low) parts.push(svg("path", { class: "band", fill: line.colour, d: band(this.steps, line, px, py, this.log) }));
      if (line.smooth) parts.push(svg("path", { class: "faint", stroke: line.colour, d: path(this.steps, line.values, px, py, this.log) }));
      parts.push(svg("path", { class: "line", stroke: line.colour, d: path(this.steps, line.smooth ?? line.values, px, py, this.log) }));
      if (line.dots) for (const [i, value] of line.values.entries()) if (value !== null) parts.push(svg("circle", { cx: px(this.steps[i]), cy: py(value), r: 3, fill: line.colour }));
    }
    this.cross = svg("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.plot.replaceChildren(...parts, this.cross);
    this.px = px;
    this.point(this.at);
  }

  // Shows the values at a step; null: the last ones.
  point(step) {
    this.at = step;
    if (!this.lines || !this.cross) return;
    const index = step === null ? null : nearest(this.steps, step);
    this.cross.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index !== null) for (const name of ["x1", "x2"]) this.cross.setAttribute(name, this.px(this.steps[index]));
    const kept = new Set();
    for (const line of this.lines) {
      kept.add(line.name);
      let item = this.items.get(line.name);
      if (!item) {
        item = { swatch: svg("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, svg("rect", { width: 1, height: 1 })), label: el("span", {}), value: el("b", {}) };
        item.element = el("li", {}, item.swatch, item.label, " ", item.value);
        this.items.set(line.name, item);
        this.legend.append(item.element);
      }
      item.swatch.firstChild.setAttribute("fill", line.colour);
      item.label.textContent = line.label ?? line.name;
      const values = line.smooth ?? line.values;
      item.value.textContent = short(index === null ? latest(values) : values[index], this.digits);
    }
    for (const [name, item] of this.items) {
      if (kept.has(name)) continue;
      item.element.remove();
      this.items.delete(name);
    }
  }

  described() {
    const ends = this.lines.map((line) => `${line.label ?? line.name} ${short(latest(line.smooth ?? line.values), this.digits)}`);
    return `${this.title}, steps ${span(this.x)}; at the end: ${ends.join(", ")}`;
  }
}

export function range(lines, log, fixed) {
  let [low, high] = fixed ?? [Infinity, -Infinity];
  for (const line of lines) {
    for (const values of [line.smooth ?? line.values, ...(line.dots ? [line.low ?? [], line.high ?? []] : [])]) {
      for (const value of values) {
        if (value === null || (log && value <= 0)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low === high) return log ? [low / 1.2, high * 1.2] : [low - 0.5 * (Math.abs(low) || 1), high + 0.5 * (Math.abs(high) || 1)];
  const space = log ? (high / low) ** 0.04 : 0.04 * (high - low);
  return fixed ? [low, high] : log ? [low / space, high * space] : [low - space, high + space];
}

// Mean over a window of points on both sides; null where there is no value.
export function smoothed(values, window) {
  if (window < 1) return null;
  const sums = [0];
  const counts = [0];
  for (const value of values) {
    sums.push(sums[sums.length - 1] + (value ?? 0));
    counts.push(counts[counts.length - 1] + (value === null ? 0 : 1));
  }
  return values.map((value, i) => {
    const [from, to] = [Math.max(0, i - window), Math.min(values.length, i + window + 1)];
    const count = counts[to] - counts[from];
    return value === null || !count ? null : (sums[to] - sums[from]) / count;
  });
}

function path(steps, values, px, py, log) {
  let text = "";
  let gap = true;
  let far = null;
  const alone = values.filter((value) => value !== null).length < values.length / 3; // few values are joined
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value === null || (log && value <= 0)) {
      gap = gap || !alone;
      continue;
    }
    text += `${gap ? "M" : "L"}${px(steps[i]).toFixed(1)} ${py(value).toFixed(1)}`;
    far = i;
    gap = false;
  }
  return far === null ? "" : text;
}

function band(steps, line, px, py, log) {
  const known = steps.map((_, i) => i).filter((i) => line.low[i] !== null && line.high[i] !== null && !(log && line.low[i] <= 0));
  if (!known.length) return "";
  const up = known.map((i) => `${px(steps[i]).toFixed(1)} ${py(line.high[i]).toFixed(1)}`);
  const down = known.reverse().map((i) => `${px(steps[i]).toFixed(1)} ${py(line.low[i]).toFixed(1)}`);
  return `M${[...up, ...down].join("L")}Z`;
}

function ticks(low, high, log, wanted = 4) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const factor of high / low > 50 ? [1] : [1, 2, 5]) {
        const value = factor * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found.length > 1 ? found : [low, high];
  }
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const each = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.99);
  const found = [];
  for (let n = Math.ceil(low / each); n * each <= high + each * 1e-6; n++) found.push(Number((n * each).toPrecision(12)));
  return found;
}

function nearest(steps, step) {
  if (!steps.length) return null;
  let best = 0;
  for (let i = 1; i < steps.length; i++) if (Math.abs(steps[i] - step) < Math.abs(steps[best] - step)) best = i;
  return best;
}

function latest(values) {
  for (let i = values.length - 1; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}
