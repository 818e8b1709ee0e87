// What the SDKs' descriptions have in common.

import { createHmac, generateKeyPairSync } from "node:crypto";

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

