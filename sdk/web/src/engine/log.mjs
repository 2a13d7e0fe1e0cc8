// The lines that a function logs: sent in order, and all of them before its attempt is closed.

import { timestampNow } from "@bufbuild/protobuf/wkt";
import { failureOf } from "../failures.mjs";
import { storable } from "./outcomes.mjs";
import { Backoff } from "./waiting.mjs";

const MAX_LINES = 1_000;
// Of one call: up to three bytes each, and the server takes four MiB.
const MAX_CHARACTERS = 1 << 18;
// In an outage lines pile up; past this many characters they are counted and not kept.
const MAX_WAITING_CHARACTERS = 1 << 24;

export class Log {
  #parts;
  #held;
  #lines = [];
  #characters = 0;
  #unkept = 0;
  #firstNumber = 1;
  #writing = null;

  /** `parts`: client, colony, bell and tell of the executor. */
  constructor(parts, held) {
    this.#parts = parts;
    this.#held = held;
  }

  /** Takes a line. */
  add(text) {
    if (this.#characters > MAX_WAITING_CHARACTERS) {
      this.#unkept++;
      return;
    }
    this.#put(text);
    this.#writing ??= this.#write();
  }

  /** When the server has all lines, or does not want them. */
  async written() {
    await this.#writing;
  }

  #put(text) {
    const message = storable(text);
    this.#lines.push({ message, time: timestampNow() });
    this.#characters += message.length;
  }

  /** The next lines that go together. */
  #next() {
    let characters = 0;
    const end = this.#lines.findIndex(({ message }, index) => index && (characters += message.length) > MAX_CHARACTERS);
    return this.#lines.slice(0, Math.min(MAX_LINES, end < 0 ? MAX_LINES : end));
  }

  #remove(count) {
    for (const { message } of this.#lines.splice(0, count)) this.#characters -= message.length;
    if (this.#lines.length || !this.#unkept) return;
    this.#put(`(${this.#unkept} lines were not kept: more came than could be sent)`);
    this.#unkept = 0;
  }

  async #write() {
    const { client, colony, bell, tell } = this.#parts;
    const backoff = new Backoff();
    while (this.#lines.length && !this.#held.dropped) {
      const lines = this.#next();
      // Lines have numbers, so that a call that got no answer may be repeated.
      const request = { colonyName: colony, attempt: this.#held.ref, lines, firstNumber: BigInt(this.#firstNumber) };
      try {
        await client.scheduler.addLogs(request, { signal: this.#held.signal });
        this.#remove(lines.length);
        this.#firstNumber += lines.length;
        backoff.reset();
      } catch (error) {
        const failed = failureOf(error);
        if (isFinal(failed)) {
          // The close that follows says what is wrong with the attempt; lines that the server refuses are lost.
          tell({ event: "warning", text: `${lines.length} log lines of process ${this.#held.ref.processId} were refused: ${failed.message}` });
          this.#remove(lines.length);
        } else await bell.sleep(backoff.nextMs(failed.retryDelayMs), this.#held.signal);
      }
    }
    this.#writing = null;
  }
}

/** Whether these lines will never be taken. Without a reason it is gRPC itself, or what stands on the way, and they are too large. */
const isFinal = ({ code, reason }) =>
  ["FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT"].includes(code) || (code === "RESOURCE_EXHAUSTED" && !reason);
