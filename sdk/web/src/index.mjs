// What users of the SDK import. The same file is the engine of an executor when it is started as that worker.

import { ENGINE, serve } from "./engine/serve.mjs";

export { Client, SERVICES, clusterOf } from "./client.mjs";
export { Executor, ExecutorError } from "./executor.mjs";
export { RpcError, failureOf } from "./failures.mjs";
export { Key, KeyError, identityOf } from "./keys.mjs";
export { NotSignableError, proveJoin, proveRotation, signCall } from "./signing.mjs";
export { Media, ValueError, decode, encode, outputs } from "./values.mjs";
export { create, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";

if (typeof DedicatedWorkerGlobalScope !== "undefined" && globalThis.name === ENGINE) serve(globalThis);
