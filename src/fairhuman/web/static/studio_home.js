// The overview: runs as they go on.

import { address, duration, el, find, get, repeat } from "./studio.js";

const list = find("list");
const chosen = new Set();

function row(run) {
  const box = run.listed && el("input", { type: "checkbox", name: "name", value: run.name, "data-run": run.name, "aria-label": `Show ${run.name}` });
  if (box) {
    box.checked = chosen.has(run.name);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(run.name);
      else chosen.delete(run.name);
      find("open").disabled = chosen.size === 0;
    });
  }
  const step = run.steps === null ? run.step.toLocaleString("en") : `${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")}`;
  return el(
    "tr",
    {},
    el("td", {}, box),
    el("th", { scope: "row" }, run.listed ? el("a", { href: address("/run", { name: run.name }), "data-run": run.name }, run.name) : run.name),
    el("td", {}, el("span", { class: `state ${run.state}` }, `${run.state}${run.host && run.state !== "finished" && run.state !== "stopped" ? ` on ${run.host}` : ""}`), run.says && el("div", { class: "soft says" }, run.says)),
    el("td", { class: "number" }, step),
    el("td", { class: "number" }, run.left === null ? "" : duration(run.left)),
    el("td", {}, run.strategy ?? ""),
    el("td", {}, run.model ?? ""),
  );
}

let last = "";

repeat(async () => {
  const { runs } = await get("/api/runs");
  const text = JSON.stringify(runs);
  if (text !== last) {
    last = text;
    const focused = list.contains(document.activeElement) && document.activeElement; // a box or a link
    list.replaceChildren(...runs.map(row));
    if (focused) list.querySelector(`${focused.localName}[data-run="${CSS.escape(focused.dataset.run)}"]`)?.focus();
  }
  find("none").hidden = runs.length > 0;
  list.closest(".scroll").hidden = runs.length === 0;
  find("open").hidden = runs.length === 0;
  return runs.some((run) => ["starting", "running", "stopping"].includes(run.state)) ? 3 : 8;
});
