import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { KeyFileError, SettingsError, loadKey, loadOrCreateKey } from "colonies";
import { executorKeyOf, keyOf, serverOf } from "../build/src/settings.js";

const before = { ...process.env };
let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "colonies-node-"));
  for (const name of Object.keys(process.env)) if (name.startsWith("COLONIES_")) delete process.env[name];
  process.env.COLONIES_CONFIG = join(folder, "profiles.toml");
});

afterEach(() => {
  rmSync(folder, { recursive: true });
  process.env = { ...before };
});

const profile = (lines, name = "local") =>
  writeFileSync(join(folder, "profiles.toml"), `default = "${name}"\n\n[profiles."${name}"]\n${lines.join("\n")}\n`);
const LOCAL = ['host = "127.0.0.1"', "port = 5001", 'cluster = "c1"', 'colony = "dev"', 'key_file = "/k"', "tls = false"];

test("the profile says where the server is, the environment overrides it, the program both", () => {
  profile(LOCAL);
  const { host, port, cluster, colony, keyFile, tls } = serverOf({});
  assert.deepEqual([host, port, cluster, colony, keyFile, tls], ["127.0.0.1", 5001, "c1", "dev", "/k", false]);
  Object.assign(process.env, { COLONIES_PORT: "5002", COLONIES_COLONY: "other" });
  assert.deepEqual([serverOf({}).port, serverOf({}).colony], [5002, "other"]);
  assert.equal(serverOf({ colony: "third" }).colony, "third");
  assert.throws(() => serverOf({ host: "127.0.0.1" }), /cluster id .* is not known/);
});

test("the environment alone is enough", () => {
  Object.assign(process.env, { COLONIES_CLUSTER: "c2", COLONIES_COLONY: "dev", COLONIES_KEY: randomBytes(32).toString("hex") });
  const server = serverOf({});
  assert.deepEqual([server.host, server.port, server.tls], ["localhost", 50080, false]);
  assert.match(keyOf({}, server).identity, /^[0-9a-f]{64}$/);
});

test("plaintext to another machine has to be asked for", () => {
  const far = { host: "example.org", cluster: "c", colony: "dev" };
  assert.throws(() => serverOf(far), /plaintext to example.org/);
  assert.equal(serverOf({ ...far, caFile: "/ca.pem" }).tls, true);
  assert.equal(serverOf({ ...far, tls: false }).tls, false);
  process.env.COLONIES_TLS = "on";
  assert.equal(serverOf(far).tls, true);
  assert.equal(serverOf({ ...far, host: "[::1]", tls: false }).host, "[::1]");
  // A profile's plaintext is for its own host.
  profile(LOCAL);
  delete process.env.COLONIES_TLS;
  process.env.COLONIES_HOST = "example.org";
  assert.throws(() => serverOf({}), /plaintext to example.org/);
});

test("settings that make no sense are refused by name", () => {
  profile(LOCAL);
  for (const [name, value] of Object.entries({ COLONIES_PORT: "70000", COLONIES_TLS: "yes", COLONIES_PROFILE: "none" })) {
    process.env[name] = value;
    assert.throws(() => serverOf({}), (error) => error instanceof SettingsError && error.message.includes(value), name);
    delete process.env[name];
  }
  writeFileSync(join(folder, "profiles.toml"), "not toml");
  assert.throws(() => serverOf({}), /cannot read the profile file/);
});

test("an executor makes itself a key that nobody else may read, once", () => {
  profile(LOCAL);
  const key = executorKeyOf({}, serverOf({}), "e1");
  const path = join(folder, "executors", "dev", "e1.key");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(executorKeyOf({}, serverOf({}), "e1").identity, key.identity);
  assert.notEqual(executorKeyOf({}, serverOf({}), "e2").identity, key.identity);
});

test("a key file that others can read, or that holds no key, is refused", () => {
  const path = join(folder, "key");
  assert.throws(() => loadKey(path), KeyFileError);
  loadOrCreateKey(path);
  const text = readFileSync(path, "latin1");
  chmodSync(path, 0o640);
  assert.throws(() => loadKey(path), /chmod 600/);
  chmodSync(path, 0o600);
  writeFileSync(path, text.slice(1));
  assert.throws(() => loadKey(path), /holds no key/);
});
