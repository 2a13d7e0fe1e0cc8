// Heartbeats: one call for all that is in hand, again and again, and for what is new as soon as it is not over at once.

import { DropReason } from "../../build/stubs/colonies/scheduler/v1/scheduler_service_pb.js";
import { failureOf } from "../failures.mjs";

const MAX_HEARTBEAT = 1_000;
// Until a heartbeat confirms it, an attempt is an offer, and one that was lost on the way takes its whole lease to come back.
// What is over within this time needs no heartbeat: its close confirms it.
const CONFIRM_MS = 500;
const SHORTEST_CALL_MS = 1_000;

export class Leases {
  #client;
  #colony;
  #bell;
  #hand = null;
  #beatMs = SHORTEST_CALL_MS;
  #lastBeat = 0;
  #keeping = false;

  constructor({ client, colony, bell }) {
    this.#client = client;
    this.#colony = colony;
    this.#bell = bell;
  }

  /** The hand whose leases are kept. */
  of(hand) {
    this.#hand = hand;
  }

  /** Something was taken, with a lease of this length. */
  took(leaseMs) {
    this.#set(leaseMs);
    if (this.#keeping) return;
    this.#keeping = true;
    this.#lastBeat = performance.now();
    void this.#keep();
  }

  /** Tells the server about all that is in hand as soon as possible: it may not have heard for a long time. */
  hurry() {
    this.#lastBeat = -Infinity;
  }

  #set(leaseMs) {
    // Three heartbeats fit, so that one may be lost.
    if (leaseMs > 0) this.#beatMs = leaseMs / 3;
  }

  async #keep() {
    while (this.#hand.size) {
      const left = this.#lastBeat + this.#beatMs - performance.now();
      await this.#bell.sleep(Math.min(CONFIRM_MS, Math.max(0, left)));
      const due = this.#due(performance.now());
      for (let at = 0; at < due.length; at += MAX_HEARTBEAT) await this.#beat(due.slice(at, at + MAX_HEARTBEAT));
    }
    this.#keeping = false;
  }

  #due(now) {
    if (now >= this.#lastBeat + this.#beatMs) {
      this.#lastBeat = now;
      return [...this.#hand];
    }
    return [...this.#hand].filter(({ confirmed, finished, takenAt }) => !confirmed && !finished && takenAt + CONFIRM_MS <= now);
  }

  async #beat(due) {
    const request = { colonyName: this.#colony, attempts: due.map(({ ref }) => ref) };
    // A call that hangs must leave time for another one within the lease.
    const timeoutMs = Math.max(SHORTEST_CALL_MS, this.#beatMs);
    let response;
    try {
      response = await this.#client.scheduler.heartbeat(request, { timeoutMs });
    } catch (error) {
      // Soon again, but not at once: most failures are outages.
      const wait = Math.max(failureOf(error).retryDelayMs ?? 0, CONFIRM_MS);
      this.#lastBeat = Math.min(this.#lastBeat, performance.now() - this.#beatMs + wait);
      return;
    }
    for (const held of due) held.confirmed = true;
    this.#set(Number(response.leaseMs));
    for (const { attempt, reason } of response.drops) {
      this.#hand.forgo(attempt, reason === DropReason.CANCELLED ? "it was cancelled" : "its lease or its time is over");
    }
  }
}
