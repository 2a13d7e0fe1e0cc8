// The workers in which functions run: one function at a time in each, so that one that hangs can be ended without the others.

import { failure } from "./outcomes.mjs";

// A function that is told to stop has this long to do so before its worker is ended.
const GRACE_MS = 1_000;

/** A module of functions cannot be loaded. */
export class LoadError extends Error {
  name = "LoadError";
}

class Runner {
  #worker;
  // Functions have their worker to themselves: what they, or their libraries, post to its owner is heard by nobody.
  #channel = new MessageChannel();
  #reply = null;
  #onLog = null;

  constructor(url, modules) {
    this.#worker = new Worker(url, { type: "module", name: "colonies-runner" });
    this.#worker.postMessage("port", [this.#channel.port2]);
    this.#channel.port1.onmessage = ({ data }) => ("log" in data ? this.#onLog?.(data.log) : this.#answered(data));
    this.#channel.port1.onmessageerror = () => this.#broken("its result cannot be read");
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#broken(event.message || `${url} cannot be loaded`);
    };
    this.usable = true;
    this.loaded = this.#ask({ load: modules }).then((answer) => {
      if (answer.functions) return answer.functions;
      throw new LoadError(answer.failure.errors[0]);
    });
  }

  #ask(question) {
    return new Promise((resolve) => {
      this.#reply = resolve;
      this.#channel.port1.postMessage(question);
    });
  }

  #answered(answer) {
    this.#reply?.(answer);
    this.#reply = null;
  }

  #broken(text) {
    this.end();
    this.#answered({ failure: failure(text) });
  }

  /** Runs a function to its end. */
  async run(job, onLog) {
    this.#onLog = onLog;
    const answer = await this.#ask({ run: job });
    this.#onLog = null;
    return answer;
  }

  /** Tells the function, and ends the worker if that does not help. */
  abort(reason) {
    this.#channel.port1.postMessage({ abort: reason });
    const reply = this.#reply;
    setTimeout(() => {
      if (this.#reply === reply && reply) this.#broken(`it was dropped: ${reason}`);
    }, GRACE_MS);
  }

  end() {
    this.usable = false;
    this.#worker.terminate();
    this.#channel.port1.close();
  }
}

/** As many runners as functions may run at once. */
export class Runners {
  #make;
  #idle = [];
  #all = new Set();

  constructor(url, modules) {
    this.#make = () => new Runner(url, modules);
  }

  /** Loads the modules; gives the functions that they have: name and description. Throws a LoadError. */
  async functions() {
    const runner = this.#take();
    const found = await runner.loaded;
    this.#put(runner);
    return found;
  }

  /** Runs a job in a free runner, or a new one, unless the signal comes first; `onRunner` is given it, to abort by. */
  async run(job, { signal, onLog, onRunner }) {
    const runner = this.#take();
    try {
      await runner.loaded;
    } catch (error) {
      this.#all.delete(runner);
      runner.end();
      return { failure: failure(`the executor's functions cannot be loaded: ${error.message}`, true) };
    }
    let answer = null;
    if (!signal.aborted) {
      onRunner(runner);
      answer = await runner.run(job, onLog);
    }
    this.#put(runner);
    return answer;
  }

  end() {
    for (const runner of this.#all) runner.end();
  }

  #take() {
    while (this.#idle.length) {
      const idle = this.#idle.pop();
      if (idle.usable) return idle;
      // What its last function left behind has broken it since.
      this.#all.delete(idle);
    }
    const runner = this.#make();
    this.#all.add(runner);
    return runner;
  }

  #put(runner) {
    if (runner.usable) this.#idle.push(runner);
    else this.#all.delete(runner);
  }
}
