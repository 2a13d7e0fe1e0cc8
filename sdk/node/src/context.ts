// What a function can know of its process, and say about it.

import { create } from "@bufbuild/protobuf";
import { timestampDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { LogLineSchema, type LogLine } from "#protos/scheduler/v1/process";
import type { Assignment } from "#protos/scheduler/v1/scheduler_service";
import type { Client } from "./client.js";
import { RpcError } from "./errors.js";
import { retrying } from "./retrying.js";
import { bounded } from "./text.js";

const MAX_TEXT_BYTES = 64 * 1024;
const MAX_LINES_IN_CALL = 1_000;
const MAX_BYTES_IN_CALL = 1 << 20;
// In an outage lines pile up; past this many, they are counted and not kept.
const MAX_WAITING = 50_000;

/** The process that a function runs for. */
export interface Context {
  readonly processId: string;
  /** From 1; higher when the process has been tried before. */
  readonly attempt: number;
  /** Empty outside of workflows, as is `nodeName`. */
  readonly workflowId: string;
  readonly nodeName: string;
  readonly label: string;
  readonly env: Readonly<Record<string, string>>;
  /** The keyword arguments. */
  readonly kwargs: Readonly<Record<string, any>>;
  /** When this attempt must be over, by the server's clock; undefined for no limit. */
  readonly deadline: Date | undefined;
  /** Aborted when the result is no longer wanted: the function should stop. */
  readonly signal: AbortSignal;
  /** The executor's connection, for whatever else the function wants of the server, in the name of the executor. */
  readonly client: Client;
  /** Adds a line to the log of the process. Lines are sent in order, and before the process is closed; at most 64 KiB each. */
  log(message: unknown): void;
}

/** The context of an attempt. */
export function contextOf(
  { processId, attempt, workflowId, spec, execDeadline }: Assignment,
  kwargs: Record<string, any>,
  client: Client,
  signal: AbortSignal,
  logs: LogSender,
): Context {
  return {
    processId,
    attempt,
    workflowId,
    nodeName: spec?.nodeName ?? "",
    label: spec?.label ?? "",
    env: spec?.env ?? {},
    kwargs,
    deadline: execDeadline && timestampDate(execDeadline),
    signal,
    client,
    log: (message) => logs.add(String(message)),
  };
}

/** Sends the log lines of one attempt in order, several in a call, while the function goes on. */
export class LogSender {
  readonly #client: Client;
  readonly #assignment: Assignment;
  readonly #signal: AbortSignal;
  readonly #warn: (line: string) => void;
  #waiting: LogLine[] = [];
  #unkept = 0;
  // Lines are numbered, so that a call that is repeated after an outage adds none twice.
  #sent = 0;
  #sending: Promise<void> | undefined;

  /** `signal` is aborted when nobody wants the lines any more. */
  constructor(client: Client, assignment: Assignment, signal: AbortSignal, warn: (line: string) => void) {
    this.#client = client;
    this.#assignment = assignment;
    this.#signal = signal;
    this.#warn = warn;
  }

  add(message: string): void {
    if (this.#signal.aborted) return;
    if (this.#waiting.length >= MAX_WAITING) {
      this.#unkept += 1;
      return;
    }
    this.#waiting.push(create(LogLineSchema, { time: timestampNow(), message: bounded(message, MAX_TEXT_BYTES) }));
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = undefined));
  }

  /** Returns when all lines were sent, or nobody wants them any more. */
  async flush(): Promise<void> {
    while (this.#sending) await this.#sending;
  }

  async #sendAll(): Promise<void> {
    await Promise.resolve(); // What the function says at once goes together.
    while (this.#waiting.length > 0 && !this.#signal.aborted) {
      const lines = this.#nextLines();
      const { processId, attempt } = this.#assignment;
      const firstNumber = BigInt(this.#sent + 1);
      const request = { colonyName: this.#client.colony, attempt: { processId, attempt }, lines, firstNumber };
      this.#sent += lines.length;
      try {
        await retrying(() => this.#client.scheduler.addLogs(request, { signal: this.#signal }), { signal: this.#signal });
      } catch (error) {
        if (this.#signal.aborted) return;
        if (!(error instanceof RpcError)) throw error;
        this.#warn(`${lines.length} log lines of process ${processId} were refused: ${error.message}`);
      }
    }
  }

  #nextLines(): LogLine[] {
    let bytes = 0;
    let count = 0;
    for (const { message } of this.#waiting.slice(0, MAX_LINES_IN_CALL)) {
      if (count > 0 && bytes + message.length > MAX_BYTES_IN_CALL) break;
      bytes += message.length;
      count += 1;
    }
    const lines = this.#waiting.splice(0, count);
    if (this.#unkept > 0 && this.#waiting.length === 0) {
      const message = `(${this.#unkept} lines were not kept during an outage)`;
      lines.push(create(LogLineSchema, { time: timestampNow(), message }));
      this.#unkept = 0;
    }
    return lines;
  }
}
