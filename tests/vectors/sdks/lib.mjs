// What the SDKs' descriptions have in common.

import { execFileSync } from "node:child_process";
import { createHmac, generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Seconds: the clock stands still there, for the SDKs as well. */
export const NOW = 1_700_000_000;

export const hmac = (algorithm, key, content, encoding) =>
  createHmac(algorithm, key).update(content).digest(encoding);
export const hex = (key, content) => hmac("sha256", key, content, "hex");
export const base64 = (key, content) => hmac("sha256", key, content, "base64");
export const whsec = (secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64");
export const WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
export const OTHER_WHSEC = "whsec_bm90IHRoZSBzZWNyZXQgb2YgdGhpcyBzb3VyY2U=";

/** Standard Webhooks, under whatever names. */
export const standard = (prefix, verify, options = {}) => ({
  secret: WHSEC,
  other: OTHER_WHSEC,
  timed: true,
  header: `${prefix}-signature`,
  id: `${prefix}-id`,
  sign: ({ secret, body, time, id }) => ({
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: `${time}`,
    [`${prefix}-signature`]:
      "v1," + base64((options.key ?? whsec)(secret), `${id}.${time}.${body}`),
  }),
  verify,
  ...options,
});

export const ed25519 = generateKeyPairSync("ed25519");
export const ed25519Other = generateKeyPairSync("ed25519");
export const raw = ({ publicKey }) => publicKey.export({ type: "spki", format: "der" }).subarray(-32);
export const p256 = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
export const p256Other = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
export const spki = ({ publicKey }) => publicKey.export({ type: "spki", format: "der" }).toString("base64");


/** Two RSA keys, each with a certificate of its own making for this name; made when first asked for. */
export const certified = (name) => {
  const make = () => {
    const folder = mkdtempSync(join(tmpdir(), "certified-"));
    const at = (file) => join(folder, file);
    const subject = ["-subj", `/CN=${name}`, "-days", "36500"];
    const key = ["-newkey", "rsa:2048", "-nodes", "-keyout", at("key"), "-out", at("pem")];
    execFileSync("openssl", ["req", "-x509", ...key, ...subject], { stdio: "ignore" });
    return { key: readFileSync(at("key")), pem: readFileSync(at("pem"), "utf8") };
  };
  let made;
  return () => (made ??= { own: make(), other: make() });
};
