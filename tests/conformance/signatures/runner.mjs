// Answers the questions of conformance.py with sdk/node/signing.mjs: a JSON object a line, in and out.

import { createInterface } from "node:readline";
import * as signing from "../../../sdk/node/signing.mjs";

const bytes = (hex) => Buffer.from(hex, "hex");
const bodyOf = (given) => Buffer.concat(Array(given.body_times).fill(bytes(given.body_hex)));
const hex = (buffer) => buffer.toString("hex");

const call = (given) => ({ method: given.method, audience: given.audience, body: bodyOf(given) });
const join = ({ audience, colony, role, name }) => ({ audience, colony, role, name });
const rotation = ({ audience, colony, old_key: oldKey }) => ({ audience, colony, oldKey });

function signed(key, { text, publicKey, signature }) {
  return { identity: key.identity, text: text.toString(), public_key_hex: hex(publicKey), signature_hex: hex(signature) };
}

function checked(check, values, given) {
  const proof = { publicKey: bytes(given.public_key_hex), timeMs: given.time_ms, signature: bytes(given.signature_hex) };
  const { identity, errorField } = check(proof, { ...values(given), nowMs: given.now_ms });
  return identity === undefined ? { error_field: errorField } : { identity };
}

const answers = {
  identity(given, key) {
    return { public_key_hex: hex(key.publicKey), identity: key.identity };
  },
  sign_call(given, key) {
    const made = signing.signCall(key, { ...call(given), timeMs: given.time_ms, nonce: given.nonce });
    return { ...made, text: made.text.toString(), identity: key.identity };
  },
  sign_join: (given, key) => signed(key, signing.proveJoin(key, { ...join(given), timeMs: given.time_ms })),
  sign_rotation: (given, key) => signed(key, signing.proveRotation(key, { ...rotation(given), timeMs: given.time_ms })),
  check_call: (given) => signing.checkCall(given.metadata, { ...call(given), nowMs: given.now_ms }),
  check_join: (given) => checked(signing.checkJoin, join, given),
  check_rotation: (given) => checked(signing.checkRotation, rotation, given),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, given } = JSON.parse(line);
  let answer;
  try {
    answer = answers[ask](given, given.test_private_key && new signing.PrivateKey(bytes(given.test_private_key)));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    answer = { refused: true };
  }
  console.log(JSON.stringify(answer));
}
