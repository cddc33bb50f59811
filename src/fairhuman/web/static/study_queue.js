// Queue of unacknowledged answers: stored on this device and sent one at a time, in order.
//
// Each answer has its own localStorage entry, so that two tabs never overwrite each other. The server recognises an
// answer by its key: if it is sent twice, by both tabs or after a lost reply, it counts once.

const FIRST_MS = 1000; // delay before a failed answer is resent; doubles up to LAST_MS
const LAST_MS = 30_000;
const TIMEOUT_MS = 20_000;
const SETTLED = 409; // the answer was changed too often
const ENDED = 404; // the link has ended: its place was given away
const REFUSED = new Set([400, SETTLED, 413, 415, 422]); // resending wouldn't help

export class Queue {
  #root;
  #prefix;
  #address;
  #changed;
  #unkept = new Map(); // answers that the browser couldn't store
  #last = 0;
  #sending = false;
  #timer;
  #delay = FIRST_MS;
  refused = false;
  settled = false; // a change was refused, and the answer before it stays
  ended = false; // the link has ended, and no answer is taken any more

  // changed() is called whenever the status may have changed.
  constructor(root, changed) {
    this.#root = root;
    this.#prefix = prefixOf(root);
    this.#address = `${root}/api/answers`;
    this.#changed = changed;
    addEventListener("online", () => this.hurry());
    addEventListener("pageshow", () => this.hurry());
    addEventListener("beforeunload", (event) => this.#unkept.size && event.preventDefault());
  }

  // Entry names and answers, oldest first.
  pending() {
    const found = new Map(this.#unkept);
    for (const name of storedNames()) {
      if (name.startsWith(this.#prefix)) found.set(name, JSON.parse(localStorage.getItem(name)));
    }
    return [...found].filter(([, answer]) => answer).sort(([a], [b]) => (a < b ? -1 : 1));
  }

  get unkept() {
    return this.#unkept.size > 0;
  }

  add(answer) {
    const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const latest = this.pending().map(([name]) => Number(name.slice(this.#prefix.length).split("-")[0]));
    this.#last = Math.max(Date.now(), this.#last + 1, ...latest.map((time) => time + 1)); // the clock may go backwards
    const name = `${this.#prefix}${String(this.#last).padStart(16, "0")}-${key}`;
    try {
      localStorage.setItem(name, JSON.stringify({ key, ...answer }));
    } catch {
      this.#unkept.set(name, { key, ...answer });
    }
    this.#changed();
    this.hurry();
  }

  // The answer that another tab queued, from a storage event; null for other events.
  fromElsewhere(event) {
    return event.key?.startsWith(this.#prefix) && event.newValue ? JSON.parse(event.newValue) : null;
  }

  hurry() {
    this.#delay = FIRST_MS;
    this.#send();
  }

  async #send() {
    if (this.#sending) return;
    clearTimeout(this.#timer);
    this.#sending = true;
    let wait = null;
    try {
      for (let next; wait === null && (next = this.pending()[0]); ) wait = await this.#post(...next);
    } finally {
      this.#sending = false;
    }
    if (wait === null) return;
    this.#timer = setTimeout(() => this.#send(), wait);
    this.#delay = Math.min(this.#delay * 2, LAST_MS);
  }

  // Returns null when the answer is settled, else the delay in milliseconds before a retry.
  async #post(name, answer) {
    let response;
    try {
      response = await fetch(this.#address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(answer),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      this.#changed();
      return this.#delay;
    }
    if (response.status === ENDED) {
      this.end();
      return null;
    }
    if (!response.ok && !REFUSED.has(response.status)) {
      this.#changed();
      return Math.max(this.#delay, 1000 * Number(response.headers.get("Retry-After") ?? 0));
    }
    this.#settle(name, answer, response.status);
    return null;
  }

  // No answer of this link is taken any more.
  end() {
    this.#unkept.clear();
    park(this.#root);
    this.ended = true;
    this.#changed();
  }

  // Refused answers stay on the device under another name, for diagnosis.
  #settle(name, answer, status) {
    const accepted = status < 300;
    this.#delay = FIRST_MS;
    this.#unkept.delete(name);
    try {
      if (!accepted) localStorage.setItem(`refused:${name}`, JSON.stringify(answer));
      localStorage.removeItem(name);
    } catch {
      // it was never stored
    }
    this.settled ||= status === SETTLED;
    this.refused ||= !accepted && status !== SETTLED;
    this.#changed();
  }
}

const prefixOf = (root) => `study:${root}:`;

// Keep all answers of a link that has ended as refused ones, which are never sent.
export function park(root) {
  for (const name of storedNames().filter((each) => each.startsWith(prefixOf(root)))) {
    const answer = localStorage.getItem(name);
    localStorage.removeItem(name); // first, as there may be no room for both
    localStorage.setItem(`refused:${name}`, answer);
  }
}

function storedNames() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}
