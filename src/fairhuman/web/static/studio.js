// What all pages of the studio share: requests, elements, numbers in words.

import { find, store, stored } from "./page.js";

export { el, find, plural, svg } from "./page.js";
export const { root, readOnly } = document.body.dataset;
const LATER = [502, 503, 504]; // the server, or one before it, can't answer yet
const KEPT_CHARACTERS = 16_000; // a browser still sends a short request when its page is closed

export function address(path, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return `${root}${path}${text && `?${text}`}`;
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The server can't be reached. Is it still running? This page tries again by itself."), { offline: true });
  }
  const answer = await response.json().catch(() => ({ message: `The server answered ${response.status}.` }));
  if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status, answer, offline: LATER.includes(response.status) });
  return answer;
}

export const get = (path, values, options) => request(address(path, values), options);

export function post(path, values) {
  const body = JSON.stringify(values);
  return request(`${root}${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: body.length < KEPT_CHARACTERS });
}

let shown = "";

export function tell(text) {
  if (text === shown) return;
  shown = text;
  find("problem").textContent = text;
}

// Calls `act` now and again after the seconds that it returns, but not in a hidden tab; tells its errors until it works.
// What others told stays.
export function repeat(act, otherwise = 5) {
  let timer = 0;
  let busy = false;
  let told = "";
  const run = async () => {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    let seconds = otherwise;
    try {
      seconds = document.hidden ? otherwise : ((await act()) ?? otherwise);
      if (told && shown === told) tell("");
      told = "";
    } catch (error) {
      told = error.message;
      tell(told);
    } finally {
      busy = false;
    }
    timer = setTimeout(run, 1000 * seconds);
  };
  document.addEventListener("visibilitychange", () => document.hidden || run());
  run();
  return run;
}

export const span = (steps) => steps.map((step) => Math.round(step).toLocaleString("en")).join(" to ");

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} days ${hours % 24} h`;
}

export function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e5) return value.toLocaleString("en", { notation: "compact", maximumFractionDigits: digits - 1 });
  if (size !== 0 && size < 1e-3) return Number(value.toPrecision(digits)).toExponential();
  return Number(value.toPrecision(digits)).toString();
}

// Each value in the fewest digits, from three on, that are off by less than a quarter of the way to the next value.
export function told(values) {
  const gap = Math.min(...values.slice(1).map((value, i) => value - values[i]));
  let digits = 3;
  while (digits < 9 && values.some((value) => Math.abs(value - Number(value.toPrecision(digits))) > gap / 4)) digits++;
  return values.map((value) => short(value, digits));
}

export const remember = (name, value) => store(`studio:${name}`, value);
export const remembered = (name) => stored(`studio:${name}`);
