// User data on its way to and from the wire: JavaScript values become JSON, and bytes become themselves.

import { textOf, utf8 } from "./bytes.mjs";

const OCTET_STREAM = "application/octet-stream";
const JSON_TYPES = ["", "application/json"];
const SEVERAL = Symbol.for("colonies.outputs");
const MEDIA = Symbol.for("colonies.media");

/** A value cannot be turned into bytes, or bytes into a value. */
export class ValueError extends Error {
  name = "ValueError";
}

/** Bytes of some other media type. */
export class Media {
  // A function's module has this class from another copy of the SDK than the worker that runs it.
  get [MEDIA]() {
    return true;
  }

  constructor(mediaType, data) {
    if (typeof mediaType !== "string" || !(data instanceof Uint8Array)) {
      throw new ValueError("a Media is the name of a media type and a Uint8Array");
    }
    this.mediaType = mediaType;
    this.data = data;
  }
}

/** What a function returns to have several outputs, or none: `return outputs(2, 3)`. Anything else is one output. */
export const outputs = (...values) => ({ [SEVERAL]: values });

/** The values that a function's result stands for. */
export const outputsOf = (result) => result?.[SEVERAL] ?? [result];

function carried(key, value) {
  // What toJSON made is what counts, and the holder has what it was made of.
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (typeof value === "number" && !Number.isFinite(value)) throw new ValueError(`JSON cannot carry ${value}`);
  if (typeof value === "function" || typeof value === "symbol") throw new ValueError(`JSON cannot carry a ${typeof value}`);
  if (kind === "Map" || kind === "Set" || kind === "ArrayBuffer" || ArrayBuffer.isView(value)) {
    throw new ValueError(`JSON cannot carry a ${kind} inside of another value: make it an object or an array`);
  }
  return typeof value === "bigint" ? rawInteger(value) : value;
}

function rawInteger(value) {
  if (Number.isSafeInteger(Number(value))) return Number(value);
  if (!JSON.rawJSON) throw new ValueError(`this browser cannot write ${value} as JSON: use a newer one`);
  return JSON.rawJSON(String(value));
}

/** A Value of the protos: bytes (a Uint8Array or an ArrayBuffer) as they are, everything else as JSON; undefined as null. */
export function encode(value) {
  if (value?.[MEDIA]) return { mediaType: value.mediaType, data: value.data };
  if (value instanceof ArrayBuffer) return { mediaType: OCTET_STREAM, data: new Uint8Array(value.slice(0)) };
  if (value instanceof Uint8Array) return { mediaType: OCTET_STREAM, data: value.slice() };
  try {
    return { mediaType: "", data: utf8(JSON.stringify(value === undefined ? null : value, carried)) };
  } catch (error) {
    if (error instanceof ValueError) throw error;
    throw new ValueError(`cannot encode this value: ${error.message}`, { cause: error });
  }
}

function exact(_key, value, context) {
  if (typeof value !== "number" || Number.isSafeInteger(value) || !Number.isInteger(value)) return value;
  // Beyond 2^53 a number is not what was written; it is known what was only where the browser tells the source.
  if (context === undefined) throw new ValueError("this browser cannot read integers beyond 2^53 exactly: use a newer one");
  return /^-?[0-9]+$/.test(context.source) ? BigInt(context.source) : value;
}

/** The JavaScript value in a Value; integers beyond 2^53 are BigInts. Other media types give a Media. */
export function decode(value) {
  if (value.mediaType === OCTET_STREAM) return value.data;
  if (!JSON_TYPES.includes(value.mediaType)) return new Media(value.mediaType, value.data);
  try {
    return JSON.parse(textOf(value.data), exact);
  } catch (error) {
    if (error instanceof ValueError) throw error;
    throw new ValueError(`cannot decode ${value.data.length} bytes of JSON: ${error.message}`, { cause: error });
  }
}
