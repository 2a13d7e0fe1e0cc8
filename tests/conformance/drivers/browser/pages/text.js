// Texts of JSON and of hex, and what they stand for.

import { decode, encode } from "/sdk/web/colonies.mjs";

export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

export function bytes(text) {
  const made = new Uint8Array(text.length / 2);
  for (let at = 0; at < made.length; at++) made[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  return made;
}

/** The value that the SDK makes of a JSON text. */
export const parsed = (json) => decode({ mediaType: "", data: new TextEncoder().encode(json) });

/** The JSON text that the SDK makes of a value. */
export const written = (value) => new TextDecoder().decode(encode(value).data);
