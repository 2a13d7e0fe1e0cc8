// What the commands ask for, done with the browser SDK. `emit` is given by driver.py, which calls `take`.

import * as sdk from "/sdk/web/colonies.mjs";
import { startExecutor } from "/executors.js";
import { bytes, hex, parsed, written } from "/text.js";

const methods = new Map(
  Object.entries(sdk.SERVICES).flatMap(([stub, service]) =>
    service.methods.map((method) => [`/${service.typeName}/${method.name}`, { stub, method }]),
  ),
);
const streams = new Map();
const executors = new Map();
let connection;

/** The command was not done, and no call was made for it. */
class NotDone extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// What the SDK itself refuses. Anything else that is thrown is a fault, of it or of this driver.
const REFUSALS = [sdk.NotSignableError, sdk.KeyError, sdk.ValueError, RangeError];

const tell = (message) => globalThis.emit(JSON.stringify(message));

function errorOf(error) {
  const { code, reason = "", message, metadata = {}, violations: fields = [] } = error;
  if (error instanceof sdk.RpcError || (error instanceof sdk.ExecutorError && code)) return { code, reason, message, metadata, fields };
  if (error instanceof NotDone) return { code, message };
  if (REFUSALS.some((refusal) => error instanceof refusal)) return { code: "REFUSED", message };
  console.error(error.stack ?? error);
  return { code: "DRIVER_FAILED", message: String(error) };
}

function connected() {
  if (!connection) throw new NotDone("REFUSED", "not connected");
  return connection;
}

/** The method of this name on the connection's stub, and its request. */
function prepared({ method: path, request }) {
  const found = methods.get(path);
  if (!found) throw new NotDone("REFUSED", `there is no method ${path}`);
  const { stub, method } = found;
  const called = connected().client[stub][method.localName];
  return { method, make: (options) => called(sdk.fromJson(method.input, request), options) };
}

const keyOf = ({ seed }) => sdk.Key.fromSeed(bytes(seed));

async function follow({ method, make }, name, signal) {
  const end = { event: "end", stream: name };
  try {
    for await (const message of make({ signal })) {
      tell({ event: "message", stream: name, message: sdk.toJson(method.output, message) });
    }
  } catch (error) {
    if (!signal.aborted) end.error = errorOf(error);
  }
  tell(end);
}

const commands = {
  hello() {
    const { userAgent } = navigator;
    return { language: "browser", version: /Chrome\/([0-9.]+)/.exec(userAgent)?.[1] ?? userAgent, user_agent: userAgent };
  },

  async identity(command) {
    const { publicKey, identity } = await keyOf(command);
    return { public_key: hex(publicKey), identity };
  },

  async sign_call(command) {
    const { method, audience, body, body_times: times = 1, time_ms: timeMs, nonce } = command;
    return sdk.signCall(await keyOf(command), { method, audience, body: bytes(body.repeat(times)), timeMs, nonce });
  },

  async prove_join(command) {
    const { audience, colony, role, name, time_ms: timeMs } = command;
    return { signature: hex((await sdk.proveJoin(await keyOf(command), { audience, colony, role, name, timeMs })).signature) };
  },

  async prove_rotation(command) {
    const { audience, colony, old_key: oldKey, time_ms: timeMs } = command;
    return { signature: hex((await sdk.proveRotation(await keyOf(command), { audience, colony, oldKey, timeMs })).signature) };
  },

  encode(command) {
    const { mediaType, data } = sdk.encode("bytes" in command ? bytes(command.bytes) : parsed(command.json));
    return { media_type: mediaType, data: hex(data) };
  },

  decode({ media_type: mediaType, data }) {
    const value = sdk.decode({ mediaType, data: bytes(data) });
    if (value instanceof sdk.Media) return { media_type: value.mediaType, bytes: hex(value.data) };
    return value instanceof Uint8Array ? { bytes: hex(value) } : { json: written(value) };
  },

  async connect(command) {
    const { address, cluster, colony, ca_file: authority } = command;
    const server = `${authority ? "https" : "http"}://${address}`;
    const key = await keyOf(command);
    connection = { client: new sdk.Client({ server, cluster, key }), settings: { server, cluster, colony, key } };
    return {};
  },

  async call(command) {
    const { method, make } = prepared(command);
    return { response: sdk.toJson(method.output, await make({ timeoutMs: command.timeout_ms })) };
  },

  stream(command) {
    const ending = new AbortController();
    streams.set(command.stream, ending);
    void follow(prepared(command), command.stream, ending.signal);
    return {};
  },

  end_stream(command) {
    streams.get(command.stream).abort();
    return {};
  },

  start_executor(command) {
    executors.set(command.executor, startExecutor(connected().settings, command, tell, errorOf));
    return {};
  },

  release(command) {
    if (!executors.get(command.executor).release(command)) throw new NotDone("REFUSED", `nothing holds ${command.token}`);
    return {};
  },

  stop_executor(command) {
    executors.get(command.executor).stop();
    return {};
  },
};

globalThis.take = async (line) => {
  const { id, ...command } = JSON.parse(line);
  try {
    if (!Object.hasOwn(commands, command.do)) throw new NotDone("UNKNOWN_COMMAND", command.do);
    tell({ id, result: await commands[command.do](command) });
  } catch (error) {
    tell({ id, error: errorOf(error) });
  }
};
