// How an attempt ended, as it is told to the server.

import { create } from "@bufbuild/protobuf";
import { Close_SuccessSchema } from "../../build/stubs/colonies/scheduler/v1/scheduler_service_pb.js";

const MAX_ERROR_CHARACTERS = 8_192;

/** A failure in one text, or several. */
export function failure(errors, retryable = false) {
  return { errors: [errors].flat().map((text) => String(text).toWellFormed().slice(0, MAX_ERROR_CHARACTERS)), retryable };
}

/** The `outcome` of a Close for what a runner answered. */
export function outcomeOf(answer) {
  if (answer.failure) return { case: "failure", value: failure(answer.failure.errors, answer.failure.retryable) };
  return { case: "success", value: create(Close_SuccessSchema, { outputs: answer.outputs }) };
}

/** What stands in for a result that cannot be sent, or that the server does not take. */
export const refused = (why) => ({ case: "failure", value: failure(`its result was refused: ${why}`) });
