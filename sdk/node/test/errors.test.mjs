import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata } from "@grpc/grpc-js";
import { create, toBinary } from "colonies/protobuf";
import * as status from "colonies/protos/status/v1/status";
import { rpcErrorOf } from "../build/src/errors.js";

const packed = (name, schema, value) => ({ typeUrl: `type.googleapis.com/google.rpc.${name}`, value: toBinary(schema, create(schema, value)) });

function failed(code, trailer) {
  const metadata = new Metadata();
  if (trailer) metadata.set("grpc-status-details-bin", Buffer.from(trailer));
  return rpcErrorOf(Object.assign(new Error(), { code, details: "no", metadata }));
}

test("the typed details of a failed call are told", () => {
  const details = [
    packed("ErrorInfo", status.ErrorInfoSchema, { reason: "QUEUE_FULL", metadata: { limit: "5" } }),
    packed("BadRequest", status.BadRequestSchema, { fieldViolations: [{ field: "a.b", description: "too long" }] }),
    packed("RetryInfo", status.RetryInfoSchema, { retryDelay: { seconds: 1n, nanos: 500_000_000 } }),
    packed("Unknown", status.ErrorInfoSchema, { reason: "not this one" }),
  ];
  const error = failed(8, toBinary(status.StatusSchema, create(status.StatusSchema, { details })));
  const { code, reason, metadata, fields, retryDelayMs, message } = error;
  assert.deepEqual([code, reason, { ...metadata }, retryDelayMs, message], ["RESOURCE_EXHAUSTED", "QUEUE_FULL", { limit: "5" }, 1500, "no"]);
  assert.deepEqual([...fields], [{ field: "a.b", description: "too long" }]);
});

test("a failed call without details, or with somebody else's, still has its code", () => {
  for (const trailer of [undefined, "\xff\xff"]) {
    const { code, reason, fields, retryDelayMs } = failed(5, trailer);
    assert.deepEqual([code, reason, [...fields], retryDelayMs], ["NOT_FOUND", "", [], undefined]);
  }
});

test("outages are told from refusals", () => {
  for (const code of [14, 4, 1, 2]) assert.ok(failed(code).isOutage, `${code}`);
  for (const code of [3, 5, 7, 9, 13, 16]) assert.ok(!failed(code).isOutage, `${code}`);
});
