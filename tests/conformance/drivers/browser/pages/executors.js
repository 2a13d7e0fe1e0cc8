// Executors of the driver. Their functions (functions.js) run in workers, and are heard of by a channel.

import { Executor } from "/sdk/web/colonies.mjs";

const STATES = { offline: "reconnecting" };

/** Starts an executor; `tell` is given its events. */
export function startExecutor(settings, command, tell, errorOf) {
  const { executor: label, name, types, concurrency, labels } = command;
  const channel = new BroadcastChannel(`executor ${label}`);
  const functions = new URL(`/functions.js?executor=${encodeURIComponent(label)}`, location.href);
  const executor = new Executor({ ...settings, name, types, concurrency, labels, functions });
  // Which attempt holds which token.
  const held = new Map();
  channel.onmessage = async ({ data: { event, id } }) => {
    if (event.event === "started") held.set(event.token, `${event.process_id}/${event.attempt}`);
    await tell({ executor: label, ...event });
    channel.postMessage({ written: id });
  };
  executor.addEventListener("state", ({ detail: { state } }) => {
    if (state !== "stopped") tell({ event: "state", executor: label, state: STATES[state] ?? state });
  });
  executor.addEventListener("dropped", ({ detail: { processId, attempt, reason } }) => {
    for (const [token, holder] of held) if (holder === `${processId}/${attempt}`) held.delete(token);
    tell({ event: "dropped", executor: label, process_id: processId, attempt, reason });
  });
  executor.addEventListener("warning", ({ detail: { text } }) => console.warn(text));

  const stopped = (values) => {
    channel.close();
    tell({ event: "stopped", executor: label, ...values });
  };
  executor.run().then(
    () => stopped({}),
    (error) => stopped({ error: errorOf(error) }),
  );
  return {
    stop: () => executor.stop(),
    /** False if nothing holds the token. */
    release({ token, outputs }) {
      if (!held.delete(token)) return false;
      channel.postMessage({ release: { token, outputs } });
      return true;
    },
  };
}
