// Closing attempts: each result is sent until the server has it, or says that it is not wanted.

import { failureOf } from "../failures.mjs";
import { refused } from "./outcomes.mjs";
import { Backoff } from "./waiting.mjs";

/** Gives the outcome that the server took, which need not be the one that was sent first; null if it wants none, or as soon as the
 * signal is aborted. */
export async function close(client, colony, held, outcome, bell) {
  const backoff = new Backoff();
  let replaced = false;
  while (!held.signal.aborted) {
    try {
      await client.scheduler.closeProcesses({ colonyName: colony, closes: [{ attempt: held.ref, outcome }] }, { signal: held.signal });
      return outcome;
    } catch (error) {
      const failed = failureOf(error);
      if (isNotWanted(failed)) return null;
      if (isAboutResult(failed)) {
        if (replaced) return null;
        replaced = true;
        outcome = refused(failed.message);
        continue;
      }
      // Not about the result: an outage, a rate, this executor is kept out for a while. The result stays in hand.
      await bell.sleep(backoff.nextMs(failed.retryDelayMs), held.signal);
    }
  }
  return null;
}

const isNotWanted = ({ code, reason }) => code === "NOT_FOUND" || (code === "FAILED_PRECONDITION" && reason === "ATTEMPT_SUPERSEDED");

/** The services say why; without a reason it is gRPC itself, or a proxy, and the message is too large for it. */
const isAboutResult = ({ code, reason }) => code === "INVALID_ARGUMENT" || (code === "RESOURCE_EXHAUSTED" && !reason);
