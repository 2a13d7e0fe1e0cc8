// What the driver answers without a connection: who it is, what it signs, how it writes and reads values.

import { PrivateKey, decode, encode, parseJson, proveJoin, proveRotation, signCall, toJson } from "../../../../sdk/node/build/src/index.js";

export const LANGUAGE = "node";

const bytes = (hex) => Buffer.from(hex, "hex");
const hex = (buffer) => Buffer.from(buffer).toString("hex");

export const keyOf = (command) => new PrivateKey(bytes(command.seed));

export const plain = {
  hello: () => ({ language: LANGUAGE, version: process.versions.node }),

  identity(command) {
    const { publicKey, identity } = keyOf(command);
    return { public_key: hex(publicKey), identity };
  },

  sign_call(command) {
    const { method, audience, body, body_times: times = 1, time_ms: timeMs, nonce } = command;
    const whole = Buffer.concat(Array(times).fill(bytes(body)));
    const { metadata, digest } = signCall(keyOf(command), { method, audience, body: whole, timeMs, nonce });
    return { metadata: Object.fromEntries(metadata), digest };
  },

  prove_join(command) {
    const { audience, colony, role, name, time_ms: timeMs } = command;
    return { signature: hex(proveJoin(keyOf(command), { audience, colony, role, name, timeMs }).signature) };
  },

  prove_rotation(command) {
    const { audience, colony, old_key: oldKey, time_ms: timeMs } = command;
    return { signature: hex(proveRotation(keyOf(command), { audience, colony, oldKey, timeMs }).signature) };
  },

  encode(command) {
    const { mediaType, data } = encode("bytes" in command ? bytes(command.bytes) : parseJson(command.json));
    return { media_type: mediaType, data: hex(data) };
  },

  decode(command) {
    const given = { ...encode(null), mediaType: command.media_type, data: bytes(command.data) };
    const value = decode(given);
    if (value === given) return { media_type: given.mediaType, bytes: hex(given.data) };
    return value instanceof Uint8Array ? { bytes: hex(value) } : { json: toJson(value) };
  },
};
