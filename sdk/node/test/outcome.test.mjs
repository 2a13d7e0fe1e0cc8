import assert from "node:assert/strict";
import { test } from "node:test";
import { outcomeOf } from "../build/src/outcome.js";

const thrown = async (value) => {
  const functions = new Map([["f", () => Promise.reject(value)]]);
  const outcome = await outcomeOf(functions, { spec: { funcName: "f", args: [], kwargs: {} }, inputs: [] }, () => ({}));
  assert.equal(outcome.case, "failure");
  return outcome.value;
};

test("whatever a function throws is a failure", async () => {
  assert.equal((await thrown(new TypeError("bad"))).errors[0], "TypeError: bad");
  assert.deepEqual((await thrown("bad")).errors, ["threw bad"]);
  assert.deepEqual((await thrown(undefined)).errors, ["threw undefined"]);
  const mute = Object.create(null);
  const getter = Object.defineProperty(new Error(), "message", {
    get: () => {
      throw new Error("no");
    },
  });
  for (const value of [mute, getter]) assert.deepEqual((await thrown(value)).errors, ["threw something whose text cannot be told"]);
});
