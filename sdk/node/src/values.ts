// User data on its way to and from the wire. The services carry a `Value` unopened; here JavaScript values become JSON, and bytes
// become themselves.

import { create, isMessage } from "@bufbuild/protobuf";
import { randomUUID } from "node:crypto";
import { ValueSchema, type Value } from "#protos/scheduler/v1/spec";
import { ValueEncodingError } from "./errors.js";

const OCTET_STREAM = "application/octet-stream";
const JSON_TYPES = ["", "application/json"];

// Whole numbers that a JavaScript number does not hold travel through JSON.parse and JSON.stringify as texts that begin with this;
// nobody else can know it.
const BIG = `bigint ${randomUUID()} `;
const BIG_TEXTS = new RegExp(`"${BIG}(-?\\d+)"`, "g");
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
// Without any of these, each number is held exactly, or is a fraction and as near as it can be.
const MAY_NOT_FIT = /\d{16}|[eE]\+?\d{3}/;

/** Several outputs of a function, or none: `return new Outputs(2, 3)`. Anything else that it returns is one output. */
export class Outputs {
  readonly values: readonly unknown[];

  constructor(...values: unknown[]) {
    this.values = values;
  }
}

/**
 * A JavaScript value as a `Value`: bytes as they are, a `Value` as it is, everything else as JSON. A BigInt is a whole number, and
 * nothing (undefined) is null.
 */
export function encode(value: unknown): Value {
  if (value instanceof Uint8Array) return create(ValueSchema, { mediaType: OCTET_STREAM, data: value });
  if (isMessage(value, ValueSchema)) return value;
  return create(ValueSchema, { data: Buffer.from(toJson(value ?? null)) });
}

/** The JavaScript value in a `Value`; of media types other than JSON and bytes, the `Value` itself. */
export function decode(value: Value): any {
  if (value.mediaType === OCTET_STREAM) return value.data;
  if (!JSON_TYPES.includes(value.mediaType)) return value;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(value.data);
  } catch (error) {
    throw new ValueEncodingError(`cannot decode ${value.data.length} bytes of JSON: they are not UTF-8`, { cause: error });
  }
  return parseJson(text);
}

/** `JSON.stringify`, which writes each BigInt as the number that it is, and refuses what JSON would change without a word. */
export function toJson(value: unknown): string {
  let text: string | undefined;
  let hasBig = false;
  function replace(this: any, key: string, each: unknown): unknown {
    if (typeof each === "bigint") {
      hasBig = true;
      return BIG + each;
    }
    const given = this[key];
    if (typeof given === "number" && !Number.isFinite(given)) throw new TypeError(`JSON has no ${given}`);
    if (given instanceof Uint8Array) throw new TypeError("JSON has no bytes: give them as a value of their own");
    if (given instanceof Map || given instanceof Set) throw new TypeError("JSON has no Map and no Set");
    return each;
  }
  try {
    text = JSON.stringify(value, replace);
  } catch (error) {
    throw new ValueEncodingError(`cannot encode: ${(error as Error).message}`, { cause: error });
  }
  if (text === undefined) throw new ValueEncodingError(`cannot encode a ${typeof value}`);
  return hasBig ? text.replace(BIG_TEXTS, "$1") : text;
}

/** `JSON.parse`, which gives a BigInt for each whole number that a JavaScript number does not hold exactly. */
export function parseJson(text: string): any {
  try {
    const value = JSON.parse(text);
    if (!MAY_NOT_FIT.test(text)) return value;
    const marked = text.replace(STRING_OR_NUMBER, (token) => (fits(token) ? token : `"${BIG}${token}"`));
    return JSON.parse(marked, (_, each) =>
      typeof each === "string" && each.startsWith(BIG) ? BigInt(each.slice(BIG.length)) : each,
    );
  } catch (error) {
    throw new ValueEncodingError(`cannot decode JSON: ${(error as Error).message}`, { cause: error });
  }
}

function fits(token: string): boolean {
  if (token.startsWith('"')) return true;
  if (/^-?\d+$/.test(token)) return Number.isSafeInteger(Number(token));
  if (!Number.isFinite(Number(token))) throw new RangeError(`${token} is too large for a number`);
  return true;
}
