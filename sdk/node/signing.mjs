// Signed calls, joins and rotations in Node: what a client signs, and for tests what a server checks.
//
// Specified in protos/vectors/README.md, and held to its vectors by `make vectors`. Nothing but node:crypto.

import { createHash, createPrivateKey, createPublicKey, randomBytes, sign, verify } from "node:crypto";

export const KEY_HEADER = "colonies-public-key";
export const TIME_HEADER = "colonies-time";
export const NONCE_HEADER = "colonies-nonce";
export const SIGNATURE_HEADER = "colonies-signature";

const NONCE_BYTES = 16;
const MAX_SKEW_MS = 60_000;
const MAX_PROOF_AGE_MS = 24 * 3600 * 1000;
const FORMATS = new Map([
  [KEY_HEADER, /^[0-9a-f]{64}$/],
  [TIME_HEADER, /^(?:0|[1-9][0-9]{0,14})$/],
  [NONCE_HEADER, /^[0-9a-f]{32}$/],
  [SIGNATURE_HEADER, /^[0-9a-f]{128}$/],
]);

// What stands before the 32 bytes of a private and of a public key in PKCS #8 and SPKI (RFC 8410).
const PRIVATE_DER = Buffer.from("302e020100300506032b657004220420", "hex");
const PUBLIC_DER = Buffer.from("302a300506032b6570032100", "hex");

const PRIME = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const SIGN = 1n << 255n;
const Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022n;
const SMALL_ORDER = new Set(
  [0n, 1n, Y_OF_ORDER_8, PRIME - Y_OF_ORDER_8, PRIME - 1n].flatMap((y) => [y, y | SIGN]),
);

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest("hex");
const littleEndian = (bytes) => BigInt("0x" + Buffer.from(bytes).reverse().toString("hex"));

/**
 * The identity that a raw public key is known by.
 * @param {Uint8Array} publicKey
 */
export const identityOf = (publicKey) => createHash("sha3-256").update(publicKey).digest("hex");

function textOf(...values) {
  if (values.some((value) => String(value).includes("\n"))) {
    throw new RangeError("no value of a signed text may hold a line feed: it would read as two");
  }
  return Buffer.from(values.map((value) => `${value}\n`).join(""));
}

const textOfCall = ({ method, audience, timeMs, nonce, body }) =>
  textOf("colonies-call-v1", method, audience, timeMs, nonce, sha256(body));
const textOfJoin = ({ audience, colony, role, name, timeMs }) =>
  textOf("colonies-join-v1", audience, colony, role, name, timeMs);
const textOfRotation = ({ audience, colony, oldKey, timeMs }) =>
  textOf("colonies-rotate-v1", audience, colony, oldKey, timeMs);

/** An Ed25519 key: 32 private bytes, its public key and its identity. */
export class PrivateKey {
  #key;
  /** @type {Buffer} */
  publicKey;
  /** @type {string} */
  identity;

  /** @param {Uint8Array} seed the 32 private bytes */
  constructor(seed) {
    this.#key = createPrivateKey({ key: Buffer.concat([PRIVATE_DER, seed]), format: "der", type: "pkcs8" });
    const spki = createPublicKey(this.#key).export({ format: "der", type: "spki" });
    this.publicKey = spki.subarray(PUBLIC_DER.length);
    this.identity = identityOf(this.publicKey);
  }

  /**
   * @param {Uint8Array} text
   * @returns {Buffer}
   */
  sign(text) {
    return sign(null, text, this.#key);
  }
}

/**
 * Signs a call: `body` is the request message just as it will be sent.
 *
 * `metadata` goes with the call; `digest` is what receipts know it by. Every call needs a nonce of its own.
 * @param {PrivateKey} key
 * @param {{ method: string, audience: string, body: Uint8Array, timeMs?: number, nonce?: string }} call
 * @returns {{ text: Buffer, metadata: [string, string][], digest: string }}
 */
export function signCall(key, { method, audience, body, timeMs = Date.now(), nonce = randomBytes(NONCE_BYTES).toString("hex") }) {
  const text = textOfCall({ method, audience, timeMs, nonce, body });
  const signature = key.sign(text);
  const metadata = [
    [KEY_HEADER, key.publicKey.toString("hex")],
    [TIME_HEADER, String(timeMs)],
    [NONCE_HEADER, nonce],
    [SIGNATURE_HEADER, signature.toString("hex")],
  ];
  return { text, metadata, digest: sha256(text, key.publicKey, signature) };
}

/** @returns {{ text: Buffer, publicKey: Buffer, timeMs: number, signature: Buffer }} */
function prove(key, timeMs, text) {
  return { text, publicKey: key.publicKey, timeMs, signature: key.sign(text) };
}

/**
 * A new member's proof that it agrees to its membership; `role` is "colony_owner" or "user".
 * @param {PrivateKey} key
 * @param {{ audience: string, colony: string, role: string, name: string, timeMs?: number }} membership
 */
export function proveJoin(key, { audience, colony, role, name, timeMs = Date.now() }) {
  return prove(key, timeMs, textOfJoin({ audience, colony, role, name, timeMs }));
}

/**
 * A new key's proof that it takes over from the key with the identity `oldKey`.
 * @param {PrivateKey} key
 * @param {{ audience: string, colony: string, oldKey: string, timeMs?: number }} rotation
 */
export function proveRotation(key, { audience, colony, oldKey, timeMs = Date.now() }) {
  return prove(key, timeMs, textOfRotation({ audience, colony, oldKey, timeMs }));
}

const isSound = (point) => (point & (SIGN - 1n)) < PRIME && !SMALL_ORDER.has(point);

/** The identity of a raw public key if it signed the text, else null. */
export function signerOf(publicKey, signature, text) {
  if (publicKey.length !== 32 || signature.length !== 64) return null;
  if (!isSound(littleEndian(publicKey)) || !isSound(littleEndian(signature.subarray(0, 32)))) return null;
  if (littleEndian(signature.subarray(32)) >= ORDER) return null;
  const key = createPublicKey({ key: Buffer.concat([PUBLIC_DER, publicKey]), format: "der", type: "spki" });
  return verify(null, text, key, signature) ? identityOf(publicKey) : null;
}

function signerOfValues(publicKey, signature, textOfValues, values) {
  // A value with a line feed is one that nobody signs.
  if (Object.values(values).some((value) => typeof value === "string" && value.includes("\n"))) return null;
  return signerOf(publicKey, signature, textOfValues(values));
}

/** Who made a call, from its metadata as [name, value] pairs: `{ identity, digest }`, or `{ error }` with the reason. */
export function checkCall(metadata, { method, audience, body, nowMs }) {
  const entries = (name) => metadata.filter(([each]) => each === name).map(([, value]) => value);
  const names = [...FORMATS.keys()];
  if (names.some((name) => !entries(name).length && !entries(`${name}-bin`).length)) return { error: "SIGNATURE_MISSING" };
  const malformed = names.some((name) => {
    const values = entries(name);
    return entries(`${name}-bin`).length || values.length !== 1 || !FORMATS.get(name).test(values[0]);
  });
  if (malformed) return { error: "SIGNATURE_MALFORMED" };
  const [key, time, nonce, signature] = names.map((name) => entries(name)[0]);
  const timeMs = Number(time);
  if (Math.abs(nowMs - timeMs) > MAX_SKEW_MS) return { error: "SIGNATURE_STALE" };
  const [publicKey, bytes] = [Buffer.from(key, "hex"), Buffer.from(signature, "hex")];
  const values = { method, audience, timeMs, nonce, body };
  const identity = signerOfValues(publicKey, bytes, textOfCall, values);
  if (identity === null) return { error: "SIGNATURE_INVALID" };
  return { identity, digest: sha256(textOfCall(values), publicKey, bytes) };
}

function checkProof(proof, nowMs, textOfValues, values) {
  const age = nowMs - proof.timeMs;
  if (age < -MAX_SKEW_MS || age > MAX_PROOF_AGE_MS) return { errorField: "time_ms" };
  const identity = signerOfValues(proof.publicKey, proof.signature, textOfValues, { ...values, timeMs: proof.timeMs });
  return identity === null ? { errorField: "signature" } : { identity };
}

/** Who agreed to a membership: `{ identity }`, or `{ errorField }`. */
export function checkJoin(proof, { audience, colony, role, name, nowMs }) {
  return checkProof(proof, nowMs, textOfJoin, { audience, colony, role, name });
}

/** Whose key takes over: `{ identity }`, or `{ errorField }`. */
export function checkRotation(proof, { audience, colony, oldKey, nowMs }) {
  return checkProof(proof, nowMs, textOfRotation, { audience, colony, oldKey });
}
