// An executor with three functions: node examples/executor.mjs

import { setTimeout as sleep } from "node:timers/promises";
import { Executor, Failure, Outputs } from "colonies";

const executor = new Executor("node-example", { types: ["edge"], concurrency: 4 });

executor.function("square", ([x]) => x * x, {
  description: "Squares a number.",
  arguments: [{ name: "x", type: "number", required: true }],
});

// Several outputs: in a workflow, each child can get its own.
executor.function("divide", ([dividend, divisor]) => {
  if (divisor === 0) throw new Failure("cannot divide by zero");
  return new Outputs(Math.trunc(dividend / divisor), dividend % divisor);
});

// Slow work says how far it is, and stops when nobody wants its result any more.
executor.function("count", async ([to], { log, signal }) => {
  for (let number = 1; number <= to; number++) {
    log(`${number} of ${to}`);
    await sleep(1000, undefined, { signal });
  }
  return to;
});

await executor.run();
