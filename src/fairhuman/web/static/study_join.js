// The open link: the browser generates and stores its token, so that joining again never takes a second place.

const NAME = "study-token";
const { problem: failed, full } = document.body.dataset;
const [button, problem] = ["join", "problem"].map((id) => document.getElementById(id));

function stored() {
  try {
    return localStorage.getItem(NAME);
  } catch {
    return null;
  }
}

function store(token) {
  try {
    localStorage.setItem(NAME, token);
  } catch {
    // without storage, the participant can still use the personal address
  }
}

function makeToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

let token = stored();

async function join() {
  token = stored() ?? token ?? makeToken(); // another tab may have stored one meanwhile
  store(token);
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
// Returning participants continue where they stopped; a token that the server doesn't know must consent again.
if (token && (await fetch(`/p/${token}/api/trials`).catch(() => null))?.ok) location.replace(`/p/${token}`);
