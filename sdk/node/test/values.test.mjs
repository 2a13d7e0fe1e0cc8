import assert from "node:assert/strict";
import { test } from "node:test";
import { ValueEncodingError, decode, encode, parseJson, toJson } from "colonies";

const textOf = (value) => Buffer.from(encode(value).data).toString();

test("values become the shortest JSON", () => {
  assert.equal(textOf({ b: [1.0, true, null], a: "å\u2028\n" }), '{"b":[1,true,null],"a":"å\u2028\\n"}');
  assert.equal(encode(1).mediaType, "");
  assert.equal(textOf(undefined), "null");
});

test("bytes stay bytes, and other media types stay as they are", () => {
  const bytes = encode(Buffer.from([0, 255]));
  assert.equal(bytes.mediaType, "application/octet-stream");
  assert.deepEqual([...decode(bytes)], [0, 255]);
  const image = { ...encode(null), mediaType: "image/png", data: Buffer.from([1]) };
  assert.equal(decode(image), image);
  assert.equal(encode(image), image);
});

test("whole numbers stay exact, whatever their size", () => {
  const text = '[9007199254740991,9007199254740993,-9223372036854775808,{"a\\"12345678901234567890":"12345678901234567890"}]';
  const value = parseJson(text);
  assert.equal(value[0], 9007199254740991);
  assert.equal(value[1], 9007199254740993n);
  assert.equal(value[2], -(2n ** 63n));
  assert.equal(toJson(value), text);
  assert.equal(parseJson("1e99"), 1e99);
  assert.equal(parseJson("1234567890123456789.5"), 1234567890123456789.5);
});

test("what JSON would change without a word is refused", () => {
  const circle = {};
  circle.self = circle;
  for (const value of [NaN, [Infinity], { a: Buffer.from("x") }, new Map([[1, 2]]), new Set(), () => 1, Symbol("s"), circle]) {
    assert.throws(() => encode(value), ValueEncodingError);
  }
});

test("what is no JSON, or no number, is refused", () => {
  for (const text of ["", "[1,]", "01234567890123456789", "1e400", "-1e999", "nul", '"\n"', "12345678901234567890x"]) {
    assert.throws(() => parseJson(text), ValueEncodingError, text);
  }
  assert.throws(() => decode({ ...encode(null), data: Buffer.from([0x22, 0xff, 0x22]) }), ValueEncodingError);
});
