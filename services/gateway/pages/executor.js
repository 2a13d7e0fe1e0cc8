// The page /executor: a form, an executor, and what it does. `?colony=&name=&types=&concurrency=&module=&cluster=` fill the form,
// and `&autostart=1` presses its button.

import { Executor, Media, decode } from "/sdk/web/colonies.mjs";

const FIELDS = ["colony", "name", "types", "concurrency", "module", "cluster"];
const KEPT = "colonies-executor-form";
const MAX_ROWS = 20;
const MAX_CHARACTERS = 200;
const WORDS = {
  joining: "joining",
  waiting_for_approval: "waiting for approval",
  ready: "ready",
  reconnecting: "reconnecting",
  offline: "offline",
  draining: "draining",
  stopped: "stopped",
};

const at = (id) => document.getElementById(id);
const shortened = (text) => (text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)}…` : text);

function row(cells, kind = "") {
  const made = document.createElement("tr");
  made.className = kind;
  for (const text of cells) made.insertCell().textContent = text;
  return made;
}

/** What was in the form the last time. It is a convenience: without it, or where the browser keeps nothing, the form is empty. */
function remembered() {
  try {
    return { ...JSON.parse(localStorage.getItem(KEPT)) };
  } catch (error) {
    console.warn(`the form is not remembered: ${error.message}`);
    return {};
  }
}

function fill() {
  const asked = new URLSearchParams(location.search);
  const kept = remembered();
  // A name that another browser is unlikely to have, and that stays this one's.
  kept.name ??= `browser-${Array.from(crypto.getRandomValues(new Uint8Array(3)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  for (const field of FIELDS) at(field).value = asked.get(field) ?? kept[field] ?? at(field).value;
  // What a link or an earlier time has filled in is not out of sight.
  at("more").open = Boolean(at("module").value || at("cluster").value);
  return asked.get("autostart") === "1";
}

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(FIELDS.map((field) => [field, at(field).value]))));
  } catch (error) {
    console.warn(`the form is not remembered: ${error.message}`);
  }
}

function ownModule() {
  const given = at("module").value.trim();
  if (!given) return [];
  const url = new URL(given, location.href);
  if (url.origin !== location.origin) throw new RangeError(`${given} is on another server: a module must be on this one`);
  return [url];
}

function executorOf() {
  return new Executor({
    colony: at("colony").value.trim(),
    name: at("name").value.trim(),
    types: at("types").value.split(/[\s,]+/).filter(Boolean),
    concurrency: at("concurrency").valueAsNumber,
    cluster: at("cluster").value.trim() || undefined,
    functions: [new URL("/executor-functions.js", location.href), ...ownModule()],
  });
}

function show(executor, { state, detail }) {
  at("state").textContent = WORDS[state];
  at("state").dataset.state = state;
  at("identity").textContent = executor.identity;
  const isWaiting = state === "waiting_for_approval";
  at("approval").hidden = !isWaiting;
  at("detail").textContent = isWaiting ? "" : detail;
  at("stop").disabled = state === "draining" || state === "stopped";
  document.title = `${WORDS[state]} · ${at("name").value} · Colonies`;
}

function resultOf({ outputs, errors }) {
  if (errors) return `failed: ${errors[0]}`;
  return outputs.map(outputOf).join(", ") || "no output";
}

/** What a function gave need not be JSON, nor JSON that this page can read; it is only looked at here. */
function outputOf(output) {
  try {
    const value = decode(output);
    return value instanceof Media ? `${value.data.length} bytes` : textOf(value);
  } catch {
    return `${output.data.length} bytes`;
  }
}

const textOf = (value) =>
  value instanceof Uint8Array
    ? `${value.length} bytes`
    : JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? String(each) : each));

/** Shows what becomes of attempts. */
function follow(executor) {
  const rows = new Map();
  const count = (id, by) => {
    at(id).textContent = String(Number(at(id).textContent) + by);
  };
  const nameOf = ({ processId, attempt }) => `${processId}/${attempt}`;
  const over = (attempt) => {
    if (!rows.delete(nameOf(attempt))) return;
    count("running", -1);
    redraw();
  };
  const redraw = () => at("now").replaceChildren(...rows.values());
  const last = (made) => {
    at("last").prepend(made);
    while (at("last").rows.length > MAX_ROWS) at("last").deleteRow(-1);
  };
  executor.addEventListener("started", ({ detail }) => {
    rows.set(nameOf(detail), row([detail.function, detail.processId, detail.attempt]));
    count("running", 1);
    redraw();
  });
  executor.addEventListener("ended", ({ detail }) => {
    over(detail);
    count(detail.errors ? "failed" : "successful", 1);
    const kind = detail.errors ? "failed" : "successful";
    last(row([detail.function, shortened(resultOf(detail)), `${(detail.ms / 1000).toFixed(2)} s`, detail.processId], kind));
  });
  executor.addEventListener("dropped", ({ detail }) => {
    over(detail);
    count("dropped", 1);
    last(row([detail.function, `dropped: ${detail.reason}`, "", detail.processId], "failed"));
  });
  executor.addEventListener("warning", ({ detail: { text } }) => {
    at("warning").textContent = text;
    at("warning").hidden = false;
  });
  executor.addEventListener("functions", ({ detail: { functions } }) => {
    const items = functions.map(({ name, description }) => {
      const item = document.createElement("li");
      const code = document.createElement("code");
      code.textContent = name;
      item.append(code, description ? `  ${description}` : "");
      return item;
    });
    at("functions").replaceChildren(...items);
  });
}

/** Of what an earlier executor did nothing is left. */
function clear() {
  for (const id of ["running", "successful", "failed", "dropped"]) at(id).textContent = "0";
  for (const id of ["now", "last", "functions"]) at(id).replaceChildren();
  for (const id of ["problem", "warning"]) at(id).hidden = true;
  at("copied").textContent = "";
}

/** A browser that is short of room may delete what a site keeps, and the key with it, unless it is asked not to. It may refuse. */
async function keepTheKey() {
  try {
    await navigator.storage.persist();
  } catch (error) {
    console.warn(`the browser was not asked to keep the key: ${error.message}`);
  }
}

async function run() {
  at("problem").hidden = true;
  at("start").disabled = true;
  try {
    const executor = executorOf();
    keep();
    // Not waited for: some browsers ask their user first.
    void keepTheKey();
    clear();
    at("who").textContent = `${at("name").value} in colony ${at("colony").value}`;
    at("command").textContent = `colonies executor approve ${at("name").value}`;
    at("work").hidden = false;
    at("form").hidden = true;
    // The button that had the focus is gone.
    at("work-title").focus();
    executor.addEventListener("state", ({ detail }) => show(executor, detail));
    follow(executor);
    at("stop").onclick = () => executor.stop();
    await executor.run();
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
  } finally {
    at("form").hidden = false;
    at("start").disabled = false;
    // What it still had is not running any more.
    at("now").replaceChildren();
    at("running").textContent = "0";
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText(at("command").textContent);
    at("copied").textContent = "Copied.";
  } catch {
    at("copied").textContent = "The browser does not allow it: select the line, and copy it by hand.";
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
at("copy").addEventListener("click", () => void copy());
if (fill()) at("form").requestSubmit();
