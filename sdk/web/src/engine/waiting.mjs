// Waits that can be cut short.

const FIRST_MS = 50;
const LONGEST_MS = 2_000;

/** Exponential waiting times with jitter, so that executors of a restarted server do not come back all at once. */
export class Backoff {
  #tries = 0;

  reset() {
    this.#tries = 0;
  }

  /** The next wait: 50 ms doubling to 2 s, half of it random; never shorter than the server asked for. */
  nextMs(atLeast = 0) {
    const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.#tries++, 16));
    return Math.max(longest * (0.5 + Math.random() / 2), atLeast);
  }
}

/** Sleeps of an executor. All of them end at once when it is rung: something has happened that makes it worth looking again. */
export class Bell {
  #ringing = new AbortController();

  ring() {
    this.#ringing.abort();
    this.#ringing = new AbortController();
  }

  /** Returns after this time, when the bell rings, or when the signal is aborted. */
  sleep(ms, signal) {
    return sleep(ms, this.#ringing.signal, ...(signal ? [signal] : []));
  }
}

/** Returns after this time, or when a signal is aborted. */
export function sleep(ms, ...signals) {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal.aborted)) return resolve();
    const end = () => {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    for (const signal of signals) signal.addEventListener("abort", end);
  });
}
