// One picture of a data set, large: look at its regions, paint them, and see what training makes of them.
// Every change is sent as soon as it is made; without the server it waits, in order, until the server is back.

import { box as fillBox, count, grown, maskOf, polygon, runsOf, stroke } from "./studio_mask.js";
import { address, el, find, get, plural, post, remember, remembered, svg, tell } from "./studio.js";

const LARGEST = 40; // screen pixels a cell
const HANDLE = 9; // screen pixels around a corner
const RETRY_MS = 3000;
const TYPING_MS = 1200; // a pause after which a caption is saved, and a text that has no picture ends
const PALM_MS = 1500; // after a pen, in which touches are taken for the palm
const TOOLS = { v: "pan", b: "brush", e: "eraser", p: "polygon", r: "box" };
const OPENING = "Opening the picture…";
const MOVES = { "<": -1, ">": 1, ",": -1, ".": 1 };
const TEXT = ["Backspace", "Delete", "Enter"]; // keys of a text, besides characters

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Editor {
  constructor(name, { move, leave, changed }) {
    Object.assign(this, { name, move, leave, changed });
    this.canvas = find("canvas");
    this.context = this.canvas.getContext("2d");
    this.picture = null; // the one that is shown and takes input; null while another is on its way
    this.opening = null; // the last call of `open`: answers to earlier ones count for nothing
    this.unsaved = null; // a caption that was refused and is still in its field
    this.straying = 0; // timer of a text that has no picture
    this.group = "kept";
    this.tool = "pan";
    this.region = "";
    this.hidden = new Set();
    this.masks = new Map(); // region to { mask, canvas }
    this.view = { scale: 1, x: 0, y: 0 };
    this.pointers = new Map();
    this.points = []; // of an open polygon
    this.cursor = null;
    this.known = new Map(); // by a picture's number: its version, and the changes that undo and redo take back
    this.mine = new Map(); // by a change's number: its words, for those that this page has made
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

  facts({ colours, read_at: readAt, read_only: readOnly, regions }) {
    this.colours = { ...this.colours, ...colours };
    this.readAt = readAt;
    this.readOnly = readOnly;
    this.regions = regions;
    if (!this.picture) return;
    for (const [region, held] of this.masks) if (held.colour !== this.colour(region)) this.tint(region, 0, 0, this.picture.width, this.picture.height);
    this.showRegions();
    this.paint();
  }

  // Shows another picture. From here on the page takes no input for the one before, whose text and stroke are saved to
  // it, and none for the next until it is there.
  async open({ number, key }, group) {
    this.close();
    const mine = (this.opening = {});
    if (!this.sending) this.say(OPENING);
    tell("");
    this.canvas.focus({ preventScroll: true });
    await this.settled();
    for (let tried = false; this.opening === mine; tried = true) {
      try {
        const loading = this.load(number, key, group);
        loading.catch(() => {}); // what the server says of the picture goes first
        const picture = await get("/api/picture", { name: this.name, number, key, group });
        const image = await loading;
        if (this.opening !== mine) return;
        if (tried) tell("");
        this.begun(picture, image, group);
        return;
      } catch (error) {
        if (this.opening !== mine) return;
        tell(error.message);
        if (!error.offline) return;
      }
      await pause(RETRY_MS);
    }
  }

  begun(picture, image, group) {
    this.group = group;
    this.image = image;
    this.draw = 0;
    find("editor").removeAttribute("aria-busy");
    for (const part of find("panel").children) part.inert = false;
    find("caption").readOnly = false;
    if (find("saved").textContent === OPENING) this.say("");
    this.show(picture);
    this.fit();
  }

  // Takes no more input. The caption's field can be chosen meanwhile: what is typed there isn't taken for keys.
  close() {
    this.opening = null;
    if (this.picture) {
      this.canvas.focus({ preventScroll: true }); // a text that is being composed ends
      this.saveCaption();
      if (this.pointers.size) this.finish();
      this.picture = null;
    }
    this.pointers.clear();
    Object.assign(this, { unsaved: null, points: [], act: null, made: null, corner: null, cursor: null });
    find("editor").setAttribute("aria-busy", "true");
    for (const part of find("panel").children) part.inert = part.id !== "caption" && part.htmlFor !== "caption";
    find("caption").readOnly = true;
    for (const button of find("tools").querySelectorAll("button:not([data-always])")) button.disabled = true;
  }

  // The address names more than the number, which is another picture's once the data set is read again.
  async load(number, key, group) {
    const image = new Image();
    image.src = address("/data/picture", { name: this.name, number, key, group, read: this.readAt });
    await image.decode();
    return image;
  }

  show(picture) {
    const other = this.picture?.number !== picture.number || this.picture.key !== picture.key;
    this.picture = picture;
    this.know(picture);
    this.act = null;
    this.made = null;
    this.masks.clear();
    for (const [region, runs] of Object.entries(picture.masks)) this.setMask(region, maskOf(runs, picture.width, picture.height));
    if (!this.names().includes(this.region)) this.region = this.names().find((one) => picture.boxes[one]?.length || picture.masks[one]) ?? this.names()[0];
    find("title").textContent = picture.key;
    if (other || document.activeElement !== find("caption")) find("caption").value = picture.caption;
    const facts = [["Size", `${picture.width} × ${picture.height}`], ["Source", picture.source], ["Split", picture.split], ["At", picture.location], ["Changed here", picture.changed.join(", ")], ...picture.notes.map((note) => ["Note", note])];
    find("facts").replaceChildren(...facts.filter(([, value]) => value).map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
    this.showRegions();
    this.showSeen();
    this.paint();
  }

  names() {
    return [...new Set([...(this.regions ?? []), ...Object.keys(this.picture.boxes), ...Object.keys(this.picture.masks), ...(this.added ?? [])])].sort((a, b) => (a === "ignore") - (b === "ignore"));
  }

  colour(region) {
    return this.colours[region] ?? "#D443E2";
  }

  editable() {
    return this.picture !== null && this.group === "kept" && !this.readOnly;
  }

  words(region) {
    const { picture } = this;
    const boxes = picture.boxes[region];
    const parts = [];
    const held = this.masks.get(region);
    if (held) {
      const share = (100 * held.cells) / held.mask.length;
      parts.push(`mask of ${share < 0.1 ? Number(share.toPrecision(1)) : share.toFixed(1)} %`);
    }
    if (boxes?.length) {
      const scores = (picture.scores[region] ?? []).filter((score) => score !== null).map((score) => score.toFixed(2));
      parts.push(`${plural(boxes.length, "box").replace("boxs", "boxes")}${scores.length ? ` (${scores.join(", ")})` : ""}`);
    } else if (boxes && !held) parts.push("none there");
    const by = picture.searched[region];
    return parts.join(", ") || (by ? `not found by ${by}` : "not annotated");
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
    find("fit").disabled = false;
    this.showUndo();
    if (!can) this.say(this.group !== "kept" ? "Left out by the build: nothing to paint here." : `Nothing can be changed: ${this.readOnly}.`);
  }

  showUndo() {
    for (const [id, n] of Object.entries(this.known.get(this.picture.number).back)) find(id).disabled = !this.editable() || !this.mine.has(n);
  }

  select(region) {
    this.region = region;
    this.showRegions();
    this.paint();
  }

  async showSeen() {
    const values = { name: this.name, number: this.picture.number, key: this.picture.key, group: this.group, like: find("like").value, draw: this.draw, region: Object.keys({ ...this.picture.boxes, ...this.picture.masks }).filter((one) => one !== "ignore"), version: this.picture.version };
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

  // Makes the mask to paint on, the region's own or its boxes filled; a copy of the one before, null if there was none.
  ready() {
    const had = this.masks.get(this.region)?.mask.slice() ?? null;
    if (!had) {
      const { width, height, boxes } = this.picture;
      const mask = new Uint8Array(width * height);
      for (const one of boxes[this.region] ?? []) fillBox(mask, width, height, one);
      this.setMask(this.region, mask);
    }
    return had;
  }

  // Saves the region's mask if a cell has changed: what paints only adds cells, what erases only takes them.
  saveMask(words) {
    const held = this.masks.get(this.region);
    const cells = count(held.mask);
    if (cells === held.cells) {
      this.revert();
      this.say(`${this.region}: ${words === "erased" ? "there was nothing to erase" : `nothing was ${words}`}.`);
      return;
    }
    held.cells = cells;
    const empty = held.cells === 0;
    this.send({ region: this.region, boxes: empty ? [] : null, runs: empty ? null : runsOf(held.mask) }, `${this.region}: ${empty ? "none there" : words}`);
    if (empty) this.masks.delete(this.region);
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
      held.mask = grown(held.mask, width, height, value);
      this.tint(this.region, 0, 0, width, height);
      this.saveMask(value ? "grown" : "shrunk");
    } else if (boxes?.length) {
      const by = value ? 1 : -1;
      const next = boxes.map(([x0, y0, x1, y1]) => [Math.max(0, x0 - by), Math.max(0, y0 - by), Math.min(width, x1 + by), Math.min(height, y1 + by)]);
      this.setBoxes(next.filter(([x0, y0, x1, y1]) => x1 - x0 > 1 && y1 - y0 > 1));
    }
    this.paint();
  }

  // Saving

  typed() {
    return find("caption").value.trim().replace(/\s+/g, " ");
  }

  saveCaption() {
    clearTimeout(this.typing);
    const caption = this.typed();
    if (!this.editable() || caption === this.picture.caption || caption === this.unsaved) return;
    this.picture.caption = caption;
    this.unsaved = null;
    this.send({ caption }, "caption");
  }

  send(values, words) {
    this.queue.push({ path: "/api/change", number: this.picture.number, key: this.picture.key, values, words });
    this.flush();
  }

  // Takes back the last change of the picture, or the last undo, if this page has made it.
  undo(again) {
    if (!this.editable()) return;
    this.queue.push({ path: "/api/undo", number: this.picture.number, key: this.picture.key, values: { again }, words: again ? "redone" : "undone", show: true });
    this.flush();
  }

  // The words of the change that an undo or redo takes back, or puts back; null, and told, if this page hasn't made it.
  taken({ number, values: { again } }) {
    const { undo, redo } = this.known.get(number).back;
    const n = again ? redo : undo;
    if (this.mine.has(n)) return this.mine.get(n);
    this.say(n === null ? `There is nothing to ${again ? "redo" : "undo"}.` : `Nothing that this page has changed is left to ${again ? "redo" : "undo"} here; fairhuman data edits lists all changes.`);
    return null;
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    let refused = "";
    while (this.queue.length) {
      const job = this.queue[0];
      const taken = job.path === "/api/undo" ? this.taken(job) : "";
      if (taken === null) {
        this.queue.shift();
        continue;
      }
      this.say("Saving…");
      try {
        const picture = await post(job.path, { name: this.name, number: job.number, key: job.key, version: this.known.get(job.number).version, ...job.values });
        this.queue.shift();
        this.mine.set(picture.version, taken || job.words);
        if (!refused) tell("");
        this.say(`${refused} Saved: ${job.words}${taken && ` (${taken})`}${this.where(job)}.`.trim());
        this.took(picture, job.show);
      } catch (error) {
        if (error.offline) {
          this.say(`Not saved yet: ${plural(this.queue.length, "change")} wait${this.queue.length === 1 ? "s" : ""} for the server.`);
          tell(error.message);
          await pause(RETRY_MS);
          continue;
        }
        refused = await this.refuse(job, error);
        this.say(refused);
      }
    }
    this.sending = false;
    for (const done of this.waiting ?? []) done();
    this.waiting = [];
  }

  // Drops a change that the server refuses, with those that rest on it; what was lost in words.
  async refuse(job, error) {
    const lost = this.queue.filter((other) => other === job || this.restsOn(other, job, error.status));
    this.queue = this.queue.filter((other) => !lost.includes(other));
    tell(error.message);
    const fresh = await get("/api/picture", { name: this.name, number: job.number, key: job.key }).catch(() => null);
    if (fresh) {
      if (error.status === 409) tell(`${error.message} ${this.shownAnew(lost, fresh)}`);
      this.took(fresh, !this.queue.some((other) => other.number === job.number));
    }
    return `Not saved: ${job.words}${lost.length > 1 ? ` and ${plural(lost.length - 1, "change")} after it` : ""}${this.where(job)}.`;
  }

  // What the page shows of a picture that has changed elsewhere. A caption that is being typed stays in its field.
  shownAnew(lost, fresh) {
    const typing = this.picture?.number === fresh.number && document.activeElement === find("caption");
    const text = typing ? this.typed() : lost.findLast(({ values }) => "caption" in values)?.values.caption;
    if (text === undefined || text === fresh.caption) return "It is shown anew.";
    if (!typing) return `It is shown anew; your caption was: “${text}”.`;
    clearTimeout(this.typing);
    this.unsaved = text;
    return `Your text stays in its field, and is saved once you change it; the caption is now: “${fresh.caption}”.`;
  }

  // Names a change's picture where another one is shown.
  where(job) {
    return job.number === this.picture?.number ? "" : ` of ${job.key}`;
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
    this.know(picture);
    if (this.picture?.number !== picture.number) return;
    if (show || (!this.queue.length && !this.pointers.size)) this.show(picture);
    else this.picture.version = picture.version;
    this.showUndo();
  }

  know({ number, version, undo, redo }) {
    this.known.set(number, { version, back: { undo, redo } });
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
    document.addEventListener("keydown", (event) => this.stray(event), true);
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
    const { number } = this.picture;
    try {
      const { region, colours } = await get("/api/region", { name: this.name, region: name });
      tell("");
      this.colours = { ...this.colours, ...colours };
      this.added = [...(this.added ?? []), region];
      find("name").value = "";
      if (this.picture?.number !== number) return;
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
      this.act = { had: this.ready(), last: at, value: this.tool === "brush" ? 1 : 0 };
      this.stamp(at, at);
    } else if (this.tool === "polygon") this.act = { vertex: at };
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
    if (cancelled) this.revert();
    else this.finish();
    if (!this.pointers.size) {
      this.act = null;
      this.made = null;
    }
    this.paint();
  }

  finish() {
    const { act } = this;
    if (act?.last) this.saveMask(act.value ? "painted" : "erased");
    else if (act?.vertex) this.vertex(act.vertex);
    else if (act?.from && this.made) this.addBox(this.made);
    else if (act?.box !== undefined && JSON.stringify(act.was) !== JSON.stringify(this.picture.boxes[this.region][act.box])) this.setBoxes(this.picture.boxes[this.region]);
  }

  addBox(one) {
    if (one[2] - one[0] < 1 || one[3] - one[1] < 1) return;
    const held = this.masks.get(this.region);
    if (held) {
      fillBox(held.mask, this.picture.width, this.picture.height, one);
      this.tint(this.region, ...one);
      this.saveMask("painted");
    } else this.setBoxes([...(this.picture.boxes[this.region] ?? []), one]);
  }

  // A second finger or a cancelled touch: what the first one painted wasn't meant.
  revert() {
    if (this.act?.had !== undefined) this.setMask(this.region, this.act.had);
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
      const { width, height } = this.picture;
      this.act = { had: this.ready() };
      polygon(this.masks.get(this.region).mask, width, height, points);
      this.tint(this.region, 0, 0, width, height);
      this.saveMask("painted");
      this.act = null;
    }
    this.paint();
  }

  none() {
    if (this.editable() && this.differs("none there")) this.setBoxes([]);
  }

  forget() {
    if (!this.editable() || !this.differs("not annotated")) return;
    this.picture.boxes[this.region] = null;
    this.masks.delete(this.region);
    this.send({ region: this.region, boxes: null, runs: null }, `${this.region}: not annotated`);
    this.paint();
  }

  // Whether the region isn't already what it is to become; told if it is.
  differs(words) {
    const boxes = this.masks.has(this.region) ? [1] : this.picture.boxes[this.region];
    const same = words === "none there" ? boxes?.length === 0 : !boxes;
    if (same) this.say(`${this.region}: ${words} already.`);
    return !same;
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

  // A text that is typed while a picture is on its way is nothing that was meant for it: it is dropped as a whole, to the
  // first pause after the picture is there.
  stray(event) {
    if (find("editor").hidden || event.ctrlKey || event.metaKey || (event.key.length > 1 && !TEXT.includes(event.key))) return;
    if (event.target.matches("a, button") && [" ", "Enter"].includes(event.key)) return;
    if (!this.straying && (this.picture || MOVES[event.key])) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    clearTimeout(this.straying);
    this.straying = setTimeout(() => (this.straying = 0), TYPING_MS);
    this.say("What is typed before the picture is there doesn't count.");
  }

  key(event) {
    if (find("editor").hidden || event.altKey) return;
    const typing = event.target.matches("textarea, input:not([type=radio], [type=checkbox], [type=range]), select");
    const key = event.key.toLowerCase();
    if (event.key === "Escape") {
      if (typing) this.canvas.focus();
      else if (this.points.length) this.points = [];
      else this.leave();
      this.paint();
    } else if (typing) return;
    else if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      this.undo(key === "y" || event.shiftKey);
    } else if (key === "z") this.undo(event.shiftKey);
    else if (MOVES[key]) this.move(MOVES[key]);
    else if (!this.picture) return;
    else if (TOOLS[key] && (key === "v" || this.editable())) {
      this.choose(TOOLS[key]);
      this.canvas.focus({ preventScroll: true }); // a list of regions would take the arrow keys
    } else {
      const acts = { y: () => this.undo(true), n: () => this.none(), u: () => this.forget(), 0: () => this.fit(), g: () => this.grow(1), s: () => this.grow(0), "[": () => this.resize(-4), "]": () => this.resize(4), "+": () => this.zoom(1.4), "=": () => this.zoom(1.4), "-": () => this.zoom(1 / 1.4) };
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
      this.finish();
      this.act = null;
    }
    this.paint();
  }
}
