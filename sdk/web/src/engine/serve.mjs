// The engine's side of the messages between an Executor and its worker.

import { Client } from "../client.mjs";
import { Key } from "../keys.mjs";
import { Engine } from "./engine.mjs";

/** The name of the worker. */
export const ENGINE = "colonies-engine";

// Signs of life come every few seconds: who looks at the page need not wait for the long bound.
const LOOKED_AT_SILENCE_MS = 12_000;

/** Works as an executor's engine: first comes `start`, then what happens to the page. */
export function serve(scope) {
  const tell = (event) => scope.postMessage(event);
  const fail = ({ message, code, reason, metadata, violations }) =>
    tell({ event: "stopped", error: { message, details: { code, reason, metadata, violations } } });
  let engine;
  scope.addEventListener("unhandledrejection", ({ reason }) => fail(reason instanceof Error ? reason : new Error(String(reason))));
  scope.addEventListener("message", ({ data }) => {
    if (data.do === "stop") engine.stop();
    else if (data.do === "look") engine.look(LOOKED_AT_SILENCE_MS);
    else if (data.do === "nudge") engine.nudge(data.isOnline);
    else {
      const { server, cluster, key } = data.start;
      const client = new Client({ server, cluster, key: new Key(key.privateKey, key.publicKey) });
      engine = new Engine(client, data.start, tell);
      engine.run().then(() => tell({ event: "stopped" }), fail);
    }
  });
}
