// How an attempt ended, as it is told to the server.

import { create } from "@bufbuild/protobuf";
import { Close_SuccessSchema } from "../../build/stubs/colonies/scheduler/v1/scheduler_service_pb.js";

const MAX_CHARACTERS = 8_192;
// A server takes no larger call. It says so and breaks the connection off while a browser still sends, which then hears of no answer,
// and could only send it all again. What is smaller, and too large as well, the server refuses in words.
const MAX_CALL_BYTES = 32 * 1024 * 1024;

/** A text as the server takes it: not too long, no half characters (a cut makes one), and no NUL, which Postgres cannot store. */
export const storable = (text) => text.slice(0, MAX_CHARACTERS).toWellFormed().replaceAll("\0", "\ufffd");

/** A failure in one text, or several. */
export function failure(errors, retryable = false) {
  return { errors: [errors].flat().map((text) => storable(String(text))), retryable };
}

/** The `outcome` of a Close for what a runner answered. */
export function outcomeOf(answer) {
  if (answer.failure) return { case: "failure", value: failure(answer.failure.errors, answer.failure.retryable) };
  const bytes = answer.outputs.reduce((total, { data }) => total + data.length, 0);
  if (bytes > MAX_CALL_BYTES) return refused(`it has ${bytes} bytes, and a call must be at most ${MAX_CALL_BYTES}`);
  return { case: "success", value: create(Close_SuccessSchema, { outputs: answer.outputs }) };
}

/** What stands in for a result that cannot be sent, or that the server does not take. */
export const refused = (why) => ({ case: "failure", value: failure(`its result was refused: ${why}`) });
