// The executor as its author sees it: join the colony, pull, run, drain.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { EventEmitter } from "node:events";
import os from "node:os";
import { ExecutorState, type ArgumentSchema, type CapabilitiesSchema } from "#protos/registry/v1/registry_service";
import { Client } from "./client.js";
import { RpcError } from "./errors.js";
import { Hand, type Dropped } from "./hand.js";
import type { Func } from "./outcome.js";
import { Backoff, Outage, pause, retrying } from "./retrying.js";
import { executorKeyOf, serverOf, type Settings } from "./settings.js";

const APPROVAL_POLL_MS = 2_000;
// After the drain's time is over: for telling the server what was not finished.
const LAST_CLOSE_MS = 10_000;
const MAX_IN_FLIGHT = 1_000;
const MIB = 1 << 20;

/** What is announced of a function, for people and for forms. */
export interface About {
  description?: string;
  arguments?: MessageInitShape<typeof ArgumentSchema>[];
}

export type State = "joining" | "waiting_for_approval" | "ready" | "reconnecting" | "draining";

export interface ExecutorOptions extends Settings {
  /** The types of work that it takes; default ["edge"]. */
  types?: string[];
  /** How many functions may run at once: 1 to 1 000; default 1. */
  concurrency?: number;
  /** Name of the place where it is. */
  location?: string;
  /** More labels that work may ask for, besides language, node, os and arch. */
  labels?: Record<string, string>;
  /** What it offers; fields given here replace what is found out about this machine. */
  capabilities?: MessageInitShape<typeof CapabilitiesSchema>;
  /** How long running functions have to finish after `stop` or the first signal; default 30 s. */
  drainMs?: number;
  /** Whether SIGTERM and SIGINT end it, as `run` says; default true. */
  handleSignals?: boolean;
  /** Is told what happens, a line at a time; default: standard error. */
  log?: (line: string) => void;
}

/**
 * A program that pulls work from a colony and runs it with its functions.
 *
 *     const executor = new Executor("e1", { types: ["edge", "cloud"] });
 *     executor.function("square", ([x]) => x * x);
 *     await executor.run();
 *
 * A function is given the arguments of its spec, then the outputs of the parents, as a list, and a Context. What it returns is its
 * output; `new Outputs(...)` is several, or none. What it throws fails the process, for good unless it is a retryable Failure.
 *
 * Emits `state` (a State) and `dropped` (a Dropped).
 */
export class Executor extends EventEmitter<{ state: [State]; dropped: [Dropped] }> {
  readonly client: Client;
  readonly #functions = new Map<string, Func>();
  readonly #announced: (About & { name: string })[] = [];
  readonly #options: ExecutorOptions;
  readonly #concurrency: number;
  readonly #hand: Hand;
  readonly #stopping = new AbortController();
  readonly #ending = new AbortController();
  readonly #log: (line: string) => void;
  readonly #outage: Outage;
  #state: State | undefined;

  constructor(
    readonly name: string,
    options: ExecutorOptions = {},
  ) {
    super();
    this.#options = options;
    this.#concurrency = options.concurrency ?? 1;
    if (!Number.isInteger(this.#concurrency) || this.#concurrency < 1 || this.#concurrency > MAX_IN_FLIGHT) {
      throw new RangeError(`concurrency is ${options.concurrency}: it is a whole number from 1 to ${MAX_IN_FLIGHT}`);
    }
    const server = serverOf(options);
    this.client = new Client({ ...options, key: executorKeyOf(options, server, name) });
    this.#log = options.log ?? ((line) => console.error(`${new Date().toISOString()} ${line}`));
    this.#outage = new Outage(this.#log);
    this.#hand = new Hand({
      client: this.client,
      functions: this.#functions,
      concurrency: this.#concurrency,
      log: this.#log,
      outage: this.#outage,
      onDropped: (dropped) => this.emit("dropped", dropped),
    });
  }

  /** Offers a function under a name. */
  function(name: string, func: Func, about: About = {}): this {
    if (this.#functions.has(name)) throw new RangeError(`this executor has a function '${name}' already`);
    this.#functions.set(name, func);
    this.#announced.push({ ...about, name });
    return this;
  }

  /**
   * Works until SIGTERM, SIGINT (Ctrl-C) or `stop`, then drains: finishes what is in hand and takes nothing new. A second signal
   * makes it return at once. Throws the RpcError by which the server refuses it: its owner has rejected it, or what it says of itself is
   * wrong. An executor runs once.
   */
  async run(): Promise<void> {
    const onSignal = (signal: NodeJS.Signals): void => {
      if (this.#stopping.signal.aborted) this.#ending.abort();
      else this.#log(`${signal}: finishing what is in hand; a second signal ends that at once`);
      this.stop();
    };
    const signals: NodeJS.Signals[] = this.#options.handleSignals === false ? [] : ["SIGTERM", "SIGINT"];
    for (const signal of signals) process.on(signal, onSignal);
    try {
      await this.#work().catch((error: unknown) => {
        if (!this.#stopping.signal.aborted || error !== this.#stopping.signal.reason) throw error;
      });
      await this.#drain();
    } finally {
      for (const signal of signals) process.off(signal, onSignal);
      this.#hand.abandon();
      this.client.close();
    }
  }

  /** Begins the drain; `run` returns when it is over. */
  stop(): void {
    this.#stopping.abort();
  }

  async #work(): Promise<void> {
    const { signal } = this.#stopping;
    const backoff = new Backoff();
    await this.#join();
    while (!signal.aborted) {
      try {
        await this.#pull(backoff);
      } catch (error) {
        if (!(error instanceof RpcError) || error.code === "INVALID_ARGUMENT") throw error;
        if (error.isOutage) this.#outage.noAnswer(error);
        else this.#log(`cannot ask for work, trying again: ${error.message}`);
        this.#is("reconnecting");
        await backoff.wait(error.retryDelayMs, signal);
        if (isAboutApproval(error)) await this.#join();
        continue;
      }
      this.#is("reconnecting");
      await backoff.wait(undefined, signal);
    }
  }

  /** Reads one stream of assignments to its end. */
  async #pull(backoff: Backoff): Promise<void> {
    const request = { colonyName: this.client.colony, maxInFlight: this.#concurrency };
    for await (const { assignments } of this.client.scheduler.watchAssignments(request, { signal: this.#stopping.signal })) {
      backoff.reset();
      this.#outage.answered();
      this.#is("ready");
      this.#hand.take(assignments);
    }
  }

  /** Returns when the executor is approved and its functions are announced. */
  async #join(): Promise<void> {
    const { signal } = this.#stopping;
    const functions = this.#announced;
    const backoff = new Backoff();
    this.#is("joining");
    for (;;) {
      await this.#approval();
      try {
        const request = { colonyName: this.client.colony, functions };
        await this.#patiently(() => this.client.registry.announceFunctions(request, { signal }));
        break;
      } catch (error) {
        // Approved a moment ago, and not every replica knows it yet; or no longer, and registering tells.
        if (!(error instanceof RpcError) || !isAboutApproval(error)) throw error;
        await backoff.wait(error.retryDelayMs, signal);
      }
    }
    const types = this.#types.join(", ");
    this.#log(`executor ${this.name} serves ${types} in colony ${this.client.colony} with ${functions.length} functions`);
  }

  async #approval(): Promise<void> {
    const { signal } = this.#stopping;
    for (;;) {
      let wait = APPROVAL_POLL_MS;
      try {
        const { executor } = await this.#patiently(() => this.client.registry.registerExecutor(this.#registration(), { signal }));
        if (executor?.state === ExecutorState.APPROVED) return;
        if (this.#state !== "waiting_for_approval") {
          const { colony, key } = this.client;
          this.#log(`waiting for approval in colony ${colony}: colonies executor approve ${this.name}   (identity ${key.identity})`);
        }
        this.#is("waiting_for_approval");
      } catch (error) {
        if (!(error instanceof RpcError) || error.code !== "RESOURCE_EXHAUSTED") throw error;
        this.#log(`cannot register yet: ${error.message}`);
        wait = Math.max(wait, error.retryDelayMs ?? 0);
      }
      await pause(wait, signal);
    }
  }

  get #types(): string[] {
    return this.#options.types ?? ["edge"];
  }

  #registration() {
    const { location = "", labels, capabilities } = this.#options;
    const found = {
      cpu: `${os.availableParallelism() * 1000}m`,
      memory: `${Math.floor(Math.min(os.totalmem(), process.constrainedMemory() || Infinity) / MIB)}Mi`,
      processes: this.#concurrency,
      ...capabilities,
      labels: {
        language: "node",
        node: process.versions.node,
        os: os.type().toLowerCase(),
        arch: os.machine().toLowerCase(),
        ...capabilities?.labels,
        ...labels,
      },
    };
    return { colony: this.client.colony, name: this.name, executorTypes: this.#types, locationName: location, capabilities: found };
  }

  /** A call that rides out every outage. */
  #patiently<T>(call: () => Promise<T>): Promise<T> {
    return retrying(call, { signal: this.#stopping.signal, outage: this.#outage });
  }

  async #drain(): Promise<void> {
    this.#is("draining");
    const { signal } = this.#ending;
    if (this.#hand.size > 0) this.#log(`draining: ${this.#hand.size} processes in hand`);
    if (await this.#hand.emptied(this.#options.drainMs ?? 30_000, signal)) return;
    if (signal.aborted) return;
    this.#hand.giveBack();
    if (await this.#hand.emptied(LAST_CLOSE_MS, signal)) return;
    this.#log(`leaving with ${this.#hand.size} results that the server has not taken`);
  }

  #is(state: State): void {
    if (this.#state === state) return;
    this.#state = state;
    this.emit("state", state);
  }
}

/** It is the approval of the executor that is missing, be it for a moment or for good. */
function isAboutApproval(error: RpcError): boolean {
  return error.code === "PERMISSION_DENIED" || error.reason === "EXECUTOR_NOT_APPROVED";
}
