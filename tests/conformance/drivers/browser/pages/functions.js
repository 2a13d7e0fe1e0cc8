// The functions that every driver's executor has. They run in workers.

import { parsed, written } from "/text.js";

const channel = new BroadcastChannel(`executor ${new URL(import.meta.url).searchParams.get("executor")}`);

/** Resolves when the event is written: what a function was seen to do may not get lost while its result goes out. */
function tell(event) {
  const id = crypto.randomUUID();
  return new Promise((resolve) => {
    const hear = ({ data }) => {
      if (data.written !== id) return;
      channel.removeEventListener("message", hear);
      resolve();
    };
    channel.addEventListener("message", hear);
    channel.postMessage({ event, id });
  });
}

export function echo(...args) {
  return this.outputs(...args);
}

// A BigInt and a number do not add up: the sum is a BigInt if all are whole.
export function add(...numbers) {
  if (!numbers.some((each) => typeof each === "bigint")) return numbers.reduce((a, b) => a + b, 0);
  return numbers.every((each) => typeof each === "bigint" || Number.isInteger(each))
    ? numbers.reduce((a, b) => a + BigInt(b), 0n)
    : numbers.reduce((a, b) => a + Number(b), 0);
}

export function fail(text) {
  throw new Error(text);
}

export function fail_retryable(text) {
  throw new this.RetryableError(text);
}

export function crash(text) {
  throw new TypeError(text);
}

export function nothing() {
  return this.outputs();
}

export async function hold(token, ...rest) {
  const released = await new Promise((resolve, reject) => {
    const hear = ({ data: { release } }) => {
      if (release?.token !== token) return;
      channel.removeEventListener("message", hear);
      resolve(release.outputs);
    };
    channel.addEventListener("message", hear);
    this.signal.addEventListener("abort", () => {
      channel.removeEventListener("message", hear);
      reject(this.signal.reason);
    });
    const { processId, attempt } = this;
    void tell({ event: "started", process_id: processId, attempt, function: "hold", token, args: [token, ...rest].map(written) });
  });
  return this.outputs(...(released?.map(parsed) ?? rest));
}

export async function effect(text, ...rest) {
  await tell({ event: "effect", process_id: this.processId, attempt: this.attempt, text });
  return this.outputs(...rest);
}
