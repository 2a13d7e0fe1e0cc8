// Functions that do what nobody should, and some libraries do.

import { Media } from "/sdk/web/colonies.mjs";

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const fine = () => "fine";

/** What it threw comes after it has returned. */
export function throwsLater() {
  setTimeout(() => {
    throw new Error("too late");
  });
  return "returned";
}

/** What it waits for never comes, for this comes instead. */
export function throwsMeanwhile() {
  setTimeout(() => {
    throw new Error("in a timer");
  });
  return new Promise(() => {});
}

/** Some libraries have an end of their own. */
export const closes = () => self.close();

/** Says something to whoever listens to the worker. */
export async function posts(message) {
  postMessage(message);
  postMessage({ outputs: [], failure: null });
  await wait(50);
  return "posted";
}

/** Logs while another one's attempt runs. */
export function logsLater() {
  const log = this.log.bind(this);
  setTimeout(() => log("of another attempt"), 100);
  this.log("of its own");
  return "logged";
}

export async function waits(ms) {
  await wait(ms);
  this.log("waited");
  return "waited";
}

export function logsLong(lines, characters) {
  for (let number = 0; number < lines; number++) this.log(`${number} `.padEnd(characters, "\u4e2d"));
  return lines;
}

export function logsNul() {
  this.log("before");
  this.log("a\0b");
  this.log("after");
}

// Cut at a bound of the SDK's, the last character is half of one.
const cutInHalf = `${"x".repeat(8_191)}\u{1F600}`;

export function logsHalf() {
  this.log(cutInHalf);
}

export function throwsHalf() {
  throw cutInHalf;
}

export function throwsNul() {
  throw new Error("a\0b");
}

export function throwsProxy() {
  throw new Proxy({}, {
    get() {
      throw this;
    },
    getPrototypeOf() {
      throw this;
    },
  });
}

export function throwsGetter() {
  const odd = {
    get retryable() {
      throw odd;
    },
  };
  throw odd;
}

export function throwsUndefined() {
  throw undefined;
}

export function throwsSymbol() {
  throw Symbol("odd");
}

export function throwsLong() {
  throw new Error("long ".repeat(2_000_000));
}

export function givesCycle() {
  const cycle = {};
  cycle.cycle = cycle;
  return cycle;
}

export const givesFunction = () => () => 1;
export const givesSymbol = () => Symbol("odd");
export const givesBig = () => 2n ** 80n;

export function givesProxy() {
  return new Proxy({}, {
    get() {
      throw new Error("odd");
    },
  });
}

export const givesMedia = () => new Media("image/png", Uint8Array.of(1, 2));
export const givesNoMedia = () => new Media(7, "no bytes");
export const givesMany = (bytes) => new Uint8Array(bytes).fill(65);
