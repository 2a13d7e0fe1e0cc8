// Calls that are made again until an outage is over.

import { setTimeout as sleep } from "node:timers/promises";
import { RpcError } from "./errors.js";

const FIRST_MS = 50;
const LONGEST_MS = 2_000;

/** Waiting times that grow, with jitter, so that the clients of a restarted server do not come back all at once. */
export class Backoff {
  #tries = 0;

  reset(): void {
    this.#tries = 0;
  }

  /** The next wait: 0.05 s doubling to 2 s, half of it random; never shorter than the server asked for. */
  nextMs(atLeast = 0): number {
    const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.#tries++, 16));
    return Math.max(longest * (0.5 + Math.random() / 2), atLeast);
  }

  /** Waits for that long; an abort ends it with the signal's reason. */
  async wait(atLeast?: number, signal?: AbortSignal): Promise<void> {
    await pause(this.nextMs(atLeast), signal);
  }
}

/** Waits; an abort ends it with the signal's reason. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, signal && { signal });
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  }
}

/** Says once that the server is lost, and once that it is back. */
export class Outage {
  #lost = false;

  constructor(private readonly log: (line: string) => void) {}

  noAnswer(error: RpcError): void {
    if (!this.#lost) this.log(`lost the server, trying until it is back: ${error.message}`);
    this.#lost = true;
  }

  answered(): void {
    if (this.#lost) this.log("the server is back");
    this.#lost = false;
  }
}

/**
 * Makes a call, and again while the server is out of reach or asks to call less often; other errors go on to the caller.
 *
 * Every RPC may be repeated, as long as the request is the same one: submits have a request id, closes are fenced, all others set
 * a state.
 */
export async function retrying<T>(
  call: () => Promise<T>,
  options: { giveUpAfterMs?: number; signal?: AbortSignal; outage?: Outage } = {},
): Promise<T> {
  const giveUp = Date.now() + (options.giveUpAfterMs ?? Infinity);
  const backoff = new Backoff();
  for (;;) {
    try {
      const answer = await call();
      options.outage?.answered();
      return answer;
    } catch (error) {
      if (!(error instanceof RpcError) || !(error.isOutage || error.isPace) || Date.now() >= giveUp) throw error;
      if (error.isOutage) options.outage?.noAnswer(error);
      await backoff.wait(error.retryDelayMs, options.signal);
    }
  }
}
