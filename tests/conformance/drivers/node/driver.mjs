// The driver of the Node SDK (tests/conformance/README.md): commands on standard input, answers and events on standard output.

import { createInterface } from "node:readline";
import { Client, KeyFileError, RpcError, SettingsError, ValueEncodingError } from "../../../../sdk/node/build/src/index.js";
import { createRegistry, fromJson, toJson } from "../../../../sdk/node/build/src/protobuf.js";
import { AuthService } from "../../../../sdk/node/build/protos/colonies/auth/v1/auth_service_pb.js";
import { CronService } from "../../../../sdk/node/build/protos/colonies/cron/v1/cron_service_pb.js";
import { GeneratorService } from "../../../../sdk/node/build/protos/colonies/cron/v1/generator_service_pb.js";
import { RegistryService } from "../../../../sdk/node/build/protos/colonies/registry/v1/registry_service_pb.js";
import { SchedulerService } from "../../../../sdk/node/build/protos/colonies/scheduler/v1/scheduler_service_pb.js";
import { keyOf, plain } from "./answers.mjs";
import { startExecutor } from "./functions.mjs";

const services = createRegistry(AuthService, RegistryService, SchedulerService, CronService, GeneratorService);
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
const REFUSALS = [RangeError, KeyFileError, SettingsError, ValueEncodingError];

const emit = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

function errorOf(error) {
  if (error instanceof RpcError) {
    const { code, reason, message, metadata, fields } = error;
    return { code, reason, message, metadata, fields };
  }
  if (error instanceof NotDone) return { code: error.code, message: error.message };
  if (REFUSALS.some((refusal) => error instanceof refusal)) return { code: "REFUSED", message: error.message };
  console.error(error);
  return { code: "DRIVER_FAILED", message: String(error) };
}

function connected() {
  if (!connection) throw new NotDone("REFUSED", "not connected");
  return connection;
}

/** The method of this name, and its request. */
function prepared({ method: path, request }) {
  const [, service, name] = path.split("/");
  const method = services.getService(service)?.methods.find((each) => each.name === name);
  if (!method) throw new NotDone("REFUSED", `there is no method ${path}`);
  return { method, message: fromJson(method.input, request) };
}

async function follow(client, command, signal) {
  const end = { event: "end", stream: command.stream };
  try {
    const { method, message } = prepared(command);
    for await (const each of client.stream(method, message, { signal })) {
      emit({ event: "message", stream: command.stream, message: toJson(method.output, each) });
    }
  } catch (error) {
    if (!signal.aborted) end.error = errorOf(error);
  }
  emit(end);
}

const commands = {
  ...plain,

  connect(command) {
    const { address, cluster, colony, ca_file: caFile } = command;
    const [, host, port] = /^(.*):(\d+)$/.exec(address);
    const settings = { host, port: Number(port), cluster, colony, key: keyOf(command), tls: Boolean(caFile), ...(caFile && { caFile }) };
    connection?.client.close();
    connection = { settings, client: new Client(settings) };
    return {};
  },

  async call(command) {
    const { method, message } = prepared(command);
    const response = await connected().client.unary(method, message, { timeoutMs: command.timeout_ms });
    return { response: toJson(method.output, response) };
  },

  stream(command) {
    const ending = new AbortController();
    streams.set(command.stream, ending);
    void follow(connected().client, command, ending.signal);
    return {};
  },

  end_stream(command) {
    streams.get(command.stream).abort();
    return {};
  },

  start_executor(command) {
    executors.set(command.executor, startExecutor(connected().settings, command, emit, errorOf));
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

async function answer({ id, ...command }) {
  try {
    if (!Object.hasOwn(commands, command.do)) throw new NotDone("UNKNOWN_COMMAND", command.do);
    emit({ id, result: await commands[command.do](command) });
  } catch (error) {
    emit({ id, error: errorOf(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) void answer(JSON.parse(line));
process.exit(0);
