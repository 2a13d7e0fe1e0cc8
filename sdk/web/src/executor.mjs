// The executor as the author of a page sees it.

import { ENGINE } from "./engine/serve.mjs";
import { Key } from "./keys.mjs";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const MAX_CONCURRENCY = 1_000;
// A day; longer than a timer holds it would be no time at all.
const MAX_DRAIN_SECONDS = 86_400;
const MAX_LABEL_BYTES = 256;
// Functions written this way are expressions by themselves; methods are not.
const EXPRESSION = /^(?:async\b\s*)?(?:function\b|\(|[\p{ID_Start}$_][\p{ID_Continue}$]*\s*=>)/u;

const NO_BLOBS =
  "its workers cannot be loaded: does this page's content security policy forbid scripts from blob:? Put the functions into a " +
  "module of their own then, and give its URL to the executor as `functions`";

/** An executor ended for this. If it was a refused call, it has what an RpcError has. */
export class ExecutorError extends Error {
  name = "ExecutorError";

  constructor(message, details = {}) {
    super(message);
    Object.assign(this, details);
  }
}

/**
 * A tab that pulls work from a colony and runs it with its functions, each call in a worker.
 *
 *     const executor = new Executor({ name: "tab-1", types: ["browser"], colony: "dev" });
 *     executor.function("sum", (...numbers) => numbers.reduce((a, b) => a + b, 0));
 *     await executor.run();
 *
 * Events: `state`, with `state` and `detail` in `event.detail`; `functions`, which it offers; `started`, `ended` and `dropped`, for
 * attempts; `warning`, whose `text` says what is not as it should be while it works on.
 * States: `joining`, `waiting_for_approval`, `ready`, `reconnecting`, `offline`, `draining`, `stopped`.
 */
export class Executor extends EventTarget {
  #settings;
  #modules;
  #sources = new Map();
  #worker = null;
  #isRunning = false;
  #stopWanted = false;

  /** What it does now, and for people why. */
  state = "stopped";
  detail = "";
  /** 64 hex digits, by which it is approved; known once it runs. */
  identity = "";

  /**
   * @param {object} settings
   * @param {string} settings.name unique among the colony's executors
   * @param {string[]} settings.types the types of work that it takes
   * @param {string} settings.colony the colony to work for
   * @param {string} [settings.server] origin of the front door; default: where this page came from
   * @param {string} [settings.cluster] the server's cluster id; default: what the server says
   * @param {URL|string|(URL|string)[]} [settings.functions] modules whose exported functions it offers
   * @param {Key} [settings.key] its key; default: one that this browser makes and keeps for this server, colony and name
   * @param {number} [settings.concurrency] how many functions may run at once
   * @param {string} [settings.location] name of the place where it is
   * @param {object} [settings.labels] more labels that work may ask for, besides language and user_agent
   * @param {object} [settings.capabilities] what else it offers: the fields of colonies.registry.v1.Capabilities
   * @param {number} [settings.drainSeconds] how long running functions have to finish after `stop`
   */
  constructor({
    name,
    types,
    colony,
    server = location.origin,
    cluster,
    functions = [],
    key,
    concurrency = 1,
    location: place = "",
    labels = {},
    capabilities = {},
    drainSeconds = 30,
  }) {
    super();
    for (const [what, given] of [["name", name], ["colony", colony], ...[types].flat().map((type) => ["types", type])]) {
      if (typeof given !== "string" || !NAME.test(given)) throw new RangeError(`${what} is ${JSON.stringify(given)}: 1-128 of A-Z a-z 0-9 . _ -, the first a letter or a digit`);
    }
    if (![types].flat().length) throw new RangeError("an executor serves at least one type: types is empty");
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > MAX_CONCURRENCY) {
      throw new RangeError(`concurrency is ${concurrency}: it must be 1 to ${MAX_CONCURRENCY}`);
    }
    if (!(drainSeconds >= 0 && drainSeconds <= MAX_DRAIN_SECONDS)) {
      throw new RangeError(`drainSeconds is ${drainSeconds}: it must be 0 to ${MAX_DRAIN_SECONDS}`);
    }
    this.#modules = [functions].flat().map((url) => new URL(url, globalThis.document?.baseURI ?? location.href).href);
    this.#settings = { name, types: [types].flat(), colony, server: new URL(server).origin, cluster, key, concurrency, drainMs: drainSeconds * 1000 };
    Object.assign(this.#settings, { location: place, capabilities: offered(concurrency, capabilities, labels) });
  }

  /**
   * Offers a plain function. Its text goes to the workers, so it sees nothing of this page: what it needs it is given, or makes.
   *
   * A page whose content security policy allows no scripts from `blob:` has its functions in a module: see `functions` above.
   */
  function(name, called, { description = "" } = {}) {
    const source = Function.prototype.toString.call(called);
    if (!EXPRESSION.test(source) || source.endsWith("{ [native code] }")) {
      throw new TypeError(`${name}: only functions written as "(x) => ..." or "function (x) {...}" can be sent to a worker`);
    }
    if (this.#sources.has(name)) throw new RangeError(`this executor has a function ${JSON.stringify(name)} already`);
    if (this.#isRunning) throw new Error("functions are offered before the executor runs");
    this.#sources.set(name, { source, description });
    return called;
  }

  /** Works until `stop`, then drains: finishes what is in hand and takes nothing new. Throws what it cannot work for. */
  async run() {
    if (this.#isRunning) throw new Error(`executor ${this.#settings.name} is running already`);
    this.#isRunning = true;
    const { name, colony, server } = this.#settings;
    const lock = `colonies-executor ${server} ${colony} ${name}`;
    const stopped = new AbortController();
    const blobs = [];
    const blobOf = (text) => blobs[blobs.push(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))) - 1];
    // A worker from a blob has this page's security policy, any other that of its script; and it may not be of another origin.
    const scriptOf = (url) =>
      this.#sources.size || new URL(url).origin !== location.origin ? blobOf(`import ${JSON.stringify(url)};\n`) : url;
    try {
      const key = this.#settings.key ?? (await Key.kept(lock));
      this.identity = key.identity;
      const modules = this.#sources.size ? [...this.#modules, blobOf(moduleOf(this.#sources))] : this.#modules;
      const runnerUrl = scriptOf(new URL("./colonies-runner.mjs", import.meta.url).href);
      this.#worker = new Worker(scriptOf(import.meta.url), { type: "module", name: ENGINE });
      this.#set("joining");
      this.#listen(stopped.signal);
      await this.#engine({ ...this.#settings, key: key.toMessage(), identity: key.identity, lock, modules, runnerUrl });
    } finally {
      stopped.abort();
      this.#worker?.terminate();
      this.#worker = null;
      this.#isRunning = this.#stopWanted = false;
      for (const url of blobs) URL.revokeObjectURL(url);
      this.#set("stopped");
    }
  }

  /** Begins the drain; `run` returns when it is over. */
  stop() {
    this.#stopWanted = this.#isRunning;
    this.#worker?.postMessage({ do: "stop" });
  }

  #engine(start) {
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      worker.onerror = (event) => reject(new ExecutorError(event.message || (this.#sources.size ? NO_BLOBS : "its worker cannot be loaded")));
      worker.onmessage = ({ data: { event, ...detail } }) => {
        if (event === "state") this.#set(detail.state, detail.detail);
        else if (event !== "stopped") this.dispatchEvent(new CustomEvent(event, { detail }));
        else if (detail.error) reject(new ExecutorError(detail.error.message, detail.error.details));
        else resolve();
      };
      worker.postMessage({ start });
      if (this.#stopWanted) worker.postMessage({ do: "stop" });
    });
  }

  #set(state, detail = "") {
    if (state === this.state && detail === this.detail) return;
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, detail } }));
  }

  /** Tells the worker what only a page hears of. */
  #listen(signal) {
    const nudge = () => this.#worker.postMessage({ do: "nudge", isOnline: navigator.onLine });
    const look = () => globalThis.document.hidden || this.#worker.postMessage({ do: "look" });
    for (const type of ["online", "offline"]) globalThis.addEventListener(type, nudge, { signal });
    globalThis.addEventListener("pageshow", (event) => event.persisted && nudge(), { signal });
    globalThis.document?.addEventListener("resume", nudge, { signal });
    globalThis.document?.addEventListener("visibilitychange", look, { signal });
  }
}

function offered(concurrency, capabilities, labels) {
  const { hardwareConcurrency, deviceMemory, userAgent } = navigator;
  return {
    cpu: hardwareConcurrency ? String(hardwareConcurrency) : "",
    memory: deviceMemory ? `${Math.round(deviceMemory * 1024)}Mi` : "",
    processes: concurrency,
    ...capabilities,
    labels: { language: "browser", user_agent: userAgent.slice(0, MAX_LABEL_BYTES), ...capabilities.labels, ...labels },
  };
}

function moduleOf(sources) {
  const entries = Array.from(sources, ([name, { source, description }]) => {
    const made = description ? `Object.assign(${source}, { description: ${JSON.stringify(description)} })` : source;
    return `  [${JSON.stringify(name)}]: ${made},\n`;
  });
  return `export const functions = {\n${entries.join("")}};\n`;
}
