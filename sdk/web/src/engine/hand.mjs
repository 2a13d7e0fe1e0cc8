// Attempts that an executor has in hand: from assignment until the server has the result, or does not want it.

import { close } from "./closing.mjs";
import { Log } from "./log.mjs";
import { failure, outcomeOf } from "./outcomes.mjs";

// As much as a timer of JavaScript holds.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const nameOf = ({ processId, attempt }) => `${processId}/${attempt}`;
// The bytes of a message are a window on all that came with it, which would go along.
const apart = ({ mediaType, data }) => ({ mediaType, data: data.slice() });

/** One attempt in hand. */
class Held {
  #aborter = new AbortController();

  constructor(assignment) {
    this.assignment = assignment;
    this.ref = { processId: assignment.processId, attempt: assignment.attempt };
    this.takenAt = performance.now();
    // A heartbeat has told the server that it arrived.
    this.confirmed = false;
    // The result is on its way, or another one stands in for it.
    this.finished = false;
    this.runner = null;
    this.timer = undefined;
    this.log = null;
  }

  /** Aborted when nobody wants the result any more. */
  get signal() {
    return this.#aborter.signal;
  }

  /** What events say of it. */
  get told() {
    return { ...this.ref, function: this.assignment.spec.funcName };
  }

  job() {
    const { processId, attempt, workflowId, spec, inputs } = this.assignment;
    const kwargs = Object.fromEntries(Object.entries(spec.kwargs).map(([name, value]) => [name, apart(value)]));
    const { funcName, env } = spec;
    return { processId, attempt, workflowId, funcName, env: { ...env }, args: spec.args.map(apart), inputs: inputs.map(apart), kwargs };
  }

  get dropped() {
    return this.signal.aborted;
  }

  drop() {
    clearTimeout(this.timer);
    this.#aborter.abort();
  }
}

/** All attempts in hand. */
export class Hand {
  #held = new Map();
  #waiting = [];
  #busy = 0;
  #emptied = [];
  #parts;

  /** `parts`: client, colony, runners, concurrency, bell, leftovers, tell, took. */
  constructor(parts) {
    this.#parts = parts;
  }

  get size() {
    return this.#held.size;
  }

  [Symbol.iterator]() {
    return [...this.#held.values()][Symbol.iterator]();
  }

  /** Takes what was assigned; what comes again on another stream is in hand already. */
  take(assignments) {
    for (const assignment of assignments) {
      if (this.#held.has(nameOf(assignment))) continue;
      for (const earlier of this) {
        if (earlier.ref.processId === assignment.processId) this.drop(earlier.ref, "it was assigned anew");
      }
      const held = new Held(assignment);
      held.log = new Log(this.#parts, held);
      this.#held.set(nameOf(assignment), held);
      if (assignment.execDeadline) {
        // Counted from here, for the clocks of the two machines may differ by more than the limit is long.
        const limit = Math.min(Number(assignment.spec.maxExecTimeMs), LONGEST_TIMER_MS);
        held.timer = setTimeout(() => this.drop(held.ref, "its max_exec_time is over"), limit);
      }
      this.#waiting.push(held);
      this.#parts.took(Number(assignment.leaseMs));
    }
    this.#note();
    this.#startWaiting();
  }

  /** Nobody wants the result any more: the function is told, and ended if it does not listen. */
  drop(ref, reason) {
    const held = this.#held.get(nameOf(ref));
    if (!held) return;
    held.drop();
    held.runner?.abort(reason);
    this.#parts.tell({ event: "dropped", ...held.told, reason });
    this.#release(held);
  }

  /** The server says that this one is not wanted; which it does of one that it has closed a moment ago, too. So what is on its way
   * is left to the answer to that. */
  forgo(ref, reason) {
    if (!this.#held.get(nameOf(ref))?.finished) this.drop(ref, reason);
  }

  /** Ends what is still running, so that another executor can try. */
  giveBack() {
    for (const held of this) {
      if (held.finished) continue;
      held.finished = true;
      held.runner?.abort("this executor is shutting down");
      const outcome = { case: "failure", value: failure("its executor was shut down before it was finished", true) };
      void this.#close(held, outcome);
    }
  }

  /** Whether everything was closed within this time. */
  async isEmptied(ms) {
    if (!this.size) return true;
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(() => resolve(false), ms);
    });
    const emptied = new Promise((resolve) => {
      this.#emptied.push(() => resolve(true));
    });
    try {
      return await Promise.race([emptied, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #startWaiting() {
    // A dropped function that has not ended yet keeps its place: the author said how many may run at once.
    while (this.#waiting.length && this.#busy < this.#parts.concurrency) {
      const held = this.#waiting.shift();
      if (!held.dropped && !held.finished) void this.#run(held);
    }
  }

  async #run(held) {
    this.#busy++;
    this.#parts.tell({ event: "started", ...held.told });
    const answer = await this.#parts.runners.run(held.job(), {
      signal: held.signal,
      onLog: (line) => held.log.add(line),
      onRunner: (runner) => {
        held.runner = runner;
      },
    });
    held.runner = null;
    this.#busy--;
    this.#startWaiting();
    if (held.dropped || held.finished) return;
    held.finished = true;
    await this.#close(held, outcomeOf(answer));
  }

  async #close(held, outcome) {
    const { client, colony, bell, tell } = this.#parts;
    clearTimeout(held.timer);
    await held.log.written();
    const taken = await close(client, colony, held, outcome, bell);
    if (held.dropped) return;
    if (!taken) return this.drop(held.ref, "its result is not wanted any more");
    const told = taken.case === "success" ? { outputs: taken.value.outputs.map(apart) } : { errors: taken.value.errors };
    tell({ event: "ended", ...held.told, ...told, ms: performance.now() - held.takenAt });
    this.#release(held);
  }

  #release(held) {
    this.#held.delete(nameOf(held.ref));
    this.#note();
    if (!this.size) for (const resolve of this.#emptied.splice(0)) resolve();
  }

  #note() {
    const { leftovers, tell } = this.#parts;
    leftovers.write(Array.from(this, ({ ref }) => ref)).catch((error) => tell({ event: "warning", text: error.message }));
  }
}
