// Signatures in a header over the body, the time, the address.

import { sign as signWith } from "node:crypto";
import { createRequire } from "node:module";

import {
  NOW, WHSEC, OTHER_WHSEC, hmac, hex, base64, whsec, standard, ed25519, ed25519Other, raw, p256,
  p256Other, spki,
} from "./lib.mjs";

const require = createRequire(import.meta.url);
const RealDate = Date;

export const headers = {
  stripe: {
    made_by: "sdk",
    package: "stripe",
    secret: "whsec_test_secret",
    timed: true,
    header: "stripe-signature",
    body: '{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"charge.succeeded"}',
    sign({ secret, body, time }) {
      const { webhooks } = require("stripe")("sk_test");
      return {
        "stripe-signature": webhooks.generateTestHeaderString({
          payload: body,
          secret,
          timestamp: time,
        }),
      };
    },
    verify({ secret, body, headers }) {
      const { webhooks } = require("stripe")("sk_test");
      return webhooks.constructEvent(body, headers["stripe-signature"] ?? "", secret);
    },
    // Its SDK takes any time in the future.
    lenient: ["future"],
  },
  github: {
    made_by: "sdk",
    package: "@octokit/webhooks-methods",
    secret: "It's a Secret to Everybody",
    header: "x-hub-signature-256",
    sign: async ({ secret, body }) => ({
      "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
      "x-github-event": "push",
      "x-hub-signature-256": await (
        await import("@octokit/webhooks-methods")
      ).sign(secret, body),
    }),
    async verify({ secret, body, headers }) {
      const { verify } = await import("@octokit/webhooks-methods");
      return verify(secret, body, headers["x-hub-signature-256"] ?? "");
    },
  },
  "standard-webhooks": {
    package: "standardwebhooks",
    ...standard("webhook", ({ secret, body, headers }) => {
      const { Webhook } = require("standardwebhooks");
      return new Webhook(secret).verify(body, headers);
    }),
  },
  svix: {
    package: "svix",
    ...standard("svix", ({ secret, body, headers }) => {
      const { Webhook } = require("svix");
      return new Webhook(secret).verify(body, headers);
    }),
  },
  resend: {
    package: "resend",
    ...standard("svix", ({ secret, body, headers }) => {
      const { Resend } = require("resend");
      return new Resend("re_x").webhooks.verify({
        payload: body,
        headers: {
          id: headers["svix-id"],
          timestamp: headers["svix-timestamp"],
          signature: headers["svix-signature"],
        },
        webhookSecret: secret,
      });
    }),
  },
  openai: {
    package: "openai",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: OpenAI } = await import("openai");
      const client = new OpenAI({ apiKey: "x", webhookSecret: secret });
      return client.webhooks.unwrap(body, headers, secret);
    }),
  },
  anthropic: {
    package: "@anthropic-ai/sdk",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: Anthropic } = await import("@anthropic-ai/sdk");
      return new Anthropic({ apiKey: "x" }).beta.webhooks.unwrap(body, { headers, key: secret });
    }),
  },
  lithic: {
    package: "lithic",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: Lithic } = await import("lithic");
      return new Lithic({ apiKey: "x" }).webhooks.unwrap(body, headers, secret);
    }),
  },
  replicate: {
    package: "replicate",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { validateWebhook } = require("replicate");
      return validateWebhook({
        id: headers["webhook-id"],
        timestamp: headers["webhook-timestamp"],
        signature: headers["webhook-signature"],
        body,
        secret,
      });
    }),
    // It leaves the time to its users.
    lenient: ["stale", "future"],
  },
  liveblocks: {
    package: "@liveblocks/node",
    ...standard("webhook", ({ secret, body, headers }) => {
      const { WebhookHandler } = require("@liveblocks/node");
      return new WebhookHandler(secret).verifyRequest({ headers, rawBody: body });
    }),
    body: '{"type":"userEntered","data":{"projectId":"p","roomId":"r","connectionId":1,"userId":"u","userInfo":null,"enteredAt":"2023-11-14T22:13:20.000Z","numActiveUsers":1}}',
  },
  polar: {
    package: "@polar-sh/sdk",
    ...standard(
      "webhook",
      async ({ secret, body, headers }) => {
        const { validateEvent, WebhookVerificationError } = await import("@polar-sh/sdk/webhooks");
        try {
          return await validateEvent(body, headers, secret);
        } catch (error) {
          // That it knows no such event comes after the signature.
          if (error instanceof WebhookVerificationError) throw error;
          return true;
        }
      },
      { secret: "polar_whs_secret", other: "polar_whs_another", key: (secret) => secret },
    ),
  },
  razorpay: {
    package: "razorpay",
    secret: "razorpay_secret",
    header: "x-razorpay-signature",
    sign: ({ secret, body }) => ({
      "x-razorpay-event-id": "evt_00000000000001",
      "x-razorpay-signature": hex(secret, body),
    }),
    verify({ secret, body, headers }) {
      const Razorpay = require("razorpay");
      return Razorpay.validateWebhookSignature(body, headers["x-razorpay-signature"], secret);
    },
  },
  mux: {
    package: "@mux/mux-node",
    secret: "mux_secret",
    timed: true,
    header: "mux-signature",
    sign: ({ secret, body, time }) => ({
      "mux-signature": `t=${time},v1=${hex(secret, `${time}.${body}`)}`,
    }),
    async verify({ secret, body, headers }) {
      const { default: Mux } = await import("@mux/mux-node");
      const client = new Mux({ tokenId: "x", tokenSecret: "x", webhookSecret: secret });
      return client.webhooks.verifySignature(body, headers, secret);
    },
    lenient: ["future"],
  },
  workos: {
    package: "@workos-inc/node",
    secret: "workos_secret",
    timed: true,
    header: "workos-signature",
    sign: ({ secret, body, time }) => ({
      "workos-signature": `t=${time * 1000}, v1=${hex(secret, `${time * 1000}.${body}`)}`,
    }),
    async verify({ secret, body, headers }) {
      const { WorkOS } = require("@workos-inc/node");
      return new WorkOS("sk_x").webhooks.verifyHeader({
        payload: JSON.parse(body),
        sigHeader: headers["workos-signature"],
        secret,
      });
    },
    lenient: ["future"],
  },
  paddle: {
    package: "@paddle/paddle-node-sdk",
    secret: "pdl_ntfset_secret",
    timed: true,
    header: "paddle-signature",
    sign: ({ secret, body, time }) => ({
      "paddle-signature": `ts=${time};h1=${hex(secret, `${time}:${body}`)}`,
    }),
    async verify({ secret, body, headers }) {
      const { Paddle } = require("@paddle/paddle-node-sdk");
      return new Paddle("x").webhooks.isSignatureValid(body, secret, headers["paddle-signature"]);
    },
    lenient: ["future"],
  },
  elevenlabs: {
    package: "@elevenlabs/elevenlabs-js",
    secret: "wsec_elevenlabs",
    timed: true,
    header: "elevenlabs-signature",
    sign: ({ secret, body, time }) => ({
      "elevenlabs-signature": `t=${time},v0=${hex(secret, `${time}.${body}`)}`,
    }),
    async verify({ secret, body, headers }) {
      const { ElevenLabsClient } = require("@elevenlabs/elevenlabs-js");
      const client = new ElevenLabsClient({ apiKey: "x" });
      return client.webhooks.constructEvent(body, headers["elevenlabs-signature"], secret);
    },
    lenient: ["future"],
  },
  sanity: {
    made_by: "sdk",
    package: "@sanity/webhook",
    secret: "sanity_secret",
    timed: true,
    header: "sanity-webhook-signature",
    async sign({ secret, body, time }) {
      const { encodeSignatureHeader } = await import("@sanity/webhook");
      return {
        "idempotency-key": "evt_sanity_1",
        "sanity-webhook-signature": await encodeSignatureHeader(body, time * 1000, secret),
      };
    },
    async verify({ secret, body, headers }) {
      const { assertValidSignature } = await import("@sanity/webhook");
      return assertValidSignature(body, headers["sanity-webhook-signature"] ?? "", secret);
    },
    // It leaves the time to its users.
    lenient: ["stale", "future"],
  },
  retell: {
    package: "retell-sdk",
    secret: "key_retell",
    timed: true,
    header: "x-retell-signature",
    sign: ({ secret, body, time }) => ({
      "x-retell-signature": `v=${time * 1000},d=${hex(secret, `${body}${time * 1000}`)}`,
    }),
    async verify({ secret, body, headers }) {
      const { default: Retell } = await import("retell-sdk");
      return Retell.verify(body, secret, headers["x-retell-signature"] ?? "");
    },
  },
  slack: {
    package: "@slack/bolt",
    secret: "slack_signing_secret",
    timed: true,
    header: "x-slack-signature",
    sign: ({ secret, body, time }) => ({
      "x-slack-request-timestamp": `${time}`,
      "x-slack-signature": `v0=${hex(secret, `v0:${time}:${body}`)}`,
    }),
    verify({ secret, body, headers }) {
      const { verifySlackRequest } = require("../node_modules/@slack/bolt/dist/receivers/verify-request.js");
      verifySlackRequest({
        signingSecret: secret,
        body,
        headers: {
          "x-slack-signature": headers["x-slack-signature"],
          "x-slack-request-timestamp": Number(headers["x-slack-request-timestamp"]),
        },
        nowMilliseconds: NOW * 1000,
      });
    },
    lenient: ["future"],
  },
  line: {
    package: "@line/bot-sdk",
    secret: "line_channel_secret",
    header: "x-line-signature",
    sign: ({ secret, body }) => ({ "x-line-signature": base64(secret, body) }),
    verify({ secret, body, headers }) {
      const { validateSignature } = require("@line/bot-sdk");
      return validateSignature(body, secret, headers["x-line-signature"]);
    },
  },
  gocardless: {
    package: "gocardless-nodejs",
    secret: "gocardless_secret",
    header: "webhook-signature",
    body: '{"events":[{"id":"EV000001","resource_type":"payments","action":"confirmed"}],"meta":{"webhook_id":"WB000001"}}',
    sign: ({ secret, body }) => ({ "webhook-signature": hex(secret, body) }),
    verify({ secret, body, headers }) {
      const { parse } = require("gocardless-nodejs/webhooks");
      return parse(body, secret, headers["webhook-signature"]);
    },
  },
  "modern-treasury": {
    package: "modern-treasury",
    secret: "modern_treasury_key",
    header: "x-signature",
    sign: ({ secret, body }) => ({
      "x-webhook-id": "7d2b1d1c-9f0e-4c55-9d5f-0a2b4f6f8f7e",
      "x-signature": hex(secret, body),
    }),
    async verify({ secret, body, headers }) {
      const { default: ModernTreasury } = await import("modern-treasury");
      const client = new ModernTreasury({ apiKey: "x", organizationID: "x" });
      return client.webhooks.validateSignature(body, headers, { key: secret });
    },
  },
  "coinbase-commerce": {
    package: "coinbase-commerce-node",
    secret: "coinbase_shared_secret",
    header: "x-cc-webhook-signature",
    body: '{"id":1,"event":{"id":"24934862-d980-46cb-9402-43c81b0cdba6","type":"charge:confirmed"}}',
    sign: ({ secret, body }) => ({ "x-cc-webhook-signature": hex(secret, body) }),
    verify({ secret, body, headers }) {
      const { Webhook } = require("coinbase-commerce-node");
      return Webhook.verifySigHeader(body, headers["x-cc-webhook-signature"], secret);
    },
  },
  notion: {
    package: "@notionhq/client",
    secret: "secret_notion_token",
    header: "x-notion-signature",
    sign: ({ secret, body }) => ({ "x-notion-signature": `sha256=${hex(secret, body)}` }),
    async verify({ secret, body, headers }) {
      const { verifyWebhookSignature } = require("@notionhq/client");
      return verifyWebhookSignature({
        body,
        signature: headers["x-notion-signature"],
        verificationToken: secret,
      });
    },
  },
  linear: {
    package: "@linear/sdk",
    secret: "lin_wh_secret",
    header: "linear-signature",
    timed: true,
    body: (time) => `{"type":"Issue","action":"create","webhookTimestamp":${time * 1000}}`,
    sign: ({ secret, body }) => ({
      "linear-delivery": "234d1a4e-b617-4388-90fe-adc3633d6b72",
      "linear-signature": hex(secret, body),
    }),
    async verify({ secret, body, headers }) {
      const { LinearWebhookClient } = require("@linear/sdk/webhooks");
      const client = new LinearWebhookClient(secret);
      return client.verify(
        Buffer.from(body),
        headers["linear-signature"],
        JSON.parse(body).webhookTimestamp,
      );
    },
  },
  discord: {
    package: "discord-interactions",
    secret: raw(ed25519).toString("hex"),
    other: raw(ed25519Other).toString("hex"),
    timed: true,
    header: "x-signature-ed25519",
    sign({ secret, body, time }) {
      const pair = secret === raw(ed25519).toString("hex") ? ed25519 : ed25519Other;
      const signature = signWith(null, Buffer.from(`${time}${body}`), pair.privateKey);
      return {
        "x-signature-ed25519": signature.toString("hex"),
        "x-signature-timestamp": `${time}`,
      };
    },
    verify({ secret, body, headers }) {
      const { verifyKey } = require("discord-interactions");
      return verifyKey(
        body,
        headers["x-signature-ed25519"] ?? "",
        headers["x-signature-timestamp"],
        secret,
      );
    },
    lenient: ["stale", "future"],
  },
  sendgrid: {
    package: "@sendgrid/eventwebhook",
    secret: spki(p256),
    other: spki(p256Other),
    timed: true,
    header: "x-twilio-email-event-webhook-signature",
    body: '[{"event":"delivered","sg_event_id":"ZGVsaXZlcmVk"}]\r\n',
    sign({ secret, body, time }) {
      const pair = secret === spki(p256) ? p256 : p256Other;
      return {
        "x-twilio-email-event-webhook-signature": signWith(
          "sha256",
          Buffer.from(`${time}${body}`),
          pair.privateKey,
        ).toString("base64"),
        "x-twilio-email-event-webhook-timestamp": `${time}`,
      };
    },
    verify({ secret, body, headers }) {
      const { EventWebhook } = require("@sendgrid/eventwebhook");
      const checker = new EventWebhook();
      return checker.verifySignature(
        checker.convertPublicKeyToECDSA(secret),
        body,
        headers["x-twilio-email-event-webhook-signature"],
        headers["x-twilio-email-event-webhook-timestamp"],
      );
    },
    lenient: ["stale", "future"],
  },
  telnyx: {
    package: "telnyx",
    secret: raw(ed25519).toString("base64"),
    other: raw(ed25519Other).toString("base64"),
    timed: true,
    header: "telnyx-signature-ed25519",
    body: '{"data":{"event_type":"message.finalized","id":"0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"}}',
    sign({ secret, body, time }) {
      const pair = secret === raw(ed25519).toString("base64") ? ed25519 : ed25519Other;
      const signature = signWith(null, Buffer.from(`${time}|${body}`), pair.privateKey);
      return {
        "telnyx-signature-ed25519": signature.toString("base64"),
        "telnyx-timestamp": `${time}`,
      };
    },
    async verify({ secret, body, headers }) {
      const { default: Telnyx } = await import("telnyx");
      return new Telnyx({ apiKey: "x" }).webhooks.unwrap(body, { headers, key: secret });
    },
    lenient: ["future"],
  },
  "adyen-platform": {
    package: "@adyen/api-library",
    secret: "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    other: "54782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    header: "hmacsignature",
    body: '{"data":{"id":"BTR1234","status":"booked"},"type":"balancePlatform.transfer.updated"}',
    sign: ({ secret, body }) => ({ hmacsignature: base64(Buffer.from(secret, "hex"), body) }),
    verify({ secret, body, headers }) {
      const { hmacValidator } = require("@adyen/api-library");
      return new hmacValidator().validateHMACSignature(secret, headers.hmacsignature ?? "", body);
    },
  },
  clerk: {
    package: "@clerk/backend",
    ...standard("svix", async ({ secret, body, headers }) => {
      const { verifyWebhook } = await import("@clerk/backend/webhooks");
      const request = new Request("https://example.com/", { method: "POST", headers, body });
      return verifyWebhook(request, { signingSecret: secret });
    }),
  },
  seam: {
    package: "@seamapi/webhook",
    ...standard("svix", ({ secret, body, headers }) => {
      const { SeamWebhook } = require("@seamapi/webhook");
      return new SeamWebhook(secret).verify(body, headers);
    }),
    body: '{"event_id":"evt_1","event_type":"lock.unlocked","device_id":"dev_8172"}',
  },
  shopify: {
    package: "@shopify/shopify-api",
    secret: "shpss_app_secret",
    header: "x-shopify-hmac-sha256",
    sign: ({ secret, body }) => ({
      "x-shopify-api-version": "2025-07",
      "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
      "x-shopify-hmac-sha256": base64(secret, body),
      "x-shopify-shop-domain": "example.myshopify.com",
      "x-shopify-topic": "orders/paid",
      "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    }),
    async verify({ secret, body, headers }) {
      await import("@shopify/shopify-api/adapters/node");
      const { shopifyApi, ApiVersion, LogSeverity } = await import("@shopify/shopify-api");
      const shopify = shopifyApi({
        apiKey: "x",
        apiSecretKey: secret,
        hostName: "example.com",
        apiVersion: Object.values(ApiVersion)[0],
        isEmbeddedApp: false,
        logger: { level: LogSeverity.Error, log: () => {} },
      });
      const rawRequest = { method: "POST", url: "/", headers };
      const { valid } = await shopify.webhooks.validate({ rawBody: body, rawRequest });
      return valid;
    },
  },
  square: {
    package: "square",
    secret: "square_signature_key",
    url: "https://hooks.example.com/in/square?shop=1",
    header: "x-square-hmacsha256-signature",
    body: '{"merchant_id":"M1","type":"payment.updated","event_id":"13b867cf-db3d-4b1c-90b6-2f32a9d78124"}',
    sign: ({ secret, body, url }) => ({
      "x-square-hmacsha256-signature": base64(secret, url + body),
    }),
    async verify({ secret, body, headers, url }) {
      const { WebhooksHelper } = require("square");
      return WebhooksHelper.verifySignature({
        requestBody: body,
        signatureHeader: headers["x-square-hmacsha256-signature"] ?? "",
        signatureKey: secret,
        notificationUrl: url,
      });
    },
  },
  hubspot: {
    package: "@hubspot/api-client",
    secret: "hubspot_client_secret",
    url: "https://hooks.example.com/in/hubspot",
    timed: true,
    header: "x-hubspot-signature-v3",
    body: '[{"eventId":1,"subscriptionType":"contact.creation","occurredAt":1700000000000}]',
    sign: ({ secret, body, time, url }) => ({
      "x-hubspot-request-timestamp": `${time * 1000}`,
      "x-hubspot-signature-v3": base64(secret, `POST${url}${body}${time * 1000}`),
    }),
    verify({ secret, body, headers, url }) {
      const { Signature } = require("@hubspot/api-client");
      return Signature.isValid({
        signature: headers["x-hubspot-signature-v3"],
        signatureVersion: "v3",
        timestamp: Number(headers["x-hubspot-request-timestamp"]),
        clientSecret: secret,
        method: "POST",
        requestBody: body,
        url,
      });
    },
    lenient: ["future"],
  },
  webflow: {
    package: "webflow-api",
    secret: "webflow_client_secret",
    timed: true,
    header: "x-webflow-signature",
    body: '{"triggerType":"form_submission","payload":{"name":"Contact","siteId":"s1"}}',
    sign: ({ secret, body, time }) => ({
      "x-webflow-signature": hex(secret, `${time * 1000}:${body}`),
      "x-webflow-timestamp": `${time * 1000}`,
    }),
    verify({ secret, body, headers }) {
      const { WebflowClient } = require("webflow-api");
      return new WebflowClient({ accessToken: "x" }).webhooks.verifySignature({
        headers,
        body,
        secret,
      });
    },
    // It leaves the time to its users.
    lenient: ["stale", "future"],
  },
  cashfree: {
    package: "cashfree-pg",
    secret: "cfsk_client_secret",
    timed: true,
    header: "x-webhook-signature",
    body: '{"type":"PAYMENT_SUCCESS_WEBHOOK","data":{"order":{"order_id":"o1"}}}',
    sign: ({ secret, body, time }) => ({
      "x-webhook-signature": base64(secret, `${time * 1000}${body}`),
      "x-webhook-timestamp": `${time * 1000}`,
    }),
    verify({ secret, body, headers }) {
      const { Cashfree, CFEnvironment } = require("cashfree-pg");
      const client = new Cashfree(CFEnvironment.SANDBOX, "id", secret);
      const { "x-webhook-signature": signature, "x-webhook-timestamp": time } = headers;
      return client.PGVerifyWebhookSignature(signature, body, time);
    },
    lenient: ["stale", "future"],
  },
  onfido: {
    package: "@onfido/api",
    secret: "onfido_webhook_token",
    header: "x-sha2-signature",
    body: '{"payload":{"resource_type":"check","action":"check.completed","object":{"id":"c1"}}}',
    sign: ({ secret, body }) => ({ "x-sha2-signature": hex(secret, body) }),
    verify({ secret, body, headers }) {
      const { WebhookEventVerifier } = require("@onfido/api");
      return new WebhookEventVerifier(secret).readPayload(body, headers["x-sha2-signature"]);
    },
  },
  finch: {
    package: "@tryfinch/finch-api",
    secret: "5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH",
    other: "6WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH",
    timed: true,
    header: "finch-signature",
    id: "finch-event-id",
    body: '{"event_type":"account.updated","company_id":"720be419","data":{"status":"connected"}}',
    sign: ({ secret, body, time, id }) => ({
      "finch-event-id": id,
      "finch-signature":
        "v1," + base64(Buffer.from(secret, "base64"), `${id}.${time}.${body}`),
      "finch-timestamp": `${time}`,
    }),
    async verify({ secret, body, headers }) {
      const { default: Finch } = await import("@tryfinch/finch-api");
      return new Finch({ accessToken: "x" }).webhooks.unwrap(body, headers, secret);
    },
  },
  orb: {
    package: "orb-billing",
    secret: "orb_webhook_secret",
    timed: true,
    header: "x-orb-signature",
    body: '{"id":"o4mmewpfNNTnjfZc","created_at":"2023-11-14T22:13:20+00:00","type":"invoice.issued"}',
    sign({ secret, body, time }) {
      const written = new RealDate(time * 1000).toISOString().replace("Z", "");
      return {
        "x-orb-signature": `v1=${hex(secret, `v1:${written}:${body}`)}`,
        "x-orb-timestamp": written,
      };
    },
    async verify({ secret, body, headers }) {
      const { default: Orb } = await import("orb-billing");
      return new Orb({ apiKey: "x" }).webhooks.unwrap(body, headers, secret);
    },
  },
  dodopayments: {
    package: "dodopayments",
    ...standard("webhook", async ({ secret, body, headers }) => {
      const { default: Dodo } = await import("dodopayments");
      return new Dodo({ bearerToken: "x" }).webhooks.unwrap(body, { headers, key: secret });
    }),
  },
  pusher: {
    package: "pusher",
    secret: "pusher_app_secret",
    header: "x-pusher-signature",
    body: '{"time_ms":1700000000000,"events":[{"name":"channel_occupied","channel":"c"}]}',
    sign: ({ secret, body }) => ({
      "x-pusher-key": "app_key",
      "x-pusher-signature": hex(secret, body),
    }),
    verify({ secret, body, headers }) {
      const Pusher = require("pusher");
      const client = new Pusher({ appId: "1", key: "app_key", secret });
      return client
        .webhook({ headers: { "content-type": "application/json", ...headers }, rawBody: body })
        .isValid();
    },
  },
};
