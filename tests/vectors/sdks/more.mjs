// More signatures in a header.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";

import { base64, hex, standard } from "./lib.mjs";

const require = createRequire(import.meta.url);
const RealDate = Date;
const digest = (algorithm, content) => createHash(algorithm).update(content).digest("hex");

/** An HMAC-SHA256 of the body in hexadecimal, in one header. */
const plain = (name, header, body, verify, options = {}) => ({
  package: name,
  secret: "a_webhook_secret",
  header,
  body,
  sign: ({ secret, body }) => ({ [header]: hex(secret, body) }),
  verify,
  ...options,
});

/** A list of `t=` and `v1=` over `{time}.{body}`. */
const listed = (name, header, body, verify, options = {}) => ({
  package: name,
  secret: "a_webhook_secret",
  timed: true,
  header,
  body,
  sign: ({ secret, body, time }) => ({ [header]: `t=${time},v1=${hex(secret, `${time}.${body}`)}` }),
  verify,
  ...options,
});

export const more = {
  mollie: plain(
    "mollie-api-typescript",
    "x-mollie-signature",
    '{"resource":"event","id":"event_GvJ8WHrp5isUdRub9CJyH","type":"payment-link.paid"}',
    async ({ secret, body, headers }) => {
      const utils = "../node_modules/mollie-api-typescript/dist/commonjs/utils";
      const { SignatureValidator } = require(`${utils}/webhooks/signature_validator.js`);
      return SignatureValidator.validate(body, secret, headers["x-mollie-signature"]);
    },
    { sign: ({ secret, body }) => ({ "x-mollie-signature": `sha256=${hex(secret, body)}` }) },
  ),
  cloudinary: {
    package: "cloudinary",
    secret: "cloudinary_api_secret",
    timed: true,
    header: "x-cld-signature",
    body: '{"notification_type":"upload","public_id":"sample","version":1700000000}',
    sign: ({ secret, body, time }) => ({
      "x-cld-signature": digest("sha1", `${body}${time}${secret}`),
      "x-cld-timestamp": `${time}`,
    }),
    verify({ secret, body, headers }) {
      const { v2 } = require("cloudinary");
      v2.config({ api_secret: secret });
      const { "x-cld-timestamp": time, "x-cld-signature": signature } = headers;
      return v2.utils.verifyNotificationSignature(body, Number(time), signature);
    },
    // It takes two hours, and any time in the future.
    lenient: ["stale", "future"],
  },
  imagekit: {
    package: "@imagekit/nodejs",
    ...standard(
      "webhook",
      async ({ secret, body, headers }) => {
        const { default: ImageKit } = await import("@imagekit/nodejs");
        const client = new ImageKit({ privateKey: "x", webhookSecret: secret });
        return client.webhooks.unwrap(body, { headers, key: secret });
      },
      { key: (secret) => secret },
    ),
  },
  getstream: plain(
    "stream-chat",
    "x-signature",
    '{"type":"message.new","cid":"messaging:fun","message":{"id":"m1","text":"hello"}}',
    ({ secret, body, headers }) => {
      const { StreamChat } = require("stream-chat");
      return new StreamChat("key", secret).verifyWebhook(body, headers["x-signature"] ?? "");
    },
  ),
  hookdeck: {
    package: "@hookdeck/sdk",
    secret: "hookdeck_signing_secret",
    header: "x-hookdeck-signature",
    sign: ({ secret, body }) => ({ "x-hookdeck-signature": base64(secret, body) }),
    async verify({ secret, body, headers }) {
      const { verifyWebhookSignature } = require("@hookdeck/sdk/webhooks/helpers");
      const options = { headers, rawBody: body, signingSecret: secret };
      return (await verifyWebhookSignature(options)).isValidSignature;
    },
  },
  viber: plain(
    "viber-bot",
    "x-viber-content-signature",
    '{"event":"delivered","timestamp":1700000000000,"message_token":491266184665523145,"user_id":"u1"}',
    ({ secret, body, headers }) => {
      const Validator = require("viber-bot/lib/message/message-validator");
      return new Validator({ debug() {} }, secret).validateMessage(
        headers["x-viber-content-signature"],
        body,
      );
    },
  ),
  privy: {
    package: "@privy-io/node",
    ...standard("svix", async ({ secret, body, headers }) => {
      const { PrivyClient } = await import("@privy-io/node");
      const client = new PrivyClient({ appId: "x", appSecret: "x", webhookSigningSecret: secret });
      return client.webhooks().verify({ payload: body, headers });
    }),
    body: '{"type":"user.created","user":{"id":"did:privy:1"}}',
  },
  whop: {
    package: "@whop/sdk",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: Whop } = await import("@whop/sdk");
      return new Whop({ apiKey: "x" }).webhooks.unwrap(body, { headers, key: secret });
    }),
  },
  surge: {
    package: "@surgeapi/node",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: Surge } = await import("@surgeapi/node");
      return new Surge({ apiKey: "x" }).webhooks.unwrap(body, { headers, key: secret });
    }),
  },
  metronome: {
    package: "@metronome/sdk",
    secret: "metronome_webhook_secret",
    timed: true,
    header: "metronome-webhook-signature",
    body: '{"id":"5a5ec5b8-5e7c","type":"alerts.spend_threshold_reached","properties":{}}',
    sign({ secret, body, time }) {
      const date = new RealDate(time * 1000).toUTCString();
      return {
        "metronome-webhook-signature": hex(secret, `${date}\n${body}`),
        "x-metronome-date": date,
      };
    },
    async verify({ secret, body, headers }) {
      const { default: Metronome } = await import("@metronome/sdk");
      return new Metronome({ bearerToken: "x" }).webhooks.unwrap(body, headers, secret);
    },
  },
  mercadopago: {
    package: "mercadopago",
    secret: "mercadopago_secret_signature",
    timed: true,
    header: "x-signature",
    id: "x-request-id",
    url: "https://hooks.example.com/in/mercadopago?data.id=ORD01JQ4S4KY8HWQ6NA5PXB65B3D3&type=order",
    body: '{"action":"order.processed","data":{"id":"ORD01JQ4S4KY8HWQ6NA5PXB65B3D3"},"type":"order"}',
    sign: ({ secret, time, id, url }) => {
      const data = (new URL(url).searchParams.get("data.id") ?? "").toLowerCase();
      const signed = hex(secret, `id:${data};request-id:${id};ts:${time};`);
      return { "x-request-id": id, "x-signature": `ts=${time},v1=${signed}` };
    },
    verify({ secret, headers, url }) {
      const { WebhookSignatureValidator } = require("mercadopago");
      WebhookSignatureValidator.validate({
        xSignature: headers["x-signature"],
        xRequestId: headers["x-request-id"],
        // Its documents say so: in lower case.
        dataId: new URL(url).searchParams.get("data.id").toLowerCase(),
        secret,
        toleranceSeconds: 300,
      });
    },
    // The body isn't signed, nor where it is sent.
    open: ["tampered_body"],
    skip: ["of_another_endpoint"],
  },
  creem: plain(
    "creem",
    "creem-signature",
    '{"id":"evt_5WHHcZPv7VS0YUsberIuOz","eventType":"checkout.completed","object":{}}',
    async ({ secret, body, headers }) => {
      const { verifyWebhookSignature } = require("../node_modules/creem/dist/commonjs/webhooks.js");
      return verifyWebhookSignature(body, headers, secret);
    },
  ),
  gr4vy: {
    package: "@gr4vy/sdk",
    secret: "gr4vy_webhook_secret",
    timed: true,
    header: "x-gr4vy-webhook-signatures",
    body: '{"type":"event","id":"fe26475d-ec3e","target":{"type":"transaction","id":"t1"}}',
    sign: ({ secret, body, time }) => ({
      "x-gr4vy-webhook-signatures": hex(secret, `${time}.${body}`),
      "x-gr4vy-webhook-timestamp": `${time}`,
    }),
    verify({ secret, body, headers }) {
      const { verifyWebhook } = require("@gr4vy/sdk/lib/webhooks.js");
      const { "x-gr4vy-webhook-signatures": signatures, "x-gr4vy-webhook-timestamp": time } = headers;
      verifyWebhook(body, secret, signatures, time, 300);
    },
    lenient: ["future"],
  },
  fingerprint: plain(
    "@fingerprint/node-sdk",
    "fpjs-event-signature",
    '{"event_id":"1700000000000.abc","timestamp":1700000000000}',
    async ({ secret, body, headers }) => {
      const { isValidWebhookSignature } = require("@fingerprint/node-sdk");
      const header = headers["fpjs-event-signature"] ?? "";
      return isValidWebhookSignature({ header, data: Buffer.from(body), secret });
    },
    { sign: ({ secret, body }) => ({ "fpjs-event-signature": `v1=${hex(secret, body)}` }) },
  ),
  "kontent-ai": plain(
    "@kontent-ai/webhook-helper",
    "x-kc-signature",
    '{"data":{"items":[{"id":"i1"}]},"message":{"id":"m1","type":"content_item","operation":"publish"}}',
    ({ secret, body, headers }) => {
      const { signatureHelper } = require("@kontent-ai/webhook-helper");
      return signatureHelper.isValidSignatureFromString(body, secret, headers["x-kc-signature"]);
    },
    { sign: ({ secret, body }) => ({ "x-kc-signature": base64(secret, body) }) },
  ),
  cloudconvert: plain(
    "cloudconvert",
    "cloudconvert-signature",
    '{"event":"job.finished","job":{"id":"j1","status":"finished"}}',
    async ({ secret, body, headers }) => {
      const { default: CloudConvert } = await import("cloudconvert");
      const client = new CloudConvert("key");
      return client.webhooks.verify(body, headers["cloudconvert-signature"], secret);
    },
  ),
  schematic: {
    made_by: "sdk",
    package: "@schematichq/schematic-typescript-node",
    secret: "schematic_webhook_secret",
    timed: true,
    header: "x-schematic-webhook-signature",
    body: '{"action":"company.updated","entity_id":"comp_1","object_id":"o1"}',
    async sign({ secret, body, time }) {
      const { computeHexSignature } = require("@schematichq/schematic-typescript-node");
      return {
        "x-schematic-webhook-signature": await computeHexSignature(body, `${time}`, secret),
        "x-schematic-webhook-timestamp": `${time}`,
      };
    },
    verify({ secret, body, headers }) {
      const sdk = require("@schematichq/schematic-typescript-node");
      const { "x-schematic-webhook-signature": signature, "x-schematic-webhook-timestamp": time } =
        headers;
      if (!signature) return false;
      return sdk.verifySignature(body, signature, time, secret);
    },
    lenient: ["stale", "future"],
  },
  nango: plain(
    "@nangohq/node",
    "x-nango-hmac-sha256",
    '{"type":"sync","connectionId":"c1","providerConfigKey":"github","success":true}',
    async ({ secret, body, headers }) => {
      const { Nango } = await import("@nangohq/node");
      return new Nango({ secretKey: secret }).verifyIncomingWebhookRequest(body, headers);
    },
  ),
  terra: listed(
    "terra-api",
    "terra-signature",
    '{"type":"activity","user":{"user_id":"u1"},"data":[]}',
    async ({ secret, body, headers }) => {
      const sdk = require("../node_modules/terra-api/dist/cjs/utils.js");
      return sdk.verifyTerraWebhookSignature(body, headers["terra-signature"], secret);
    },
  ),
  zoom: {
    package: "@zoom/rivet",
    secret: "zoom_secret_token",
    timed: true,
    header: "x-zm-signature",
    body: '{"event":"meeting.started","payload":{"account_id":"a1","object":{"id":"m1"}},"event_ts":1700000000000}',
    sign: ({ secret, body, time }) => ({
      "x-zm-signature": `v0=${hex(secret, `v0:${time}:${body}`)}`,
      "x-zm-request-timestamp": `${time}`,
    }),
    async verify({ secret, body, headers }) {
      const { AwsLambdaReceiver } = require("@zoom/rivet/users");
      const handler = new AwsLambdaReceiver({ webhooksSecretToken: secret }).start();
      const silent = { debug: console.debug, error: console.error };
      Object.assign(console, { debug() {}, error() {} });
      const answer = await handler({ body, headers, isBase64Encoded: false }, {});
      Object.assign(console, silent);
      return answer.statusCode === 200;
    },
    // It leaves the time to its users.
    lenient: ["stale", "future"],
  },
  box: {
    package: "box-node-sdk",
    secret: "box_primary_key",
    timed: true,
    header: "box-signature-primary",
    body: '{"type":"webhook_event","id":"0f5ab5ab","trigger":"FILE.UPLOADED","source":{"id":"f1"}}',
    sign({ secret, body, time }) {
      const at = new RealDate(time * 1000).toISOString().replace(".000Z", "-00:00");
      return {
        "box-delivery-id": "f96bb54b",
        "box-delivery-timestamp": at,
        "box-signature-algorithm": "HmacSHA256",
        "box-signature-primary": base64(secret, `${body}${at}`),
        "box-signature-version": "1",
      };
    },
    async verify({ secret, body, headers }) {
      const { WebhooksManager } = require("box-node-sdk/managers/webhooks");
      return WebhooksManager.validateMessage(body, headers, secret);
    },
  },
  "hubspot-v1": {
    package: "@hubspot/api-client",
    secret: "hubspot_client_secret",
    header: "x-hubspot-signature",
    body: '[{"eventId":1,"subscriptionType":"contact.creation","objectId":123}]',
    sign: ({ secret, body }) => ({ "x-hubspot-signature": digest("sha256", `${secret}${body}`) }),
    verify({ secret, body, headers }) {
      const { Signature } = require("@hubspot/api-client");
      return Signature.isValid({
        signature: headers["x-hubspot-signature"],
        signatureVersion: "v1",
        clientSecret: secret,
        requestBody: body,
      });
    },
  },
  "hubspot-v2": {
    package: "@hubspot/api-client",
    secret: "hubspot_client_secret",
    header: "x-hubspot-signature",
    url: "https://hooks.example.com/in/hubspot?a=1",
    body: '[{"eventId":1,"subscriptionType":"contact.creation","objectId":123}]',
    sign: ({ secret, body, url }) => ({
      "x-hubspot-signature": digest("sha256", `${secret}POST${url}${body}`),
    }),
    verify({ secret, body, headers, url }) {
      const { Signature } = require("@hubspot/api-client");
      return Signature.isValid({
        signature: headers["x-hubspot-signature"],
        signatureVersion: "v2",
        clientSecret: secret,
        requestBody: body,
        method: "POST",
        url,
      });
    },
  },
};
