// What a failed call says.

import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../build/stubs/colonies/status/v1/status_pb.js";

const OUTAGES = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"];

function detail(error, schema) {
  // They are sent under google.rpc's names (protos/colonies/status/v1).
  const found = error.details.find((each) => each.type === `google.rpc.${schema.typeName.split(".").pop()}`);
  return found && fromBinary(schema, found.value);
}

/** CANCELLED, INVALID_ARGUMENT, ...: the name of a status code as everybody but Connect writes it. */
const nameOf = (code) => (code === Code.Canceled ? "CANCELLED" : Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase());

/** A call that failed: `code` is the gRPC status by name, `reason` a constant for programs, `metadata` goes with it; `violations`
 * are the fields of a bad request; `retryDelayMs` says when to try again, if the server said so. */
export class RpcError extends Error {
  name = "RpcError";

  constructor(error) {
    super(error.rawMessage, { cause: error });
    const info = detail(error, ErrorInfoSchema);
    this.code = nameOf(error.code);
    this.reason = info?.reason ?? "";
    this.metadata = { ...info?.metadata };
    this.violations = (detail(error, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({ field, description }));
    const delay = detail(error, RetryInfoSchema)?.retryDelay;
    this.retryDelayMs = delay ? Number(delay.seconds) * 1000 + delay.nanos / 1e6 : undefined;
  }

  /** Whether the server is out of reach, and has not refused. */
  get isOutage() {
    return OUTAGES.includes(this.code);
  }
}

/** The error for a call that failed: an RpcError, or what kept the call from being made. */
export function failureOf(error) {
  if (error instanceof RpcError) return error;
  const failed = ConnectError.from(error);
  if (failed.code !== Code.Unknown) return new RpcError(failed);
  // fetch throws a TypeError when there is no answer, and Connect a text when one breaks off.
  if (failed.cause instanceof Error && !(failed.cause instanceof TypeError)) return failed.cause;
  return new RpcError(new ConnectError(`no answer: ${failed.rawMessage}`, Code.Unavailable, failed.metadata, undefined, failed));
}
