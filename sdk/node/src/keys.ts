// Files of private keys: 64 hex digits, which nobody but their owner may read.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { dirname, join } from "node:path";
import { PrivateKey } from "../signing.mjs";
import { KeyFileError } from "./errors.js";

/** The key that 64 hex digits are. */
export function keyFromHex(text: string): PrivateKey {
  if (!/^[0-9a-f]{64}$/i.test(text.trim())) throw new KeyFileError("a private key is 64 hex digits; this text is not");
  return new PrivateKey(Buffer.from(text.trim(), "hex"));
}

/** The key in a file. A file that others may read is refused. */
export function loadKey(path: string): PrivateKey {
  let text: string;
  let mode: number;
  try {
    mode = fs.statSync(path).mode & 0o777;
    text = fs.readFileSync(path, "latin1");
  } catch (error) {
    throw new KeyFileError(`cannot read the key file ${path}: ${(error as Error).message}`, { cause: error });
  }
  if (process.platform !== "win32" && mode & 0o077) {
    throw new KeyFileError(`the key file ${path} can be read by others (mode ${mode.toString(8)}); run: chmod 600 ${path}`);
  }
  try {
    return keyFromHex(text);
  } catch (error) {
    throw new KeyFileError(`the key file ${path} holds no key: ${(error as Error).message}`, { cause: error });
  }
}

/** The key in a file, which is made, with a new key, if there is none. */
export function loadOrCreateKey(path: string): PrivateKey {
  if (!fs.existsSync(path)) create(path);
  return loadKey(path);
}

/** The file appears whole or not at all, and never in the place of another. */
function create(path: string): void {
  fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const scratch = join(dirname(path), `.${process.pid}.${randomBytes(4).toString("hex")}`);
  const file = fs.openSync(scratch, "wx", 0o600);
  try {
    fs.writeSync(file, `${randomBytes(32).toString("hex")}\n`);
    fs.fsyncSync(file);
    fs.linkSync(scratch, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error; // Else another process made it first.
  } finally {
    fs.closeSync(file);
    fs.unlinkSync(scratch);
  }
}
