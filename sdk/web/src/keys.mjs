// Ed25519 keys made and held by WebCrypto. The private half can be used and not read, by this page either.

import { sha3_256 } from "@noble/hashes/sha3.js";
import { hex, joined, unhex } from "./bytes.mjs";
import { KEYS, committed, opened, settled } from "./database.mjs";

const ALGORITHM = { name: "Ed25519" };
const SEED_BYTES = 32;
// What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410).
const PRIVATE_DER = unhex("302e020100300506032b657004220420");

/** The key cannot be made, kept or used in this browser, or in this page. */
export class KeyError extends Error {
  name = "KeyError";
}

/** The identity that a raw public key is known by. */
export const identityOf = (publicKey) => hex(sha3_256(publicKey));

/** A key: `publicKey` (32 bytes), `identity`, and `sign`. */
export class Key {
  #privateKey;

  constructor(privateKey, publicKey) {
    this.#privateKey = privateKey;
    this.publicKey = publicKey;
    this.identity = identityOf(publicKey);
  }

  /** A new one, kept nowhere. */
  static async generate() {
    const { privateKey, publicKey } = await generated();
    return Key.of({ privateKey, publicKey });
  }

  /** The key of 32 private bytes. From here on they cannot be read back. */
  static async fromSeed(seed) {
    if (seed.length !== SEED_BYTES) throw new KeyError(`a private key is ${SEED_BYTES} bytes; these are ${seed.length}`);
    const der = joined(PRIVATE_DER, seed);
    // WebCrypto works the public half out only on the way out, so a copy that may be read is made, and dropped.
    const readable = await usable(() => crypto.subtle.importKey("pkcs8", der, ALGORITHM, true, ["sign"]));
    const { x } = await crypto.subtle.exportKey("jwk", readable);
    const publicKey = Uint8Array.from(atob(x.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
    return new Key(await crypto.subtle.importKey("pkcs8", der, ALGORITHM, false, ["sign"]), publicKey);
  }

  /** The key that this browser keeps under a name for pages of this origin; made at the first use, and never seen by anybody. */
  static async kept(name) {
    const database = await opened();
    try {
      const pair = (await read(database, name)) ?? (await kept(database, name, await generated()));
      return await Key.of(pair);
    } finally {
      database.close();
    }
  }

  /** The key in a CryptoKeyPair, or in what `toMessage` gave. */
  static async of({ privateKey, publicKey }) {
    const raw = publicKey instanceof CryptoKey ? new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)) : publicKey;
    return new Key(privateKey, raw);
  }

  /** What can be posted to a worker of this origin: a handle, and not the key itself. */
  toMessage() {
    return { privateKey: this.#privateKey, publicKey: this.publicKey };
  }

  /** The 64 bytes of a signature. */
  async sign(text) {
    return new Uint8Array(await crypto.subtle.sign(ALGORITHM, this.#privateKey, text));
  }
}

const generated = () => usable(() => crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"]));

async function usable(make) {
  if (!globalThis.crypto?.subtle) {
    throw new KeyError("this page may not use keys: open it by https, or from this machine by http://localhost or 127.0.0.1");
  }
  try {
    return await make();
  } catch (error) {
    if (error.name !== "NotSupportedError") throw error;
    throw new KeyError("this browser has no Ed25519 keys in WebCrypto: use a newer one", { cause: error });
  }
}

const read = (database, name) => settled(database.transaction(KEYS).objectStore(KEYS).get(name));

/** Keeps a pair, unless another tab was first: then that one's. */
async function kept(database, name, pair) {
  const transaction = database.transaction(KEYS, "readwrite", { durability: "strict" });
  const done = committed(transaction);
  const store = transaction.objectStore(KEYS);
  const other = await settled(store.get(name));
  if (!other) store.add({ privateKey: pair.privateKey, publicKey: pair.publicKey }, name);
  await done;
  return other ?? pair;
}
