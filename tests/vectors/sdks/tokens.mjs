// JSON Web Tokens, and passwords.

import { createHash, createHmac, createSign, generateKeyPairSync } from "node:crypto";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const sha256 = (content, encoding) => createHash("sha256").update(content).digest(encoding);

/** A token by HS256. */
const jwt = (secret, claims, header = {}) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT", ...header })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
};

const google = generateKeyPairSync("rsa", { modulusLength: 2048 });

/** A token by RS256, as Google signs those of push subscriptions. */
const googleToken = (claims) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${encode({ alg: "RS256", kid: "k1", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createSign("RSA-SHA256").update(signed).sign(google.privateKey, "base64url")}`;
};

export const tokens = {
  "google-pubsub": {
    package: "google-auth-library",
    secret: "push@project.iam.gserviceaccount.com",
    other: "push@another.iam.gserviceaccount.com",
    timed: true,
    header: "authorization",
    url: "https://hooks.example.com/in/google-pubsub",
    body: '{"message":{"messageId":"136969346945","data":"e30=","attributes":{"eventType":"OBJECT_FINALIZE"}},"subscription":"projects/p/subscriptions/s"}',
    key: () => JSON.stringify({ keys: [{ ...google.publicKey.export({ format: "jwk" }), kid: "k1" }] }),
    sign: ({ secret, time, url }) => ({
      authorization: `Bearer ${googleToken({
        aud: url,
        azp: "113774264463038321964",
        email: secret,
        email_verified: true,
        exp: time + 3600,
        iat: time,
        iss: "https://accounts.google.com",
        sub: "113774264463038321964",
      })}`,
    }),
    async verify({ secret, headers, url }) {
      const { OAuth2Client } = require("google-auth-library");
      const token = (headers.authorization ?? "").replace("Bearer ", "");
      const keys = { k1: google.publicKey.export({ type: "spki", format: "pem" }) };
      const issuers = ["https://accounts.google.com"];
      const ticket = await new OAuth2Client().verifySignedJwtWithCertsAsync(token, keys, url, issuers);
      const { email, email_verified } = ticket.getPayload();
      return email_verified && email === secret;
    },
    // The body isn't signed.
    open: ["tampered_body"],
  },
  qstash: {
    package: "@upstash/qstash",
    secret: "sig_current",
    timed: true,
    header: "upstash-signature",
    url: "https://hooks.example.com/in/qstash?a=1",
    body: '{"hello":"world"}',
    sign: ({ secret, body, time, id, url }) => ({
      "upstash-message-id": id,
      "upstash-signature": jwt(secret, {
        iss: "Upstash",
        sub: url,
        exp: time + 300,
        nbf: time,
        iat: time,
        jti: "jwt_67kxXD6UBAk7DqU6hzuHMDdXFXfP",
        body: sha256(body, "base64url"),
      }),
    }),
    verify({ secret, body, headers, url }) {
      const { Receiver } = require("@upstash/qstash");
      const receiver = new Receiver({ currentSigningKey: secret, nextSigningKey: "sig_next" });
      return receiver.verify({ signature: headers["upstash-signature"], body, url });
    },
  },
  messagebird: {
    package: "messagebird",
    secret: "messagebird_signing_key",
    timed: true,
    header: "messagebird-signature-jwt",
    url: "https://hooks.example.com/in/messagebird?a=1",
    body: '{"id":"m1","recipient":31612345678,"status":"delivered"}',
    sign: ({ secret, body, time, url }) => ({
      "messagebird-signature-jwt": jwt(secret, {
        iss: "MessageBird",
        nbf: time,
        exp: time + 60,
        jti: "2ea4f6e1-1c5c-4e9e-b5a4-4f3a1a5a7d0a",
        url_hash: sha256(url, "hex"),
        payload_hash: sha256(body, "hex"),
      }),
    }),
    verify({ secret, body, headers, url }) {
      const { createSecretKey } = require("node:crypto");
      const { verify } = require("messagebird/lib/webhook-signature-jwt");
      const key = createSecretKey(Buffer.from(secret));
      return verify(url, Buffer.from(body), headers["messagebird-signature-jwt"], key);
    },
  },
  vonage: {
    package: "@vonage/jwt",
    secret: "vonage_signature_secret",
    timed: true,
    header: "authorization",
    body: '{"message_uuid":"aaaaaaaa-bbbb","to":"447700900000","status":"delivered"}',
    sign: ({ secret, body, time }) => ({
      authorization: `Bearer ${jwt(secret, {
        // As Vonage sends them: without `exp`.
        iat: time,
        jti: "c5ba8f24-1a14-4c10-bfdf-3fbe8ce511b5",
        iss: "Vonage",
        payload_hash: sha256(body, "hex"),
        api_key: "a1b2c3d",
        application_id: "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
      })}`,
    }),
    verify({ secret, body, headers }) {
      const { verifySignature } = require("@vonage/jwt");
      const token = (headers.authorization ?? "").replace("Bearer ", "");
      if (!verifySignature(token, secret)) return false;
      // The body's digest it leaves to its users, by these words of its documents.
      const said = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
      return said.payload_hash === sha256(body, "hex");
    },
    // It leaves the time to its users.
    lenient: ["future", "stale"],
  },
  "atlassian-connect": {
    made_by: "sdk",
    package: "atlassian-jwt",
    secret: "atlassian_shared_secret",
    timed: true,
    header: "authorization",
    url: "https://hooks.example.com/in/jira&co/?b=2&ab=x%20y~*&b=1&a=%C3%A9&jwt=no",
    body: '{"timestamp":1700000000000,"webhookEvent":"jira:issue_created"}',
    sign: ({ secret, time, url }) => {
      const { createQueryStringHash, encodeSymmetric, fromMethodAndUrl } = require("atlassian-jwt");
      const qsh = createQueryStringHash(fromMethodAndUrl("POST", url));
      const claims = { iss: "jira:1", iat: time, exp: time + 180, qsh };
      return { authorization: `JWT ${encodeSymmetric(claims, secret)}` };
    },
    verify({ secret, headers, url, time }) {
      const { createQueryStringHash, decodeSymmetric, fromMethodAndUrl } = require("atlassian-jwt");
      const token = (headers.authorization ?? "").replace("JWT ", "");
      const said = decodeSymmetric(token, secret, "HS256");
      // Hash and time it leaves to its users.
      const qsh = createQueryStringHash(fromMethodAndUrl("POST", url));
      return said.qsh === qsh && said.exp > Date.now() / 1000;
    },
    // The body isn't signed, and it knows no "not yet".
    open: ["tampered_body"],
    lenient: ["future"],
  },
  livekit: {
    package: "livekit-server-sdk",
    secret: "livekit_api_secret",
    timed: true,
    header: "authorization",
    body: '{"event":"room_started","id":"EV_abc","createdAt":"1700000000"}',
    sign: ({ secret, body, time }) => ({
      authorization: jwt(secret, {
        iss: "APIkey",
        nbf: time,
        exp: time + 300,
        sha256: sha256(body, "base64"),
      }),
    }),
    async verify({ secret, body, headers }) {
      const { WebhookReceiver } = require("livekit-server-sdk");
      return new WebhookReceiver("APIkey", secret).receive(body, headers.authorization);
    },
  },
  chargebee: {
    package: "chargebee",
    secret: "webhook_user:webhook_password",
    header: "authorization",
    body: '{"id":"ev_16BHbhF4s42tO2lK","occurred_at":1700000000,"event_type":"card_added"}',
    sign: ({ secret }) => ({
      authorization: `Basic ${Buffer.from(secret).toString("base64")}`,
    }),
    async verify({ secret, headers }) {
      const { basicAuthValidator } = require("../node_modules/chargebee/cjs/resources/webhook/auth.js");
      const [user, password] = secret.split(":");
      await basicAuthValidator((name, word) => name === user && word === password)(headers);
    },
    // It signs nothing.
    open: ["tampered_body"],
  },
};
