// How an attempt ended, as it is told to the server.

import { create, toBinary } from "@bufbuild/protobuf";
import { Close_SuccessSchema } from "../../build/stubs/colonies/scheduler/v1/scheduler_service_pb.js";

const MAX_ERROR_CHARACTERS = 8_192;
const MAX_OUTPUT_BYTES = 4 << 20;

/** A failure in one text, or several. */
export function failure(errors, retryable = false) {
  return { errors: [errors].flat().map((text) => String(text).toWellFormed().slice(0, MAX_ERROR_CHARACTERS)), retryable };
}

/** The `outcome` of a Close for what a runner answered. */
export function outcomeOf(answer) {
  if (answer.failure) return { case: "failure", value: failure(answer.failure.errors, answer.failure.retryable) };
  const success = create(Close_SuccessSchema, { outputs: answer.outputs });
  const size = toBinary(Close_SuccessSchema, success).length;
  if (size > MAX_OUTPUT_BYTES) return refused(`it has ${size} bytes, and at most ${MAX_OUTPUT_BYTES} can be sent`);
  return { case: "success", value: success };
}

/** What stands in for a result that cannot be sent, or that the server does not take. */
export const refused = (why) => ({ case: "failure", value: failure(`its result was refused: ${why}`) });
