// Synchronised zoom and pan of several pictures, which all show the same part.

const STEP = 1.4;
const ENLARGED = 2.5;
const LARGEST = 12;
const MOVED_PX = 6; // shorter movements count as clicks

export class View {
  #area;
  #changed;
  #scale = 1;
  #x = 0; // left and top of the visible part, as fractions of the picture
  #y = 0;
  #pointers = new Map();
  #moved = 0;

  // `area` holds elements of class "frame" with one image each.
  constructor(area, changed) {
    this.#area = area;
    this.#changed = changed;
    area.addEventListener("pointerdown", (event) => this.#down(event));
    area.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) area.addEventListener(name, (event) => this.#pointers.delete(event.pointerId));
    area.addEventListener("click", (event) => this.#click(event));
    area.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  get zoomed() {
    return this.#scale > 1;
  }

  get scale() {
    return this.#scale;
  }

  reset() {
    this.#set(1, 0, 0);
  }

  toggle(at) {
    if (this.zoomed) this.reset();
    else this.#zoom(ENLARGED, at);
  }

  larger() {
    this.#zoom(STEP);
  }

  smaller() {
    this.#zoom(1 / STEP);
  }

  // Move by fractions of the visible part.
  pan(dx, dy) {
    this.#set(this.#scale, this.#x + dx / this.#scale, this.#y + dy / this.#scale);
  }

  // Zoom around a point of the frame, which keeps its place.
  #zoom(factor, [px, py] = [0.5, 0.5]) {
    const scale = Math.min(Math.max(this.#scale * factor, 1), LARGEST);
    const shrink = 1 / this.#scale - 1 / scale;
    this.#set(scale, this.#x + px * shrink, this.#y + py * shrink);
  }

  #set(scale, x, y) {
    const most = 1 - 1 / scale;
    [this.#scale, this.#x, this.#y] = [scale, Math.min(Math.max(x, 0), most), Math.min(Math.max(y, 0), most)];
    this.apply();
  }

  // Shows the same part of pictures that are new in the area.
  apply() {
    const [left, top] = [this.#x, this.#y].map((share) => `${-100 * share * this.#scale}%`);
    for (const image of this.#area.querySelectorAll(".frame img")) image.style.transform = `translate(${left}, ${top}) scale(${this.#scale})`;
    this.#area.classList.toggle("zoomed", this.zoomed);
    this.#changed();
  }

  #down(event) {
    const frame = event.target.closest(".frame");
    if (!frame) return;
    if (!this.#pointers.size) this.#moved = 0;
    this.#pointers.set(event.pointerId, { frame, x: event.clientX, y: event.clientY });
    frame.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const pointer = this.#pointers.get(event.pointerId);
    if (!pointer) return;
    const [dx, dy] = [event.clientX - pointer.x, event.clientY - pointer.y];
    const before = this.#spread();
    [pointer.x, pointer.y] = [event.clientX, event.clientY];
    this.#moved += Math.hypot(dx, dy);
    const count = this.#pointers.size;
    const { width, height } = pointer.frame.getBoundingClientRect();
    if (count === 2 && before.distance > 0) {
      const after = this.#spread();
      this.#zoom(after.distance / before.distance, place(pointer.frame, after.x, after.y));
    }
    if (this.zoomed) this.pan(-dx / width / count, -dy / height / count);
  }

  #spread() {
    const points = [...this.#pointers.values()];
    const [a, b] = [points[0], points.at(-1)];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  }

  #click(event) {
    const frame = event.target.closest(".frame");
    if (frame && this.#moved < MOVED_PX) this.toggle(place(frame, event.clientX, event.clientY));
  }

  // The wheel scrolls the page; with Ctrl (sent by pinching on a touchpad) or on zoomed pictures it zooms.
  #wheel(event) {
    const frame = event.target.closest(".frame");
    if (!frame || !(event.ctrlKey || this.zoomed)) return;
    event.preventDefault();
    this.#zoom(Math.exp(-event.deltaY / 400), place(frame, event.clientX, event.clientY));
  }
}

function place(frame, x, y) {
  const box = frame.getBoundingClientRect();
  return [(x - box.left) / box.width, (y - box.top) / box.height];
}
