// What goes wrong, and how a failed call becomes an error of this package.

import { fromBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { status, type ServiceError } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "#protos/status/v1/status";

const TYPE_URL_PREFIX = "type.googleapis.com/google.rpc.";

/** The settings for reaching a server are missing or make no sense. */
export class SettingsError extends Error {
  override name = "SettingsError";
}

/** A private key could not be read. */
export class KeyFileError extends Error {
  override name = "KeyFileError";
}

/** A value could not be turned into bytes, or bytes into a value. */
export class ValueEncodingError extends Error {
  override name = "ValueEncodingError";
}

/** Throw this in an executor's function when it cannot do what it should: its message is what the submitter reads. */
export class Failure extends Error {
  override name = "Failure";
  /** Trying again may help: the process goes back to the queue, if its `maxRetries` allows. */
  readonly retryable: boolean;

  constructor(message: string, options: ErrorOptions & { retryable?: boolean } = {}) {
    super(message, options);
    this.retryable = options.retryable ?? false;
  }
}

/** A field of the request that broke its bound. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** What the server says about a failed call. */
export interface RpcErrorDetails {
  reason?: string;
  metadata?: Record<string, string>;
  fields?: FieldViolation[];
  retryDelayMs?: number;
}

/** A call failed. */
export class RpcError extends Error {
  override name = "RpcError";
  /** The gRPC status, such as "NOT_FOUND". */
  readonly code: string;
  /** Why, for programs: a constant such as "ATTEMPT_SUPERSEDED"; empty if nobody said. */
  readonly reason: string;
  /** What goes with the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields of a bad request. */
  readonly fields: readonly FieldViolation[];
  /** When the server asks to be called again. */
  readonly retryDelayMs: number | undefined;

  constructor(code: string, message: string, details: RpcErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.fields = details.fields ?? [];
    this.retryDelayMs = details.retryDelayMs;
  }

  /** The server is out of reach, or went away with the answer: nothing was refused. */
  get isOutage(): boolean {
    if (["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"].includes(this.code)) return true;
    // A reset of the HTTP/2 stream under a call, which only its text tells from a real fault.
    return this.code === "INTERNAL" && this.message.includes("RST_STREAM");
  }

  /** The server asks to call less often: the same call gets through later. */
  get isPace(): boolean {
    return this.reason === "RATE_LIMITED" || this.reason === "TOO_MANY_STREAMS";
  }
}

/** The error for a call that gRPC says has failed, with the typed details that the server sent. */
export function rpcErrorOf(error: ServiceError): RpcError {
  const code = status[error.code] ?? "UNKNOWN";
  const [trailer] = error.metadata?.get("grpc-status-details-bin") ?? [];
  // Without gRPC's own error as its cause: that says nothing more, on two screens.
  return new RpcError(code, error.details || code, Buffer.isBuffer(trailer) ? detailsOf(trailer) : {});
}

function detailsOf(trailer: Uint8Array): RpcErrorDetails {
  try {
    const { details } = fromBinary(StatusSchema, trailer);
    const find = <S extends DescMessage>(schema: S): MessageShape<S> | undefined => {
      const found = details.find((each) => each.typeUrl === TYPE_URL_PREFIX + schema.name);
      return found && fromBinary(schema, found.value);
    };
    const [info, bad, retry] = [find(ErrorInfoSchema), find(BadRequestSchema), find(RetryInfoSchema)];
    return {
      ...(info && { reason: info.reason, metadata: { ...info.metadata } }),
      ...(bad && { fields: bad.fieldViolations.map(({ field, description }) => ({ field, description })) }),
      ...(retry?.retryDelay && { retryDelayMs: durationMs(retry.retryDelay) }),
    };
  } catch {
    return {}; // Details that are not ours add nothing: code and message still say what happened.
  }
}
