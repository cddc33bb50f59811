// One picture of a data set, large: look at its regions, paint them, and see what training makes of them.
// Every change is sent as soon as it is made; without the server it waits, in order, until the server is back.

import { box as fillBox, count, grown, maskOf, polygon, runsOf, stroke } from "./studio_mask.js";
import { address, el, find, get, plural, post, remember, remembered, svg, tell } from "./studio.js";

const LARGEST = 40; // screen pixels a cell
const HANDLE = 9; // screen pixels around a corner
const RETRY_MS = 3000;
const TYPING_MS = 1200; // a pause after which a caption is saved
const PALM_MS = 1500; // after a pen, in which touches are taken for the palm
const TOOLS = { v: "pan", b: "brush", e: "eraser", p: "polygon", r: "box" };

export class Editor {
  constructor(name, { move, leave, changed }) {
    Object.assign(this, { name, move, leave, changed });
    this.canvas = find("canvas");
    this.context = this.canvas.getContext("2d");
    this.picture = null;
    this.group = "kept";
    this.tool = "pan";
    this.region = "";
    this.hidden = new Set();
    this.masks = new Map(); // region to { mask, canvas }
    this.view = { scale: 1, x: 0, y: 0 };
    this.pointers = new Map();
    this.points = []; // of an open polygon
    this.cursor = null;
    this.versions = new Map(); // of the pictures by number, as this page knows them
    this.queue = [];
    this.sending = false;
    this.pen = 0;
    this.draw = 0;
    this.colours = {};
    this.readOnly = "";
    this.listen();
    this.choose("pan");
  }

  get busy() {
    return this.queue.length > 0 || this.pointers.size > 0;
  }

  facts({ colours, read_only: readOnly, regions }) {
    this.colours = colours;
    this.readOnly = readOnly;
    this.known = regions;
    if (!this.picture) return;
    for (const [region, held] of this.masks) if (held.colour !== this.colour(region)) this.tint(region, 0, 0, this.picture.width, this.picture.height);
    this.showRegions();
    this.paint();
  }

  async open(number, group) {
    this.saveCaption();
    find("caption").blur();
    tell("");
    await this.settled();
    this.group = group;
    const [picture, image] = await Promise.all([get("/api/picture", { name: this.name, number, group }), this.load(number, group)]).catch((error) => {
      tell(error.message);
      return [null, null];
    });
    if (!picture) return;
    this.image = image;
    this.draw = 0;
    this.points = [];
    this.show(picture);
    this.fit();
    this.canvas.focus({ preventScroll: true });
  }

  close() {
    this.saveCaption();
    this.picture = null;
    this.points = [];
  }

  async load(number, group) {
    const image = new Image();
    image.src = address("/data/picture", { name: this.name, number, group });
    await image.decode();
    return image;
  }

  show(picture) {
    this.picture = picture;
    this.versions.set(picture.number, picture.version);
    this.act = null;
    this.made = null;
    this.masks.clear();
    for (const [region, runs] of Object.entries(picture.masks)) this.setMask(region, maskOf(runs, picture.width, picture.height));
    if (!this.names().includes(this.region)) this.region = this.names().find((one) => picture.boxes[one]?.length || picture.masks[one]) ?? this.names()[0];
    find("title").textContent = picture.key;
    if (document.activeElement !== find("caption")) find("caption").value = picture.caption;
    const facts = [["Size", `${picture.width} × ${picture.height}`], ["Source", picture.source], ["Split", picture.split], ["At", picture.location], ["Changed here", picture.changed.join(", ")], ...picture.notes.map((note) => ["Note", note])];
    find("facts").replaceChildren(...facts.filter(([, value]) => value).map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
    this.showRegions();
    this.showSeen();
    this.paint();
  }

  names() {
    return [...new Set([...(this.known ?? []), ...Object.keys(this.picture.boxes), ...Object.keys(this.picture.masks), ...(this.added ?? [])])].sort((a, b) => (a === "ignore") - (b === "ignore"));
  }

  colour(region) {
    return this.colours[region] ?? "#D443E2";
  }

  editable() {
    return this.group === "kept" && !this.readOnly;
  }

  words(region) {
    const { picture } = this;
    const boxes = picture.boxes[region];
    const parts = [];
    const held = this.masks.get(region);
    if (held) parts.push(`mask of ${((100 * held.cells) / held.mask.length).toFixed(1)} %`);
    if (boxes?.length) {
      const scores = (picture.scores[region] ?? []).filter((score) => score !== null).map((score) => score.toFixed(2));
      parts.push(`${plural(boxes.length, "box").replace("boxs", "boxes")}${scores.length ? ` (${scores.join(", ")})` : ""}`);
    } else if (boxes && !held) parts.push("none there");
    return parts.join(", ") || "not annotated";
  }

  showRegions() {
    const focused = find("regions").contains(document.activeElement) ? document.activeElement.id : null;
    find("regions").replaceChildren(
      ...this.names().map((region) => {
        const radio = el("input", { type: "radio", name: "region", id: `region-${region}`, value: region });
        radio.checked = region === this.region;
        radio.addEventListener("change", () => this.select(region));
        const shown = el("input", { type: "checkbox", "aria-label": `Show ${region}`, id: `show-${region}` });
        shown.checked = !this.hidden.has(region);
        shown.addEventListener("change", () => {
          if (shown.checked) this.hidden.delete(region);
          else this.hidden.add(region);
          this.paint();
        });
        const swatch = svg("svg", { class: "swatch", viewBox: "0 0 1 1", "aria-hidden": "true" }, svg("rect", { width: 1, height: 1, fill: this.colour(region) }));
        return el("div", { class: "region" }, el("label", {}, radio, swatch, region, el("span", { class: "soft" }, ` ${this.words(region)}`)), shown);
      }),
    );
    if (focused) find(focused)?.focus({ preventScroll: true });
    const { picture } = this;
    const can = this.editable();
    const boxes = this.masks.has(this.region) ? [] : (picture.boxes[this.region] ?? []);
    find("boxes").replaceChildren(
      ...boxes.map((one, i) => {
        const text = one.map((value) => Math.round(value)).join(", ");
        return el("li", {}, `${text} `, can && el("button", { type: "button", class: "quiet", "aria-label": `Remove box ${text}`, onclick: () => this.setBoxes(boxes.filter((_, j) => j !== i)) }, "Remove"));
      }),
    );
    for (const id of ["absent", "unknown", "grow", "shrink", "caption", "name", "add"]) find(id).disabled = !can;
    for (const button of document.querySelectorAll("[data-tool]")) button.disabled = !can && button.dataset.tool !== "pan";
    find("undo").disabled = !can || !picture.undo;
    find("redo").disabled = !can || !picture.redo;
    if (!can) this.say(this.group !== "kept" ? "Left out by the build: nothing to paint here." : `Nothing can be changed: ${this.readOnly}.`);
  }

  select(region) {
    this.region = region;
    this.showRegions();
    this.paint();
  }

  async showSeen() {
    const values = { name: this.name, number: this.picture.number, group: this.group, like: find("like").value, draw: this.draw, region: Object.keys({ ...this.picture.boxes, ...this.picture.masks }).filter((one) => one !== "ignore"), version: this.picture.version };
    const mine = JSON.stringify(values);
    if (mine === this.seen) return;
    this.seen = mine;
    try {
      const { lines, size } = await get("/api/seen", values);
      if (this.seen !== mine) return;
      find("seen").src = address("/data/seen", values);
      find("seen").hidden = false;
      find("lines").replaceChildren(...[...lines, size].filter(Boolean).map((line) => el("li", {}, line)));
    } catch (error) {
      if (this.seen !== mine) return;
      find("seen").hidden = true;
      find("lines").replaceChildren(el("li", {}, error.message));
    }
  }

  say(text) {
    find("saved").textContent = text;
  }

  // Masks

  setMask(region, mask) {
    if (!mask) {
      this.masks.delete(region);
      return;
    }
    const { width, height } = this.picture;
    const held = this.masks.get(region) ?? { canvas: new OffscreenCanvas(width, height) };
    Object.assign(held, { mask, cells: count(mask) });
    this.masks.set(region, held);
    this.tint(region, 0, 0, width, height);
  }

  // Draws a part of a mask anew into its own canvas.
  tint(region, x0, y0, x1, y1) {
    const held = this.masks.get(region);
    const { width, height } = this.picture;
    [x0, y0, x1, y1] = [Math.max(0, Math.floor(x0)), Math.max(0, Math.floor(y0)), Math.min(width, Math.ceil(x1)), Math.min(height, Math.ceil(y1))];
    if (x1 <= x0 || y1 <= y0) return;
    held.colour = this.colour(region);
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(held.colour.slice(at, at + 2), 16));
    const data = new ImageData(x1 - x0, y1 - y0);
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        if (!held.mask[y * width + x]) continue;
        const i = 4 * ((y - y0) * (x1 - x0) + x - x0);
        [data.data[i], data.data[i + 1], data.data[i + 2], data.data[i + 3]] = [red, green, blue, 120];
      }
    }
    held.canvas.getContext("2d").putImageData(data, x0, y0);
  }

  // The mask to paint on: the region's own, or its boxes filled.
  ready() {
    if (!this.masks.has(this.region)) {
      const { width, height, boxes } = this.picture;
      const mask = new Uint8Array(width * height);
      for (const one of boxes[this.region] ?? []) fillBox(mask, width, height, one, 1);
      this.setMask(this.region, mask);
    }
    return this.masks.get(this.region);
  }

  saveMask() {
    const held = this.masks.get(this.region);
    const cells = count(held.mask);
    if (this.act?.value === 0 && cells === held.cells) {
      this.revert();
      this.say(`${this.region}: there was nothing to erase.`);
      return;
    }
    held.cells = cells;
    const { width, height } = this.picture;
    const empty = held.cells === 0;
    this.send({ region: this.region, boxes: empty ? [] : null, runs: empty ? null : runsOf(held.mask) }, `${this.region}: ${empty ? "none there" : "painted"}`);
    if (empty) this.masks.delete(this.region);
    this.picture.width = width;
    this.picture.height = height;
  }

  setBoxes(boxes) {
    const words = boxes.length ? "boxes" : "none there";
    this.picture.boxes[this.region] = boxes;
    this.masks.delete(this.region);
    this.send({ region: this.region, boxes: boxes.map((one) => one.map((value) => Math.round(10 * value) / 10)), runs: null }, `${this.region}: ${words}`);
    this.paint();
  }

  grow(value) {
    if (!this.editable()) return;
    const { width, height } = this.picture;
    const held = this.masks.get(this.region);
    const boxes = this.picture.boxes[this.region];
    if (held) {
      this.setMask(this.region, grown(held.mask, width, height, value));
      this.saveMask();
    } else if (boxes?.length) {
      const by = value ? 1 : -1;
      const next = boxes.map(([x0, y0, x1, y1]) => [Math.max(0, x0 - by), Math.max(0, y0 - by), Math.min(width, x1 + by), Math.min(height, y1 + by)]);
      this.setBoxes(next.filter(([x0, y0, x1, y1]) => x1 - x0 > 1 && y1 - y0 > 1));
    }
    this.paint();
  }

  // Saving

  saveCaption() {
    clearTimeout(this.typing);
    const caption = find("caption").value.trim().replace(/\s+/g, " ");
    if (!this.picture || !this.editable() || caption === this.picture.caption) return;
    this.picture.caption = caption;
    this.send({ caption }, "caption");
  }

  send(values, words) {
    this.queue.push({ path: "/api/change", number: this.picture.number, key: this.picture.key, values, words });
    this.flush();
  }

  undo(again) {
    if (!this.editable() || !(again ? this.picture.redo : this.picture.undo)) return;
    this.queue.push({ path: "/api/undo", number: this.picture.number, key: this.picture.key, values: { again }, words: again ? "redone" : "undone", show: true });
    this.flush();
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    let refused = "";
    while (this.queue.length) {
      const job = this.queue[0];
      this.say("Saving…");
      try {
        const picture = await post(job.path, { name: this.name, number: job.number, key: job.key, version: this.versions.get(job.number), ...job.values });
        this.queue.shift();
        if (!refused) tell("");
        this.say(`${refused} Saved: ${job.words}.`.trim());
        this.took(picture, job.show);
      } catch (error) {
        if (error.offline) {
          this.say(`Not saved yet: ${plural(this.queue.length, "change")} wait${this.queue.length === 1 ? "s" : ""} for the server.`);
          tell(error.message);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          continue;
        }
        const all = this.queue.length;
        this.queue = this.queue.filter((other) => other !== job && !this.restsOn(other, job, error.status));
        tell(error.message);
        const fresh = await get("/api/picture", { name: this.name, number: job.number }).catch(() => null);
        if (fresh) this.took(fresh, !this.queue.some((other) => other.number === job.number));
        const lost = all - this.queue.length - 1;
        refused = `Not saved: ${job.words}${lost > 0 ? ` and ${plural(lost, "change")} after it` : ""}.`;
        this.say(refused);
      }
    }
    this.sending = false;
    for (const done of this.waiting ?? []) done();
    this.waiting = [];
  }

  // Whether a change means nothing without an earlier one that was refused: an undo of it, or, where the picture has
  // changed elsewhere (409), any change of what this page showed.
  restsOn(change, refused, status) {
    return change.number === refused.number && (status === 409 || change.path === "/api/undo");
  }

  settled() {
    return this.sending ? new Promise((resolve) => (this.waiting = [...(this.waiting ?? []), resolve])) : Promise.resolve();
  }

  // What the server has now; later strokes of this page, which aren't there yet, stay.
  took(picture, show) {
    this.changed(picture);
    this.versions.set(picture.number, picture.version);
    if (this.picture?.number !== picture.number) return;
    if (show || (!this.queue.length && !this.pointers.size)) this.show(picture);
    else Object.assign(this.picture, { version: picture.version, undo: picture.undo, redo: picture.redo });
  }

  // Looking

  fit() {
    const { width, height } = this.picture;
    const [w, h] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const scale = Math.min(w / width, h / height) || 1;
    this.view = { scale, x: (w - width * scale) / 2, y: (h - height * scale) / 2 };
    this.fitted = true;
    this.paint();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const { width, height } = this.picture;
    const least = 0.5 * Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height);
    const scale = Math.min(Math.max(this.view.scale * factor, least), LARGEST);
    const share = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * share, y: y - (y - this.view.y) * share };
    this.fitted = false;
    this.paint();
  }

  cell(event) {
    const place = this.canvas.getBoundingClientRect();
    return [(event.clientX - place.left - this.view.x) / this.view.scale, (event.clientY - place.top - this.view.y) / this.view.scale];
  }

  radius() {
    const share = Number(find("size").value) / 100;
    return 0.5 * Math.max(this.picture.width, this.picture.height) ** (share * 0.85);
  }

  paint() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.picture) this.paintNow();
    });
  }

  paintNow() {
    const { canvas, context, view, picture } = this;
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, w, h);
    context.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
    context.imageSmoothingEnabled = view.scale < 3;
    context.drawImage(this.image, 0, 0, picture.width, picture.height);
    context.imageSmoothingEnabled = false;
    const largestFirst = [...this.masks].sort(([, a], [, b]) => b.cells - a.cells); // small ones on top
    for (const [region, held] of largestFirst) if (!this.hidden.has(region)) context.drawImage(held.canvas, 0, 0);
    for (const [region, boxes] of Object.entries(picture.boxes)) {
      if (this.hidden.has(region)) continue;
      const own = region === this.region;
      if (this.masks.has(region)) continue;
      context.strokeStyle = this.colour(region);
      context.lineWidth = (own ? 2.5 : 1.5) / view.scale;
      for (const [x0, y0, x1, y1] of boxes ?? []) {
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
        if (!own || this.tool !== "box") continue;
        context.fillStyle = "#fff";
        for (const [x, y] of [[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) {
          context.fillRect(x - 4 / view.scale, y - 4 / view.scale, 8 / view.scale, 8 / view.scale);
          context.strokeRect(x - 4 / view.scale, y - 4 / view.scale, 8 / view.scale, 8 / view.scale);
        }
      }
    }
    this.paintTool();
  }

  paintTool() {
    const { context, view } = this;
    context.lineWidth = 1.5 / view.scale;
    context.strokeStyle = "#fff";
    if (this.made) context.strokeRect(this.made[0], this.made[1], this.made[2] - this.made[0], this.made[3] - this.made[1]);
    if (this.points.length) {
      context.beginPath();
      for (const [x, y] of this.points) context.lineTo(x, y);
      if (this.cursor) context.lineTo(...this.cursor);
      context.stroke();
    }
    if (!this.cursor || this.tool === "pan") return;
    const painting = this.tool === "brush" || this.tool === "eraser";
    for (const [colour, wide] of [["#000", 3], ["#fff", 1.2]]) {
      context.beginPath();
      context.strokeStyle = colour;
      context.lineWidth = wide / view.scale;
      context.arc(...this.cursor, painting ? this.radius() : 3 / view.scale, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // Pointers: one paints, two move and zoom. A touch beside a pen is the palm.

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.up(event, kind === "pointercancel"));
    canvas.addEventListener("pointerleave", () => {
      if (!this.pointers.size && this.picture) {
        this.cursor = null;
        this.paint();
      }
    });
    canvas.addEventListener("dblclick", () => this.tool === "polygon" && this.closePolygon());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const place = canvas.getBoundingClientRect();
        if (this.picture) this.zoom(Math.exp(-event.deltaY / 400), event.clientX - place.left, event.clientY - place.top);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => this.keyOnCanvas(event));
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("beforeunload", (event) => this.queue.length && event.preventDefault());
    new ResizeObserver(() => this.picture && (this.fitted ? this.fit() : this.paint())).observe(canvas);
    for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => this.choose(button.dataset.tool));
    const clicks = { back: () => this.leave(), previous: () => this.move(-1), next: () => this.move(1), shrink: () => this.grow(0), grow: () => this.grow(1), undo: () => this.undo(false), redo: () => this.undo(true), fit: () => this.fit(), absent: () => this.none(), unknown: () => this.forget(), another: () => this.again() };
    for (const [id, act] of Object.entries(clicks)) find(id).addEventListener("click", act);
    find("like").addEventListener("change", () => this.showSeen());
    const size = remembered("size");
    if (size !== null) find("size").value = size;
    find("size").addEventListener("input", () => remember("size", find("size").value));
    find("caption").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.saveCaption(), TYPING_MS);
    });
    find("caption").addEventListener("change", () => this.saveCaption());
    window.addEventListener("pagehide", () => this.saveCaption());
    find("more").addEventListener("submit", (event) => {
      event.preventDefault();
      this.addRegion(find("name").value.trim());
    });
  }

  async addRegion(name) {
    if (!name || !this.picture) return;
    try {
      const { region } = await get("/api/region", { name: this.name, region: name });
      tell("");
      this.added = [...(this.added ?? []), region];
      find("name").value = "";
      if (!this.picture) return;
      this.select(region);
      if (this.tool === "pan") this.choose("brush");
      this.canvas.focus({ preventScroll: true });
    } catch (error) {
      tell(error.message);
    }
  }

  down(event) {
    if (!this.picture) return;
    this.canvas.focus({ preventScroll: true });
    if (event.pointerType === "pen") this.pen = Date.now();
    else if (event.pointerType === "touch" && Date.now() - this.pen < PALM_MS) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) {
      this.revert();
      return;
    }
    if (this.pointers.size > 2) return;
    const at = this.cell(event);
    this.cursor = at;
    const panning = this.tool === "pan" || event.button === 1 || event.button === 2 || this.space;
    if (panning || !this.editable()) this.act = { pan: true };
    else this.begin(at);
    event.preventDefault();
  }

  begin(at) {
    if (this.tool === "brush" || this.tool === "eraser") {
      const had = this.masks.get(this.region)?.mask.slice() ?? null;
      this.ready();
      this.act = { last: at, value: this.tool === "brush" ? 1 : 0, had };
      this.stamp(at, at);
    } else if (this.tool === "polygon") this.vertex(at);
    else this.act = this.grabbed(at) ?? { from: at };
    this.paint();
  }

  stamp(from, to) {
    const held = this.masks.get(this.region);
    const { width, height } = this.picture;
    const radius = this.radius();
    stroke(held.mask, width, height, from, to, radius, this.act.value);
    this.tint(this.region, Math.min(from[0], to[0]) - radius - 1, Math.min(from[1], to[1]) - radius - 1, Math.max(from[0], to[0]) + radius + 1, Math.max(from[1], to[1]) + radius + 1);
  }

  // A corner or the inside of a box of the region, where the pointer is on one.
  grabbed([x, y]) {
    if (this.masks.has(this.region)) return null;
    const boxes = this.picture.boxes[this.region] ?? [];
    const near = HANDLE / this.view.scale;
    for (let i = boxes.length - 1; i >= 0; i--) {
      const one = boxes[i];
      for (const [cx, cy] of [[0, 1], [2, 1], [0, 3], [2, 3]]) {
        if (Math.abs(one[cx] - x) <= near && Math.abs(one[cy] - y) <= near) return { box: i, corner: [cx, cy], was: [...one] };
      }
    }
    for (let i = boxes.length - 1; i >= 0; i--) {
      const [x0, y0, x1, y1] = boxes[i];
      if (x > x0 && x < x1 && y > y0 && y < y1) return { box: i, hold: [x, y], was: [...boxes[i]] };
    }
    return null;
  }

  moved(event) {
    if (!this.picture) return;
    const before = this.pointers.get(event.pointerId);
    const events = event.getCoalescedEvents?.() ?? [];
    this.cursor = this.cell(event);
    if (before) {
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.pointers.size === 2) this.pinch(event.pointerId, before);
      else if (this.act?.pan) {
        this.view.x += event.clientX - before[0];
        this.view.y += event.clientY - before[1];
        this.fitted = false;
      } else if (this.act) for (const one of events.length ? events : [event]) this.dragged(this.cell(one));
    }
    this.paint();
  }

  dragged(at) {
    const { act, picture } = this;
    if (act.last) {
      this.stamp(act.last, at);
      act.last = at;
    } else if (act.from) this.made = this.inside([Math.min(act.from[0], at[0]), Math.min(act.from[1], at[1]), Math.max(act.from[0], at[0]), Math.max(act.from[1], at[1])]);
    else if (act.corner) {
      const one = [...act.was];
      [one[act.corner[0]], one[act.corner[1]]] = at;
      picture.boxes[this.region][act.box] = this.inside([Math.min(one[0], one[2]), Math.min(one[1], one[3]), Math.max(one[0], one[2]), Math.max(one[1], one[3])]);
    } else if (act.hold) {
      const [x0, y0, x1, y1] = act.was;
      const dx = Math.min(Math.max(at[0] - act.hold[0], -x0), picture.width - x1);
      const dy = Math.min(Math.max(at[1] - act.hold[1], -y0), picture.height - y1);
      picture.boxes[this.region][act.box] = [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
    }
  }

  inside([x0, y0, x1, y1]) {
    const { width, height } = this.picture;
    return [Math.min(Math.max(x0, 0), width), Math.min(Math.max(y0, 0), height), Math.min(Math.max(x1, 0), width), Math.min(Math.max(y1, 0), height)];
  }

  pinch(id, before) {
    const [other] = [...this.pointers].filter(([one]) => one !== id).map(([, place]) => place);
    const now = this.pointers.get(id);
    const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
    const place = this.canvas.getBoundingClientRect();
    this.view.x += (now[0] - before[0]) / 2;
    this.view.y += (now[1] - before[1]) / 2;
    this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2 - place.left, (now[1] + other[1]) / 2 - place.top);
  }

  up(event, cancelled) {
    if (!this.pointers.delete(event.pointerId)) return;
    const { act } = this;
    if (cancelled) this.revert();
    else if (act?.last) this.saveMask();
    else if (act?.from && this.made) this.addBox(this.made);
    else if (act?.box !== undefined && JSON.stringify(act.was) !== JSON.stringify(this.picture.boxes[this.region][act.box])) this.setBoxes(this.picture.boxes[this.region]);
    if (!this.pointers.size) {
      this.act = null;
      this.made = null;
    }
    this.paint();
  }

  addBox(one) {
    if (one[2] - one[0] < 1 || one[3] - one[1] < 1) return;
    const held = this.masks.get(this.region);
    if (held) {
      fillBox(held.mask, this.picture.width, this.picture.height, one, 1);
      this.tint(this.region, ...one);
      this.saveMask();
    } else this.setBoxes([...(this.picture.boxes[this.region] ?? []), one]);
  }

  // A second finger or a cancelled touch: what the first one painted wasn't meant.
  revert() {
    if (this.act?.last) this.setMask(this.region, this.act.had);
    else if (this.act?.was) this.picture.boxes[this.region][this.act.box] = this.act.was;
    this.act = null;
    this.made = null;
  }

  vertex(at) {
    const [first] = this.points;
    if (first && this.points.length > 2 && Math.hypot(first[0] - at[0], first[1] - at[1]) < HANDLE / this.view.scale) this.closePolygon();
    else this.points.push(at);
  }

  closePolygon() {
    const points = this.points;
    this.points = [];
    if (points.length > 2) {
      const held = this.ready();
      polygon(held.mask, this.picture.width, this.picture.height, points, 1);
      this.setMask(this.region, held.mask);
      this.saveMask();
    }
    this.paint();
  }

  none() {
    if (this.editable()) this.setBoxes([]);
  }

  forget() {
    if (!this.editable()) return;
    this.picture.boxes[this.region] = null;
    this.masks.delete(this.region);
    this.send({ region: this.region, boxes: null, runs: null }, `${this.region}: not annotated`);
    this.paint();
  }

  again() {
    this.draw += 1;
    this.showSeen();
  }

  choose(tool) {
    if (this.points.length && tool !== "polygon") this.points = [];
    this.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === tool);
    this.canvas.classList.toggle("panning", tool === "pan");
    if (this.picture) this.paint();
  }

  key(event) {
    if (!this.picture || find("editor").hidden || event.altKey) return;
    const typing = event.target.matches("textarea, input:not([type=radio], [type=checkbox], [type=range]), select");
    const key = event.key.toLowerCase();
    if (event.key === "Escape") {
      if (typing) this.canvas.focus();
      else if (this.points.length) this.points = [];
      else this.leave();
      this.paint();
    } else if (typing) return;
    else if (key === "z") this.undo(event.shiftKey);
    else if (event.ctrlKey || event.metaKey) {
      if (key !== "y") return;
      this.undo(true);
    } else if (TOOLS[key] && (key === "v" || this.editable())) this.choose(TOOLS[key]);
    else {
      const acts = { y: () => this.undo(true), n: () => this.none(), u: () => this.forget(), 0: () => this.fit(), "+": () => this.grow(1), "-": () => this.grow(0), "<": () => this.move(-1), ">": () => this.move(1), ",": () => this.move(-1), ".": () => this.move(1), "[": () => this.resize(-4), "]": () => this.resize(4), i: () => this.zoom(1.4), o: () => this.zoom(1 / 1.4) };
      if (!acts[key]) return;
      acts[key]();
    }
    event.preventDefault();
  }

  resize(by) {
    find("size").value = Number(find("size").value) + by;
    remember("size", find("size").value);
    this.paint();
  }

  // The tools without a pointer: arrow keys move the cursor, Space is a click there, Enter closes a polygon.
  keyOnCanvas(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!this.picture || (!by && event.key !== " " && event.key !== "Enter")) return;
    event.preventDefault();
    const { width, height } = this.picture;
    this.cursor ??= [width / 2, height / 2];
    if (by) {
      const step = event.shiftKey ? 1 : Math.max(1, this.radius() / 2);
      this.cursor = [Math.min(Math.max(this.cursor[0] + step * by[0], 0), width - 0.5), Math.min(Math.max(this.cursor[1] + step * by[1], 0), height - 0.5)];
    } else if (event.key === "Enter") this.closePolygon();
    else if (this.editable() && this.tool === "box") {
      if (this.corner) {
        const [from, at] = [this.corner, this.cursor];
        this.corner = null;
        this.addBox([Math.min(from[0], at[0]), Math.min(from[1], at[1]), Math.max(from[0], at[0]), Math.max(from[1], at[1])]);
      } else this.corner = [...this.cursor];
    } else if (this.editable() && this.tool !== "pan") {
      this.begin([...this.cursor]);
      if (this.act?.last) this.saveMask();
      this.act = null;
    }
    this.paint();
  }
}
