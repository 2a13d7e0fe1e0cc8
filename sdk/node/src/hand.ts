// All attempts that an executor has in hand, each from its assignment until the server has the result, or does not want it.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { DropReason, type Assignment, type AttemptRefSchema } from "#protos/scheduler/v1/scheduler_service";
import type { Client } from "./client.js";
import { LogSender, contextOf } from "./context.js";
import { RpcError } from "./errors.js";
import { failure, outcomeOf, type Func, type Outcome } from "./outcome.js";
import { Backoff, pause, type Outage } from "./retrying.js";

const MAX_HEARTBEAT = 1_000;
// A fresh attempt is confirmed this soon; those that came with it, and are not over by then, go in the same call.
const CONFIRM_MS = 50;
const MAX_TIMER_MS = 2 ** 31 - 1;

/** An attempt that the executor was told to drop. */
export interface Dropped {
  processId: string;
  attempt: number;
  reason: string;
}

/** Aborts the functions whose result nobody wants. */
export class DroppedError extends Error {
  override name = "DroppedError";
}

class Held {
  /** Tells the function to stop. */
  readonly stop = new AbortController();
  /** The attempt is over: ends what is under way for it on the network. */
  readonly over = new AbortController();
  readonly since = Date.now();
  /** Its result is on its way: the answer to that tells whether it was wanted, and a heartbeat's may have crossed it. */
  finished = false;
  timer: NodeJS.Timeout | undefined;

  constructor(readonly assignment: Assignment) {}

  get ref(): MessageInitShape<typeof AttemptRefSchema> {
    return { processId: this.assignment.processId, attempt: this.assignment.attempt };
  }

  toString(): string {
    const { spec, processId, attempt } = this.assignment;
    return `${spec?.nodeName || spec?.funcName} (process ${processId}, attempt ${attempt})`;
  }
}

interface Given {
  client: Client;
  functions: ReadonlyMap<string, Func>;
  concurrency: number;
  log: (line: string) => void;
  outage: Outage;
  onDropped: (dropped: Dropped) => void;
}

export class Hand {
  // By process: of two attempts of one process, only the later one counts.
  readonly #held = new Map<string, Held>();
  readonly #waiting: Held[] = [];
  #busy = 0;
  #leaseMs = 3_000;
  #beatAt = Infinity;
  #beatTimer: NodeJS.Timeout | undefined;
  #onEmpty: () => void = () => {};

  constructor(private readonly given: Given) {}

  get size(): number {
    return this.#held.size;
  }

  /** Takes what was assigned, and runs it as soon as there is room. */
  take(assignments: readonly Assignment[]): void {
    for (const assignment of assignments) {
      const earlier = this.#held.get(assignment.processId);
      // Sent again by a stream that was opened again.
      if (earlier && earlier.assignment.attempt >= assignment.attempt) continue;
      if (earlier) this.#drop(earlier, "a later attempt has come");
      const held = new Held(assignment);
      this.#held.set(assignment.processId, held);
      this.#setLease(assignment.leaseMs);
      // Counted from here, for the clocks of the two machines may differ by more than the limit is long.
      const limit = Number(assignment.spec?.maxExecTimeMs ?? 0);
      if (assignment.execDeadline && limit <= MAX_TIMER_MS) {
        held.timer = setTimeout(() => this.#drop(held, "its maximal execution time is over"), limit);
      }
      this.#waiting.push(held);
    }
    this.#startWaiting();
    if (this.#held.size > 0) this.#beatWithin(CONFIRM_MS);
  }

  /** Waits until nothing is in hand any more; false if that takes longer. */
  async emptied(ms: number, signal: AbortSignal): Promise<boolean> {
    if (this.#held.size === 0) return true;
    const over = new AbortController();
    const empty = new Promise<boolean>((resolve) => (this.#onEmpty = () => resolve(true)));
    const late = pause(ms, AbortSignal.any([over.signal, signal])).then(() => false, () => false);
    const result = await Promise.race([empty, late]);
    over.abort();
    return result;
  }

  /** Ends what still runs so that another executor can try; a result that only waits to be sent still is. */
  giveBack(): void {
    for (const held of [...this.#held.values()].filter((each) => !each.finished)) {
      this.given.log(`giving back ${held}: this executor is shutting down`);
      held.stop.abort(new DroppedError("the executor is shutting down"));
      void this.#finish(held, failure(["its executor was shut down before it was finished"], true));
    }
  }

  /** Lets go of everything. */
  abandon(): void {
    clearTimeout(this.#beatTimer);
    for (const held of [...this.#held.values()]) this.#abort(held);
  }

  #startWaiting(): void {
    // The server does not count functions that were dropped and still run: what it sends beyond waits here.
    while (this.#busy < this.given.concurrency) {
      const held = this.#waiting.shift();
      if (!held) return;
      if (this.#isHeld(held) && !held.finished) void this.#run(held);
    }
  }

  async #run(held: Held): Promise<void> {
    this.#busy += 1;
    const logs = new LogSender(this.given.client, held.assignment, held.over.signal, this.given.log);
    const outcome = await outcomeOf(this.given.functions, held.assignment, (kwargs) =>
      contextOf(held.assignment, kwargs, this.given.client, held.stop.signal, logs),
    );
    this.#busy -= 1;
    this.#startWaiting();
    if (!this.#isHeld(held) || held.finished) return;
    const took = `after ${Date.now() - held.since} ms`;
    const how = outcome.case === "failure" ? `failed ${took}: ${outcome.value?.errors?.[0]}` : `successful ${took}`;
    this.given.log(`${held}: ${how}`);
    held.finished = true;
    await logs.flush();
    await this.#finish(held, outcome);
  }

  /** Sends the end of an attempt until the server has it or does not want it. */
  async #finish(held: Held, given: Outcome): Promise<void> {
    held.finished = true;
    const { signal } = held.over;
    const backoff = new Backoff();
    let outcome = given;
    while (!signal.aborted) {
      try {
        const closes = [{ attempt: held.ref, outcome }];
        await this.given.client.scheduler.closeProcesses({ colonyName: this.given.client.colony, closes }, { signal });
        break;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof RpcError)) {
          // It cannot even be written: a Value that was made by hand, of the wrong types.
          if (outcome !== given) throw error;
          this.given.log(`the result of ${held} cannot be sent: ${String(error)}`);
          outcome = failure([`its result cannot be sent: ${String(error)}`]);
          continue;
        }
        if (isUnwanted(error) || (isInvalid(error) && outcome !== given)) {
          this.given.log(`the result of ${held} is not wanted: ${error.message}`);
          break;
        }
        if (isInvalid(error)) {
          this.given.log(`the result of ${held} was refused: ${error.message}`);
          outcome = failure([`its result was refused: ${error.message}`]);
          continue;
        }
        const wait = backoff.nextMs(error.retryDelayMs);
        if (error.isOutage) this.given.outage.noAnswer(error);
        else this.given.log(`cannot close ${held}, trying again: ${error.message}`);
        await pause(wait, signal).catch(() => {});
      }
    }
    this.#settle(held);
  }

  #drop(held: Held, reason: string): void {
    if (!this.#isHeld(held)) return;
    this.given.log(`dropping ${held}: ${reason}`);
    this.#abort(held);
    const { processId, attempt } = held.assignment;
    this.given.onDropped({ processId, attempt, reason });
  }

  #abort(held: Held): void {
    this.#settle(held);
    held.stop.abort(new DroppedError("nobody wants the result any more"));
  }

  #settle(held: Held): void {
    clearTimeout(held.timer);
    if (!this.#isHeld(held)) return;
    this.#held.delete(held.assignment.processId);
    held.over.abort(new DroppedError("the attempt is over"));
    if (this.#held.size === 0) this.#onEmpty();
  }

  #isHeld(held: Held): boolean {
    return this.#held.get(held.assignment.processId) === held;
  }

  #setLease(leaseMs: bigint): void {
    if (leaseMs > 0) this.#leaseMs = Number(leaseMs);
  }

  /** Sees to it that a heartbeat goes out within this time. */
  #beatWithin(ms: number): void {
    if (Date.now() + ms >= this.#beatAt) return;
    this.#beatAt = Date.now() + ms;
    clearTimeout(this.#beatTimer);
    this.#beatTimer = setTimeout(() => void this.#beat(), ms);
  }

  /** Confirms what has arrived, and extends the leases of all that is in hand. */
  async #beat(): Promise<void> {
    this.#beatAt = Infinity;
    const attempts = [...this.#held.values()].map((held) => held.ref);
    // A call that hangs must leave time for another one within the lease.
    const timeoutMs = Math.max(1_000, this.#leaseMs / 3);
    try {
      for (let start = 0; start < attempts.length; start += MAX_HEARTBEAT) {
        const request = { colonyName: this.given.client.colony, attempts: attempts.slice(start, start + MAX_HEARTBEAT) };
        const { drops, leaseMs } = await this.given.client.scheduler.heartbeat(request, { timeoutMs });
        this.#setLease(leaseMs);
        for (const { attempt, reason } of drops) {
          const held = this.#held.get(attempt?.processId ?? "");
          if (!held || held.assignment.attempt !== attempt?.attempt || held.finished) continue;
          this.#drop(held, reason === DropReason.CANCELLED ? "it was cancelled" : "its lease or its time is over");
        }
      }
      if (this.#held.size > 0) this.#beatWithin(this.#leaseMs / 3);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      if (this.#held.size === 0) return;
      if (error.isOutage) this.given.outage.noAnswer(error);
      else this.given.log(`a heartbeat was refused: ${error.message}`);
      this.#beatWithin(Math.min(1_000, this.#leaseMs / 3));
    }
  }
}

/** Nobody waits for the result: it is somebody else's process by now, or nobody's. */
function isUnwanted(error: RpcError): boolean {
  return error.code === "NOT_FOUND" || (error.code === "FAILED_PRECONDITION" && error.reason === "ATTEMPT_SUPERSEDED");
}

/** The server will never take this result. It has a reason for each limit of its own; without one it is too large for gRPC. */
function isInvalid(error: RpcError): boolean {
  return error.code === "INVALID_ARGUMENT" || (error.code === "RESOURCE_EXHAUSTED" && !error.reason);
}
