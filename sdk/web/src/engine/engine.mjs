// An executor at work: join the colony, pull by one stream, run, keep the leases, close, drain. It runs in a worker, so that
// neither a busy page nor a tab in the background holds up a heartbeat.

import { ExecutorState } from "../../build/stubs/colonies/registry/v1/registry_service_pb.js";
import { failureOf } from "../failures.mjs";
import { close } from "./closing.mjs";
import { Hand } from "./hand.mjs";
import { Leases } from "./leases.mjs";
import { Leftovers } from "./leftovers.mjs";
import { failure } from "./outcomes.mjs";
import { Runners } from "./runners.mjs";
import { Backoff, Bell } from "./waiting.mjs";

const APPROVAL_POLL_MS = 2_000;
// An open stream shows a sign of life every few seconds.
const SILENCE_MS = 30_000;
const LOOK_MS = 2_000;
// If so much more time has passed between two looks, the machine slept, or the page was frozen.
const SLEPT_MS = 5_000;
// After the drain's time is over: for telling the server what was not finished.
const LAST_CLOSE_MS = 10_000;
const REFUSED = ["INVALID_ARGUMENT", "UNIMPLEMENTED"];

export class Engine {
  #client;
  #config;
  #tell;
  #stopping = new AbortController();
  #bell = new Bell();
  #backoff = new Backoff();
  #state = {};
  #stream = new AbortController();
  #isPulling = false;
  #heardAt = 0;
  #lookedAt = Date.now();
  #isOnline = navigator.onLine;
  #leases;
  #hand;
  #runners;
  #leftovers;

  /** `config` is what executor.mjs posts; `tell` is given events for it. */
  constructor(client, config, tell) {
    this.#client = client;
    this.#config = config;
    this.#tell = tell;
    const { colony, concurrency } = config;
    const parts = { client, colony, concurrency, tell, bell: this.#bell };
    this.#runners = new Runners(config.runnerUrl, config.modules);
    this.#leftovers = new Leftovers(config.lock);
    this.#leases = new Leases(parts);
    const took = (leaseMs) => this.#leases.took(leaseMs);
    this.#hand = new Hand({ ...parts, took, runners: this.#runners, leftovers: this.#leftovers });
    this.#leases.of(this.#hand);
  }

  /** Works until it is told to stop. Throws what makes it impossible to work. */
  async run() {
    const looking = setInterval(() => this.look(), LOOK_MS);
    try {
      this.#set("joining");
      await this.#alone(async () => {
        const functions = await Promise.race([this.#runners.functions(), this.#stopped()]);
        if (functions) {
          this.#tell({ event: "functions", functions });
          await this.#work(functions);
        }
        await this.#drain();
      });
    } finally {
      clearInterval(looking);
      this.#runners.end();
    }
  }

  /** Drains: nothing more is pulled, and what is in hand is finished. */
  stop() {
    this.#stopping.abort();
    this.#stream.abort();
  }

  /** Something has happened to the network or the machine: what hangs is given up, and tried again at once. */
  nudge(isOnline) {
    this.#isOnline = isOnline;
    this.#backoff.reset();
    this.#leases.hurry();
    this.#giveUp("the network has changed, or this machine has slept");
    this.#bell.ring();
  }

  #giveUp(why) {
    this.#stream.abort(new DOMException(why, "AbortError"));
  }

  /** A module may wait for ever before it is loaded; to stop takes no waiting for it. */
  #stopped() {
    const { signal } = this.#stopping;
    return new Promise((resolve) => {
      if (signal.aborted) resolve(null);
      else signal.addEventListener("abort", () => resolve(null), { once: true });
    });
  }

  get #isStopping() {
    return this.#stopping.signal.aborted;
  }

  #set(state, detail = "") {
    if (this.#state.state === state && this.#state.detail === detail) return;
    this.#state = { state, detail };
    this.#tell({ event: "state", state, detail });
  }

  /** Two tabs may not both be the executor of one name: they have one key, and each would be given what the other runs. */
  async #alone(work) {
    const { lock } = this.#config;
    const isFree = await navigator.locks.request(lock, { ifAvailable: true }, async (held) => {
      if (held) await work();
      return held !== null;
    });
    if (isFree) return;
    this.#set("joining", "another tab of this browser is this executor; this one waits until that is closed");
    try {
      await navigator.locks.request(lock, { signal: this.#stopping.signal }, work);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  async #work(functions) {
    let joined = false;
    while (!this.#isStopping) {
      try {
        if (!joined) await this.#join(functions);
        joined = true;
        if (!this.#isStopping) await this.#pull();
      } catch (error) {
        const failed = failureOf(error);
        if (this.#isStopping) return;
        if (REFUSED.includes(failed.code) || !failed.code || failed.reason === "EXECUTOR_REJECTED") throw failed;
        if (failed.code === "PERMISSION_DENIED") joined = false;
        this.#outage(failed.reason === "SIGNATURE_STALE" ? `${failed.message}: is this machine's clock right?` : failed.message);
        await this.#pause(this.#backoff.nextMs(failed.retryDelayMs));
      }
    }
  }

  #outage(why) {
    // Of a server on this machine the browser does not know that it is in reach, so only a failure says that it is not.
    this.#set(this.#isOnline ? "reconnecting" : "offline", why);
  }

  #pause(ms) {
    return this.#bell.sleep(ms, this.#stopping.signal);
  }

  /** Returns when the executor is approved and its functions are announced, or when it is to stop. */
  async #join(functions) {
    const { colony, name, types, location, capabilities, identity } = this.#config;
    const options = { signal: this.#stopping.signal };
    const request = { colony, name, executorTypes: types, locationName: location, capabilities };
    this.#set("joining");
    while (!this.#isStopping) {
      const { executor } = await this.#client.registry.registerExecutor(request, options);
      if (executor.state === ExecutorState.APPROVED) break;
      this.#set("waiting_for_approval", `colonies executor approve ${name}   (identity ${identity})`);
      await this.#pause(APPROVAL_POLL_MS);
    }
    if (this.#isStopping) return;
    await this.#client.registry.announceFunctions({ colonyName: colony, functions }, options);
    await this.#giveBackLeftovers();
  }

  async #giveBackLeftovers() {
    const outcome = { case: "failure", value: failure("its page was closed or loaded anew before it was finished", true) };
    for (const ref of await this.#kept()) {
      if ([...this.#hand].some((held) => held.ref.processId === ref.processId)) continue;
      await close(this.#client, this.#config.colony, { ref, signal: this.#stopping.signal }, outcome, this.#bell);
    }
  }

  async #kept() {
    try {
      return await this.#leftovers.read();
    } catch (error) {
      // Work does not need it: what an earlier page had comes back when its leases run out.
      this.#tell({ event: "warning", text: error.message });
      return [];
    }
  }

  /** Reads one stream to its end. Throws what it broke by. */
  async #pull() {
    const { colony, concurrency } = this.#config;
    this.#stream = new AbortController();
    if (this.#isStopping) return;
    this.#heardAt = Date.now();
    this.#isPulling = true;
    const request = { colonyName: colony, maxInFlight: concurrency };
    try {
      for await (const { assignments } of this.#client.scheduler.watchAssignments(request, { signal: this.#stream.signal })) {
        this.#heardAt = Date.now();
        this.#backoff.reset();
        this.#set("ready");
        this.#hand.take(assignments);
      }
    } finally {
      this.#isPulling = false;
    }
    if (!this.#isStopping) this.#outage("the server has ended the stream");
    await this.#pause(this.#backoff.nextMs());
  }

  /** Finds connections that died without a word; more closely when somebody looks at the page. */
  look(silenceMs = SILENCE_MS) {
    const now = Date.now();
    const slept = now - this.#lookedAt > LOOK_MS + SLEPT_MS;
    this.#lookedAt = now;
    const silentMs = now - this.#heardAt;
    if (slept) this.nudge(this.#isOnline);
    // Also one that has never said anything: it was opened on a connection that is dead.
    else if (this.#isPulling && silentMs > silenceMs) this.#giveUp(`no sign of life for ${Math.round(silentMs / 1000)} s`);
  }

  async #drain() {
    this.#set("draining");
    if (await this.#hand.isEmptied(this.#config.drainMs)) return;
    this.#hand.giveBack();
    await this.#hand.isEmptied(LAST_CLOSE_MS);
  }
}
