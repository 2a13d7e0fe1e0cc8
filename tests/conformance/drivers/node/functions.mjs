// The executor of the driver, with the functions that every language has.

import { Executor, Failure, Outputs, parseJson, toJson } from "../../../../sdk/node/build/src/index.js";
import { LANGUAGE } from "./answers.mjs";

/** Starts an executor; `emit` is given its events. */
export function startExecutor(settings, command, emit, errorOf) {
  const { executor: label, name, types, concurrency, labels } = command;
  const tell = (event, values) => emit({ event, executor: label, ...values });
  const executor = new Executor(name, { ...settings, types, concurrency, labels: { language: LANGUAGE, ...labels } });
  executor.on("state", (state) => tell("state", { state }));
  executor.on("dropped", ({ processId, attempt, reason }) => tell("dropped", { process_id: processId, attempt, reason }));

  // By token: what lets the function that holds it return.
  const held = new Map();
  const outputs = (values) => new Outputs(...values);
  executor
    .function("echo", (args, { kwargs }) => outputs(Object.keys(kwargs).length ? [...args, kwargs] : args))
    .function("add", sum)
    .function("fail", ([text]) => {
      throw new Failure(text);
    })
    .function("fail_retryable", ([text]) => {
      throw new Failure(text, { retryable: true });
    })
    .function("crash", ([text]) => {
      throw new TypeError(text);
    })
    .function("nothing", () => new Outputs())
    .function("hold", async (args, { processId, attempt, signal }) => {
      const [token, ...rest] = args;
      try {
        const released = await new Promise((resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          held.set(token, resolve);
          tell("started", { process_id: processId, attempt, function: "hold", token, args: args.map(toJson) });
        });
        return outputs(released ?? rest);
      } finally {
        held.delete(token);
      }
    })
    .function("effect", ([text, ...rest], { processId, attempt }) => {
      tell("effect", { process_id: processId, attempt, text });
      return outputs(rest);
    });

  executor.run().then(
    () => tell("stopped", {}),
    (error) => tell("stopped", { error: errorOf(error) }),
  );
  return {
    stop: () => executor.stop(),
    /** False if nothing holds the token. */
    release({ token, outputs: texts }) {
      const resolve = held.get(token);
      resolve?.(texts?.map(parseJson));
      return resolve !== undefined;
    },
  };
}

// A BigInt and a number do not add up: the sum is a BigInt if all are whole.
function sum(numbers) {
  if (!numbers.some((each) => typeof each === "bigint")) return numbers.reduce((a, b) => a + b, 0);
  return numbers.every((each) => typeof each === "bigint" || Number.isInteger(each))
    ? numbers.reduce((a, b) => a + BigInt(b), 0n)
    : numbers.reduce((a, b) => a + Number(b), 0);
}
