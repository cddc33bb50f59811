// The open link: the browser generates and stores its token, so that joining again never takes a second place.

import { find, store, stored } from "./page.js";
import { park } from "./study_queue.js";

const NAME = "study-token";
const { problem: failed, full } = document.body.dataset;
const [button, problem] = ["join", "problem"].map(find);

function makeToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

let token = null;
let resumed = null;

async function join() {
  await resumed;
  token = stored(NAME) ?? token ?? makeToken(); // another tab may have stored one meanwhile
  store(NAME, token);
  problem.textContent = "";
  button.disabled = true;
  try {
    const response = await fetch("/api/join", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (response.ok) location.assign(`/p/${token}`);
    else problem.textContent = response.status === 409 ? full : failed;
  } catch {
    problem.textContent = failed;
  } finally {
    button.disabled = false;
  }
}

button.addEventListener("click", join);

// Returning participants continue where they stopped. If their place was given away, they may join again, but with a new
// token: answers that wait for the old one are about other pictures.
async function resume() {
  token = stored(NAME) ?? token;
  const response = token && (await fetch(`/p/${token}/api/trials`).catch(() => null));
  if (response?.ok) location.replace(`/p/${token}`);
  if (response?.status === 404) {
    park(`/p/${token}`);
    token = makeToken();
    store(NAME, token);
  }
}

addEventListener("pageshow", () => (resumed = resume())); // also when the browser goes back to this page
