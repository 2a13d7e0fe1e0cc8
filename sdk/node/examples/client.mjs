// Submits a process and then a small workflow, and waits for their results: node examples/client.mjs
// Needs an executor with the functions of examples/executor.mjs.

import { randomUUID } from "node:crypto";
import { Client, ProcessState, decode, encode, retrying } from "colonies";

const client = new Client();
const colonyName = client.colony;
const conditions = { executorType: "edge" };

// The same request id with every try: whatever happens to the answer, it is submitted once.
const process = { colonyName, requestId: randomUUID(), specs: [{ funcName: "square", args: [encode(12)], conditions }] };
const { processIds } = await retrying(() => client.scheduler.submitProcesses(process));
const ended = await client.waitForProcess(processIds[0]);
if (ended.state === ProcessState.SUCCESSFUL) console.log("12 squared is", ...ended.outputs.map(decode));
else console.log("no result:", ...ended.errors);

// 17 / 5 gives two outputs; each of the two squares gets its own, and the last node both squares.
const output = (nodeName, index) => ({ nodeName, selector: { case: "index", value: { index } } });
const node = (nodeName, funcName, dependencies, args = []) => ({
  nodeName,
  funcName,
  args: args.map(encode),
  conditions: { ...conditions, dependencies },
});
const workflow = {
  label: "node-example",
  nodes: [
    node("division", "divide", [], [17, 5]),
    node("left", "square", [output("division", 0)]),
    node("right", "square", [output("division", 1)]),
    node("last", "divide", [{ nodeName: "left" }, { nodeName: "right" }]),
  ],
};
const request = { colonyName, requestId: randomUUID(), workflow };
const { workflowId } = await retrying(() => client.scheduler.submitWorkflow(request));
const { state, outputs } = await client.waitForWorkflow(workflowId);
console.log("workflow:", ProcessState[state]);
for (const { nodeName, outputs: values } of outputs) console.log(nodeName, "gave", ...values.map(decode));

client.close();
