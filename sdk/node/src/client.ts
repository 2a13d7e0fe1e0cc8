// A signed connection to a server: the stubs' methods, each call serialised once, signed, and sent as those very bytes.

import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client as Channel, Metadata, credentials, type ChannelCredentials, type ServiceError } from "@grpc/grpc-js";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { AuthService } from "#protos/auth/v1/auth_service";
import { CronService } from "#protos/cron/v1/cron_service";
import { GeneratorService } from "#protos/cron/v1/generator_service";
import { RegistryService } from "#protos/registry/v1/registry_service";
import type { Process } from "#protos/scheduler/v1/process";
import { SchedulerService, type WatchProcessesRequest, type WorkflowResult } from "#protos/scheduler/v1/scheduler_service";
import { signCall, type PrivateKey } from "../signing.mjs";
import { RpcError, SettingsError, rpcErrorOf } from "./errors.js";
import { Backoff, retrying } from "./retrying.js";
import { keyOf, serverOf, type Server, type Settings } from "./settings.js";

const CALL_MS = 30_000;
// All streams send signs of life. One that is silent for this long is taken for dead.
const SILENCE_MS = 90_000;
const MAX_MESSAGE_BYTES = 64 << 20;
const NONCE_BYTES = 16;
const NONCE_PREFIX = /^[0-9a-f]{16}$/;
// A service that loses its memory of nonces again and again is a fault that should be seen.
const MAX_REPEATS = 3;

const CHANNEL_OPTIONS = {
  "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
  "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // After an outage, look again soon, and not after gRPC's two minutes.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.min_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
  // A call that is made again must be signed again.
  "grpc.enable_retries": 0,
};

export interface CallOptions {
  /** Default 30 s; streams have no end of their own. */
  timeoutMs?: number;
  /** An abort ends the call with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A service's methods: requests are plain objects with the fields of the message. */
export type Stub<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncGenerator<MessageShape<O>, void>
      : never;
};

type Target = Exclude<WatchProcessesRequest["target"], { case: undefined }>;

/** A connection to one server on behalf of one key. Nothing is connected before the first call. */
export class Client {
  readonly server: Readonly<Server>;
  readonly auth: Stub<typeof AuthService>;
  readonly registry: Stub<typeof RegistryService>;
  readonly scheduler: Stub<typeof SchedulerService>;
  readonly cron: Stub<typeof CronService>;
  readonly generator: Stub<typeof GeneratorService>;
  /** Who signs; may be set to another key at any time. */
  key: PrivateKey;
  readonly #channel: Channel;
  #noncePrefix = "";

  constructor(settings: Settings = {}) {
    this.server = serverOf(settings);
    this.key = keyOf(settings, this.server);
    this.#channel = new Channel(addressOf(this.server), credentialsOf(this.server), CHANNEL_OPTIONS);
    this.auth = this.#stub(AuthService);
    this.registry = this.#stub(RegistryService);
    this.scheduler = this.#stub(SchedulerService);
    this.cron = this.#stub(CronService);
    this.generator = this.#stub(GeneratorService);
  }

  /** The colony of the settings, for the `colonyName` of requests. */
  get colony(): string {
    return this.server.colony;
  }

  /** Ends the connection; calls under way fail. */
  close(): void {
    this.#channel.close();
  }

  /** Makes a unary call, of any service. Throws RpcError. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    const path = pathOf(method);
    const body = toBinary(method.input, create(method.input, request));
    const deadline = Date.now() + (options.timeoutMs ?? CALL_MS);
    for (let left = MAX_REPEATS; ; left--) {
      try {
        return await this.#send(path, body, (bytes) => fromBinary(method.output, bytes), deadline, options.signal);
      } catch (error) {
        if (left === 0 || !this.#takesPrefix(error)) throw error;
      }
    }
  }

  /** Opens a server stream, of any service. Throws RpcError. It ends when the server ends it, or when the loop over it is left. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void> {
    const path = pathOf(method);
    const body = toBinary(method.input, create(method.input, request));
    for (let left = MAX_REPEATS; ; left--) {
      try {
        return yield* this.#read(path, body, (bytes) => fromBinary(method.output, bytes), options);
      } catch (error) {
        // It is refused before its first message or not at all, so that nothing comes twice.
        if (left === 0 || !this.#takesPrefix(error)) throw error;
      }
    }
  }

  /** Waits until a process has ended, however it ended, and through outages; returns it whole. */
  async waitForProcess(processId: string, signal?: AbortSignal): Promise<Process> {
    await this.#ended({ case: "processId", value: processId }, signal);
    const request = { colonyName: this.colony, processId };
    const { process } = await retrying(() => this.scheduler.getProcess(request, { signal }), signal && { signal });
    return process!;
  }

  /** Waits until all processes of a workflow have ended; returns its state and the outputs of those without children. */
  async waitForWorkflow(workflowId: string, signal?: AbortSignal): Promise<WorkflowResult> {
    await this.#ended({ case: "workflowId", value: workflowId }, signal);
    const request = { colonyName: this.colony, workflowIds: [workflowId], withOutputs: true };
    const { results } = await retrying(() => this.scheduler.getWorkflowResults(request, { signal }), signal && { signal });
    if (!results[0]) throw new RpcError("NOT_FOUND", `workflow ${workflowId} was removed`);
    return results[0];
  }

  async #ended(target: Target, signal?: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    for (let cursor = ""; ; ) {
      try {
        for await (const seen of this.scheduler.watchProcesses({ colonyName: this.colony, target, cursor }, { signal })) {
          backoff.reset();
          cursor = seen.events.at(-1)?.cursor || seen.cursor || cursor;
        }
        return;
      } catch (error) {
        if (!(error instanceof RpcError) || !(error.isOutage || error.isPace)) throw error;
        await backoff.wait(error.retryDelayMs, signal);
      }
    }
  }

  #stub<S extends DescService>(service: S): Stub<S> {
    const methods = service.methods.map((method) => {
      const call =
        method.methodKind === "unary"
          ? (request: Record<string, unknown>, options?: CallOptions) => this.unary(method as DescMethodUnary, request, options)
          : (request: Record<string, unknown>, options?: CallOptions) =>
              this.stream(method as DescMethodServerStreaming, request, options);
      return [method.localName, call];
    });
    return Object.fromEntries(methods);
  }

  #metadata(method: string, body: Uint8Array): Metadata {
    const nonce = this.#noncePrefix + randomBytes(NONCE_BYTES - this.#noncePrefix.length / 2).toString("hex");
    const metadata = new Metadata();
    for (const [name, value] of signCall(this.key, { method, audience: this.server.cluster, body, nonce }).metadata) {
      metadata.set(name, value);
    }
    return metadata;
  }

  /** Whether a call was refused for want of a prefix in its nonce, which all nonces get from now on. */
  #takesPrefix(error: unknown): boolean {
    if (!(error instanceof RpcError) || error.reason !== "NONCE_PREFIX_REQUIRED") return false;
    const prefix = error.metadata.nonce_prefix ?? "";
    if (!NONCE_PREFIX.test(prefix)) return false;
    this.#noncePrefix = prefix;
    return true;
  }

  #send<T>(path: string, body: Uint8Array, decode: (bytes: Buffer) => T, deadline: number, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const cancel = () => call.cancel();
      const ended = (error: ServiceError | null, response?: T) => {
        signal?.removeEventListener("abort", cancel);
        if (error) reject(signal?.aborted ? signal.reason : rpcErrorOf(error));
        else resolve(response!);
      };
      const metadata = this.#metadata(path, body);
      const call = this.#channel.makeUnaryRequest(path, asItIs, decode, asBuffer(body), metadata, { deadline }, ended);
      signal?.addEventListener("abort", cancel);
    });
  }

  async *#read<T>(
    path: string,
    body: Uint8Array,
    decode: (bytes: Buffer) => T,
    { timeoutMs, signal }: CallOptions,
  ): AsyncGenerator<T, void> {
    signal?.throwIfAborted();
    const deadline = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
    const metadata = this.#metadata(path, body);
    const call = this.#channel.makeServerStreamRequest(path, asItIs, decode, asBuffer(body), metadata, deadline);
    call.on("error", () => {}); // The loop below throws it; what comes of its own cancel is of no interest.
    let silent = false;
    const cancel = () => call.cancel();
    const silence = setTimeout(() => {
      silent = true;
      cancel();
    }, SILENCE_MS);
    signal?.addEventListener("abort", cancel);
    try {
      for await (const message of call) {
        silence.refresh();
        yield message as T;
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (silent) throw new RpcError("UNAVAILABLE", `${path}: no sign of life for ${SILENCE_MS / 1000} s`);
      throw rpcErrorOf(error as ServiceError);
    } finally {
      clearTimeout(silence);
      signal?.removeEventListener("abort", cancel);
      cancel();
    }
  }
}

const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;
const asItIs = (bytes: Buffer): Buffer => bytes;
const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function addressOf({ host, port }: Server): string {
  const bare = host.replace(/^\[|\]$/g, "");
  return `${bare.includes(":") ? `[${bare}]` : bare}:${port}`;
}

function credentialsOf({ tls, caFile, certFile, certKeyFile }: Server): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  return credentials.createSsl(pemOf(caFile), pemOf(certKeyFile), pemOf(certFile));
}

function pemOf(path: string): Buffer | null {
  if (!path) return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new SettingsError(`cannot read a file for TLS: ${(error as Error).message}`, { cause: error });
  }
}
