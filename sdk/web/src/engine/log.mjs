// The lines that a function logs: sent in order, and all of them before its attempt is closed.

import { timestampNow } from "@bufbuild/protobuf/wkt";
import { failureOf } from "../failures.mjs";
import { Backoff } from "./waiting.mjs";

const MAX_LINES = 1_000;
const MAX_CHARACTERS = 8_192;

export class Log {
  #parts;
  #held;
  #lines = [];
  #firstNumber = 1;
  #writing = null;

  /** `parts`: client, colony and bell of the executor. */
  constructor(parts, held) {
    this.#parts = parts;
    this.#held = held;
  }

  /** Takes a line. */
  add(text) {
    this.#lines.push({ message: text.toWellFormed().slice(0, MAX_CHARACTERS), time: timestampNow() });
    this.#writing ??= this.#write();
  }

  /** When the server has all lines, or does not want them. */
  async written() {
    await this.#writing;
  }

  async #write() {
    const { client, colony, bell } = this.#parts;
    const backoff = new Backoff();
    while (this.#lines.length && !this.#held.dropped) {
      const lines = this.#lines.slice(0, MAX_LINES);
      // Lines have numbers, so that a call that got no answer may be repeated.
      const request = { colonyName: colony, attempt: this.#held.ref, lines, firstNumber: BigInt(this.#firstNumber) };
      try {
        await client.scheduler.addLogs(request, { signal: this.#held.signal });
        this.#lines.splice(0, lines.length);
        this.#firstNumber += lines.length;
        backoff.reset();
      } catch (error) {
        const { code, retryDelayMs } = failureOf(error);
        // The close that follows says what is wrong with the attempt; lines that the server refuses are lost.
        if (["FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT"].includes(code)) this.#lines.length = 0;
        else await bell.sleep(backoff.nextMs(retryDelayMs), this.#held.signal);
      }
    }
    this.#writing = null;
  }
}
