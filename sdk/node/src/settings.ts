// How a program finds its server, its colony and its key: what it says itself, else the environment, else the profile that
// `colonies up` saved. The same variables and the same file as those of the command line.

import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parse } from "smol-toml";
import type { PrivateKey } from "../signing.mjs";
import { SettingsError } from "./errors.js";
import { keyFromHex, loadKey, loadOrCreateKey } from "./keys.js";

/** What is not given comes from the variable COLONIES_HOST, COLONIES_CA_FILE and so on, else from the profile. */
export interface Settings {
  host?: string;
  port?: number;
  /** The server's id, which every signature names; `colonies status` tells it. */
  cluster?: string;
  colony?: string;
  /** Who signs: a key, or its 64 hex digits; or the file of one. */
  key?: PrivateKey | string;
  keyFile?: string;
  /** Without it, plaintext is used to this machine, and refused to any other. */
  tls?: boolean;
  /** Certificates to trust, in PEM; without it, the public ones. */
  caFile?: string;
  /** The client's own certificate and its key, for a front door that asks for one. */
  certFile?: string;
  certKeyFile?: string;
  /** Name of the profile to use; default COLONIES_PROFILE, else the file's default. */
  profile?: string;
}

/** Settings that are complete, but for the key. */
export interface Server {
  host: string;
  port: number;
  cluster: string;
  colony: string;
  tls: boolean;
  caFile: string;
  certFile: string;
  certKeyFile: string;
  keyFile: string;
}

function configFile(): string {
  const base = process.env.XDG_CONFIG_HOME || join(homedir(), ".config");
  return withHome(process.env.COLONIES_CONFIG || join(base, "colonies", "profiles.toml"));
}

function withHome(path: string): string {
  return resolve(path.replace(/^~(?=\/|$)/, homedir()));
}

function profileOf(name: string | undefined): Record<string, unknown> {
  const path = configFile();
  const wanted = name || process.env.COLONIES_PROFILE;
  if (!existsSync(path)) {
    if (wanted) throw new SettingsError(`there is no profile ${wanted}: there is no file ${path}`);
    return {};
  }
  let file: any;
  try {
    file = parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new SettingsError(`cannot read the profile file ${path}: ${(error as Error).message}`, { cause: error });
  }
  const found = file.profiles?.[wanted || file.default];
  if (wanted && !found) throw new SettingsError(`there is no profile ${wanted} in ${path}`);
  return found ?? {};
}

/** Where the server is. A `host` that is given in the program has nothing to do with any profile. */
export function serverOf(given: Settings): Server {
  const profile = given.host === undefined || given.profile ? profileOf(given.profile) : {};
  const text = (name: string, own: string | undefined): string =>
    own ?? (process.env[`COLONIES_${name.toUpperCase()}`] || String(profile[name] ?? ""));
  const server = {
    host: text("host", given.host) || "localhost",
    port: portOf(text("port", given.port?.toString()) || "50080"),
    cluster: text("cluster", given.cluster),
    colony: text("colony", given.colony),
    caFile: text("ca_file", given.caFile),
    certFile: text("cert_file", given.certFile),
    certKeyFile: text("cert_key_file", given.certKeyFile),
    keyFile: given.keyFile ?? text("key_file", undefined),
  };
  if (!server.cluster) {
    throw new SettingsError(
      `the cluster id of ${server.host}:${server.port} is not known: start a server with \`colonies up\`, or set ` +
        "COLONIES_CLUSTER; whoever runs the server can tell it (`colonies status`)",
    );
  }
  if (!server.colony) throw new SettingsError("no colony to work in: start a server with `colonies up`, or set COLONIES_COLONY");
  // That a network may be trusted with plaintext was said of the profile's own host.
  const ofProfile = profile.tls === false && server.host !== profile.host ? undefined : profile.tls;
  return { ...server, tls: tlsOf(server, given.tls, ofProfile) };
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65535) throw new SettingsError(`the port (COLONIES_PORT) is ${text}: a port is a number from 1 to 65535`);
  return port;
}

function tlsOf(server: Omit<Server, "tls">, given: boolean | undefined, profile: unknown): boolean {
  const choice = process.env.COLONIES_TLS;
  if (choice && choice !== "on" && choice !== "off") throw new SettingsError(`COLONIES_TLS is ${choice}: it is on or off`);
  if (given !== undefined) return given;
  if (choice) return choice === "on";
  if (process.env.COLONIES_CA_FILE || process.env.COLONIES_CERT_FILE) return true;
  if (typeof profile === "boolean") return profile;
  if (server.caFile || server.certFile) return true;
  if (isLoopback(server.host)) return false;
  throw new SettingsError(
    `plaintext to ${server.host} could be read on the way: set COLONIES_CA_FILE, or COLONIES_TLS=on, or COLONIES_TLS=off ` +
      "if that network is trusted",
  );
}

function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

/** The key of a client: its own, or that of the environment or the profile. */
export function keyOf(given: Settings, server: Server): PrivateKey {
  if (given.key !== undefined) return typeof given.key === "string" ? keyFromHex(given.key) : given.key;
  if (given.keyFile === undefined && process.env.COLONIES_KEY) return keyFromHex(process.env.COLONIES_KEY);
  if (!server.keyFile) throw new SettingsError("no key to sign with: set COLONIES_KEY_FILE or COLONIES_KEY");
  return loadKey(withHome(server.keyFile));
}

/** The key of an executor, which is its own: unless one is given, a file beside the profiles, made at the first start. */
export function executorKeyOf(given: Settings, server: Server, name: string): PrivateKey {
  if (given.key !== undefined) return keyOf(given, server);
  return loadOrCreateKey(withHome(given.keyFile ?? join(dirname(configFile()), "executors", server.colony, `${name}.key`)));
}
