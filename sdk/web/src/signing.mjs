// What a client signs (protos/vectors/README.md).

import { hex, joined, sha256, utf8 } from "./bytes.mjs";

export const KEY_HEADER = "colonies-public-key";
export const TIME_HEADER = "colonies-time";
export const NONCE_HEADER = "colonies-nonce";
export const SIGNATURE_HEADER = "colonies-signature";

const NONCE_BYTES = 16;

/** A value that cannot stand in a text that is signed. */
export class NotSignableError extends Error {
  name = "NotSignableError";
}

function linesOf(...values) {
  if (values.some((value) => String(value).includes("\n"))) {
    throw new NotSignableError("no value of a signed text may hold a line feed: it would read as two");
  }
  return utf8(values.map((value) => `${value}\n`).join(""));
}

/** A nonce: random, or random after a prefix of 16 hex digits. */
export function newNonce(prefix = "") {
  return prefix + hex(crypto.getRandomValues(new Uint8Array(NONCE_BYTES - prefix.length / 2)));
}

/**
 * Signs a call: `body` is the request message just as it will be sent.
 *
 * `metadata` goes with the call; `digest` is what receipts know it by. Every call needs a nonce of its own.
 */
export async function signCall(key, { method, audience, body, timeMs = Date.now(), nonce = newNonce() }) {
  const text = linesOf("colonies-call-v1", method, audience, timeMs, nonce, await sha256(body));
  const signature = await key.sign(text);
  const metadata = {
    [KEY_HEADER]: hex(key.publicKey),
    [TIME_HEADER]: String(timeMs),
    [NONCE_HEADER]: nonce,
    [SIGNATURE_HEADER]: hex(signature),
  };
  return { metadata, digest: await sha256(joined(text, key.publicKey, signature)) };
}

async function prove(key, timeMs, text) {
  return { publicKey: key.publicKey, timeMs, signature: await key.sign(text) };
}

/** A new member's proof that it agrees to its membership; `role` is "colony_owner" or "user". */
export function proveJoin(key, { audience, colony, role, name, timeMs = Date.now() }) {
  return prove(key, timeMs, linesOf("colonies-join-v1", audience, colony, role, name, timeMs));
}

/** A new key's proof that it takes over from the key with the identity `oldKey`. */
export function proveRotation(key, { audience, colony, oldKey, timeMs = Date.now() }) {
  return prove(key, timeMs, linesOf("colonies-rotate-v1", audience, colony, oldKey, timeMs));
}
