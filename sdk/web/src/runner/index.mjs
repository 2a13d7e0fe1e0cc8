// Runs functions in a worker of its own: loads the modules that have them, then answers one call at a time.

import { decode, encode, outputs, outputsOf } from "../values.mjs";

const functions = new Map();
let port;
let running = null;

// Errors that are not the function's: their texts say all.
const ours = new WeakSet();

function ourOwn(text) {
  const error = new Error(text);
  ours.add(error);
  return error;
}

class RetryableError extends Error {
  name = "RetryableError";
  retryable = true;
}

/** What a function that is no arrow function finds as `this`. */
class Attempt {
  constructor({ processId, attempt, workflowId, env }, signal) {
    Object.assign(this, { processId, attempt, workflowId, env, signal, outputs, RetryableError });
  }

  /** Adds a line to the process's log. What comes after the function's end is lost: it would go to another process. */
  log(text) {
    const line = String(text);
    if (running?.signal === this.signal) port.postMessage({ log: line });
  }
}

async function load(modules) {
  for (const url of modules) {
    const module = await imported(url);
    // A module says what it offers by its exports, or if the names are no names in JavaScript, by one object of functions.
    for (const [name, found] of [...Object.entries(module), ...Object.entries(module.functions ?? {})]) {
      if (typeof found === "function") functions.set(name, found);
    }
  }
  return { functions: Array.from(functions, ([name, { description = "" }]) => ({ name, description: String(description) })) };
}

async function imported(url) {
  try {
    return await import(url);
  } catch (error) {
    throw new Error(`${error.message} (${url})`, { cause: error });
  }
}

function decoded(values, what) {
  return values.map((value, index) => {
    try {
      return decode(value);
    } catch (error) {
      throw ourOwn(`${what(index)}: ${error.message}`);
    }
  });
}

function argumentsOf({ args, inputs, kwargs }) {
  const given = [...decoded(args, (index) => `argument ${index + 1}`), ...decoded(inputs, (index) => `input ${index + 1}`)];
  const names = Object.keys(kwargs);
  const values = decoded(Object.values(kwargs), (index) => `keyword argument ${JSON.stringify(names[index])}`);
  return names.length ? [...given, Object.fromEntries(names.map((name, index) => [name, values[index]]))] : given;
}

async function run(job) {
  const called = functions.get(job.funcName);
  if (!called) {
    const known = [...functions.keys()].sort().join(", ") || "none";
    return failed(new Error(`this executor has no function ${JSON.stringify(job.funcName)}; it has: ${known}`), true);
  }
  running = new AbortController();
  try {
    const result = await called.apply(new Attempt(job, running.signal), argumentsOf(job));
    return { outputs: encoded(result) };
  } catch (error) {
    return failed(error, ours.has(error));
  } finally {
    running = null;
  }
}

function encoded(result) {
  try {
    return outputsOf(result).map(encode);
  } catch (error) {
    throw ourOwn(`its result cannot be sent: ${error.message}`);
  }
}

/** A function may throw anything, also what has no text. */
function failed(error, isOurs = false) {
  const told = (tell, otherwise) => {
    try {
      return tell();
    } catch {
      return otherwise;
    }
  };
  const isError = told(() => error instanceof Error, false);
  const text = told(() => (isError ? `${isOurs ? "" : `${error.name}: `}${error.message}` : String(error)), "(its text cannot be told)");
  const stack = told(() => (isError && error.stack && !isOurs ? [String(error.stack)] : []), []);
  return { failure: { errors: [text, ...stack], retryable: told(() => error?.retryable === true, false) } };
}

async function answered(make) {
  let answer;
  try {
    answer = await make();
  } catch (error) {
    answer = failed(error);
  }
  port.postMessage(answer);
}

function take({ data }) {
  if (data.load) void answered(() => load(data.load));
  else if (data.run) void answered(() => run(data.run));
  else running?.abort(new DOMException(data.abort, "AbortError"));
}

// All that is said goes by the port that comes first.
addEventListener(
  "message",
  ({ ports }) => {
    [port] = ports;
    port.onmessage = take;
  },
  { once: true },
);
// Nobody would hear of it, and its process would wait for ever.
globalThis.close = () => {
  throw new TypeError("a function may not close its worker");
};
