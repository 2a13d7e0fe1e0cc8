// The functions of the tests' executors.

const wait = (ms, signal) =>
  new Promise((resolve, reject) => {
    setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });

export const sum = (...numbers) => numbers.reduce((total, number) => total + number, 0);
sum.description = "Adds numbers.";

export const echo = (...args) => args;
export const nothing = () => undefined;

export function two() {
  return this.outputs(2, 3);
}

export function none() {
  return this.outputs();
}

export function fail(text) {
  throw new Error(text);
}

export function failRetryable(text) {
  throw new this.RetryableError(text);
}

export const infinite = () => Infinity;

export function logs(...lines) {
  for (const line of lines) this.log(line);
  return lines.length;
}

export const size = (bytes) => ({ isBytes: bytes instanceof Uint8Array, length: bytes.length });

/** Waits, and can be told to stop. */
export async function waits(ms) {
  await wait(ms, this.signal);
  return "waited";
}

/** Cannot be told anything. */
export function hangs() {
  for (;;);
}

/** Hangs in its first attempt alone. */
export async function hangsFirst() {
  if (this.attempt === 1) await wait(600_000);
  return this.attempt;
}
