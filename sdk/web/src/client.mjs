// The stubs, with every call signed over the very bytes that are sent.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { AuthService } from "../build/stubs/colonies/auth/v1/auth_service_pb.js";
import { CronService } from "../build/stubs/colonies/cron/v1/cron_service_pb.js";
import { GeneratorService } from "../build/stubs/colonies/cron/v1/generator_service_pb.js";
import { RegistryService } from "../build/stubs/colonies/registry/v1/registry_service_pb.js";
import { SchedulerService } from "../build/stubs/colonies/scheduler/v1/scheduler_service_pb.js";
import { failureOf } from "./failures.mjs";
import { newNonce, signCall } from "./signing.mjs";

const CALL_MS = 30_000;
// gRPC-Web's: one byte of flags, four of length.
const FRAME_BYTES = 5;
const CONTENT_TYPE = "application/grpc-web";
const TOO_LARGE = 413;
const PREFIX = /^[0-9a-f]{16}$/;
// A service that loses its memory of nonces again and again is a fault that should be seen.
const MAX_REPEATS = 3;

export const SERVICES = {
  auth: AuthService,
  registry: RegistryService,
  scheduler: SchedulerService,
  cron: CronService,
  generator: GeneratorService,
};

/**
 * A signed connection to one server on behalf of one key.
 *
 *     const client = new Client({ server: "https://colonies.example:50080", cluster: "prod", key });
 *     const { process } = await client.scheduler.getProcess({ colonyName: "dev", processId });
 *
 * `auth`, `registry`, `scheduler`, `cron` and `generator` are the stubs: a method for every RPC, whose request is an object with
 * the message's fields, and which gives the response, or for a stream an async iterable of responses. A call that fails throws an
 * RpcError, and is not repeated. Options go to any method as its second argument: `{ signal, timeoutMs }`.
 */
export class Client {
  #audience;
  #isGiven;
  #isDoubtful = false;
  #nonces = "";

  /**
   * @param {object} settings
   * @param {Key} settings.key who signs
   * @param {string} [settings.server] origin of the front door; default: where this page came from
   * @param {string} [settings.cluster] the server's cluster id; default: what the server says
   */
  constructor({ key, server = location.origin, cluster }) {
    this.key = key;
    this.server = new URL(server).origin;
    this.#audience = cluster;
    this.#isGiven = Boolean(cluster);
    const transport = createGrpcWebTransport({
      baseUrl: this.server,
      fetch: (url, init) => this.#send(url, init),
      interceptors: [(next) => (request) => this.#repeated(next, request)],
      defaultTimeoutMs: CALL_MS,
    });
    for (const [name, service] of Object.entries(SERVICES)) this[name] = plain(createClient(service, transport), service);
  }

  /** The cluster id: what signatures are for. */
  async cluster() {
    if (this.#audience && !this.#isDoubtful) return this.#audience;
    try {
      this.#audience = await clusterOf(this.server);
    } catch (error) {
      // It has said it before, so this is no reason to give up.
      throw this.#isDoubtful ? new ConnectError(error.message, Code.Unavailable, undefined, undefined, error) : error;
    }
    this.#isDoubtful = false;
    return this.#audience;
  }

  async #send(url, init) {
    const body = init.body.subarray(FRAME_BYTES);
    const method = new URL(url).pathname;
    const audience = await this.cluster();
    const { metadata } = await signCall(this.key, { method, audience, body, nonce: newNonce(this.#nonces) });
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(metadata)) headers.set(name, value);
    // No cookies: the signature is all that says who calls. Nothing about caches: answers to POST come from none, and with "no-store"
    // browsers would also forget what other origins are allowed, and ask for it before every call.
    const response = await fetch(url, { ...init, headers, credentials: "omit", redirect: "error" });
    if (response.headers.get("content-type")?.startsWith(CONTENT_TYPE)) return response;
    // A page of a proxy, above all; what its status would mean to gRPC is not what the server says.
    const code = response.status === TOO_LARGE ? Code.ResourceExhausted : Code.Unavailable;
    throw new ConnectError(`HTTP ${response.status} from ${this.server}, and not as a Colonies server answers`, code);
  }

  /** Makes a call, and makes it again at once while it is refused for its nonce: whoever made it does not notice. */
  async #repeated(next, request) {
    const message = request.stream ? await only(request.message) : request.message;
    const again = () => next({ ...request, message: request.stream ? once(message) : message });
    for (let left = MAX_REPEATS; ; left--) {
      try {
        const response = await again();
        return response.stream ? { ...response, message: this.#restarted(response.message, again, left) } : response;
      } catch (error) {
        if (!left || !this.#takesPrefix(error)) throw error;
      }
    }
  }

  /** A stream is refused before its first message or not at all, so nothing comes twice. */
  async *#restarted(messages, again, left) {
    for (; ; left--) {
      try {
        yield* messages;
        return;
      } catch (error) {
        if (!left || !this.#takesPrefix(error)) throw error;
        messages = (await again()).message;
      }
    }
  }

  #takesPrefix(error) {
    const { code, reason, metadata } = failureOf(error);
    if (reason === "SIGNATURE_REPLAYED") {
      // Browsers send a request again by themselves when its connection breaks. The nonce was new: the answer to the first is lost.
      throw new ConnectError("no answer: the connection broke while the call was made", Code.Unavailable, undefined, undefined, error);
    }
    // It may be another server by now, with another id: the next call asks.
    if (reason === "SIGNATURE_INVALID") this.#isDoubtful = !this.#isGiven;
    if (code !== "UNAUTHENTICATED" || reason !== "NONCE_PREFIX_REQUIRED" || !PREFIX.test(metadata.nonce_prefix)) return false;
    this.#nonces = metadata.nonce_prefix;
    return true;
  }
}

/** The cluster id that a front door's gateway names. Whoever names a wrong one gets signatures that are good for nothing here. */
export async function clusterOf(server) {
  let response;
  try {
    response = await fetch(new URL("/config.json", server), { cache: "no-store", credentials: "omit" });
  } catch (error) {
    throw failureOf(error);
  }
  if (response.status >= 500) throw failureOf(new TypeError(`HTTP ${response.status} from ${server}`));
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const { cluster } = response.ok && isJson ? await response.json() : {};
  if (cluster) return cluster;
  const said = `HTTP ${response.status}${isJson ? "" : ", which is no JSON"}`;
  throw new Error(`${server} does not say its cluster id (${said}): is it a Colonies server? If it is, give the id as \`cluster\``);
}

/** The stubs with RpcErrors for Connect's. */
function plain(stub, service) {
  const made = {};
  for (const { localName, methodKind } of service.methods) {
    made[localName] =
      methodKind === "unary"
        ? async (request, options) => {
            try {
              return await stub[localName](request, options);
            } catch (error) {
              throw failureOf(error);
            }
          }
        : async function* (request, options) {
            try {
              // A stream has no end to be there by.
              yield* stub[localName](request, { timeoutMs: 0, ...options });
            } catch (error) {
              throw failureOf(error);
            }
          };
  }
  return made;
}

async function* once(message) {
  yield message;
}

async function only(messages) {
  for await (const message of messages) return message;
  throw new Error("a call without a request");
}
