// What no template says: each has a canonical form of its own.

import { createHash, createHmac, createSign, generateKeyPairSync } from "node:crypto";
import { createRequire } from "node:module";

import { certified, hex } from "./lib.mjs";

const require = createRequire(import.meta.url);
const form = (fields) => new URLSearchParams(fields).toString();
const parsed = (body) => Object.fromEntries(new URLSearchParams(body));

const BOUNDARY = "------------------------d74496d66958873e";
const multipart = (fields) =>
  Object.entries(fields)
    .map(([name, value]) => `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`)
    .join("") + `--${BOUNDARY}--\r\n`;

/** An Adyen notification, signed; what the provider's SDK takes is the item. */
const ADYEN_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const adyen = (body) => JSON.parse(body).notificationItems[0].NotificationRequestItem;
const withSignature = (body, signature) => {
  const whole = JSON.parse(body);
  whole.notificationItems[0].NotificationRequestItem.additionalData.hmacSignature = signature;
  return JSON.stringify(whole);
};

const braintree = (privateKey) => {
  const { BraintreeGateway, Environment } = require("braintree");
  return new BraintreeGateway({
    environment: Environment.Sandbox,
    merchantId: "m",
    publicKey: "public_key",
    privateKey,
  });
};

export const canonical = {
  adyen: {
    made_by: "sdk",
    package: "@adyen/api-library",
    secret: ADYEN_KEY,
    other: ADYEN_KEY.replace("44", "45"),
    inBody: true,
    body: JSON.stringify({
      live: "false",
      notificationItems: [
        {
          NotificationRequestItem: {
            additionalData: { hmacSignature: "" },
            amount: { currency: "EUR", value: 1130 },
            eventCode: "AUTHORISATION",
            eventDate: "2023-11-14T22:13:20+01:00",
            merchantAccountCode: "TestMerchant",
            merchantReference: "TestPayment-1407325143704",
            pspReference: "7914073381342284",
            success: "true",
          },
        },
      ],
    }),
    sign({ secret, body }) {
      const { hmacValidator: Validator } = require("@adyen/api-library");
      const signature = new Validator().calculateHmac(adyen(body), secret);
      return { body: withSignature(body, signature) };
    },
    tamper: (body) => body.replace("1130", "1131"),
    unsign: (body) => withSignature(body, undefined),
    malform: (body) => withSignature(body, "no signature!"),
    verify({ secret, body }) {
      const { hmacValidator: Validator } = require("@adyen/api-library");
      return new Validator().validateHMAC(adyen(body), secret);
    },
  },
  braintree: {
    made_by: "sdk",
    package: "braintree",
    secret: "private_key",
    inBody: true,
    sign({ secret }) {
      const { bt_signature, bt_payload } = braintree(secret).webhookTesting.sampleNotification(
        "subscription_went_past_due",
        "my_id",
      );
      return { body: form({ bt_signature, bt_payload }) };
    },
    tamper(body) {
      const { bt_signature, bt_payload } = parsed(body);
      return form({ bt_signature, bt_payload: `Q${bt_payload.slice(1)}` });
    },
    unsign: (body) => form({ bt_payload: parsed(body).bt_payload }),
    malform: (body) => form({ bt_signature: "no signature", bt_payload: parsed(body).bt_payload }),
    async verify({ secret, body }) {
      const { bt_signature, bt_payload } = parsed(body);
      return braintree(secret).webhookNotification.parse(bt_signature, bt_payload);
    },
  },
  "dropbox-sign": {
    package: "@dropbox/sign",
    secret: "api_key",
    inBody: true,
    timed: true,
    far: 5 * 24 * 3600,
    // Its SDK looks at no time.
    lenient: ["stale", "future", "field_twice"],
    headers: { "content-type": `multipart/form-data; boundary=${BOUNDARY}` },
    sign({ secret, time }) {
      const [event_type, event_time] = ["signature_request_sent", `${time}`];
      const event = { event_type, event_time, event_hash: hex(secret, event_time + event_type) };
      return { body: multipart({ json: JSON.stringify({ event, signature_request: { title: "Lease" } }) }) };
    },
    tamper: (body) => body.replace("request_sent", "request_remind"),
    unsign: (body) => body.replace("event_hash", "event_hush"),
    malform: (body) => body.replace(/"event_hash":"../, '"event_hash":"no'),
    others: {
      field_twice: [(body) => multipart({ json: "{}" }).replace(/--\r\n$/, "") + body.slice(`--${BOUNDARY}`.length), "signature_missing"],
      another_field: [(body) => body.replace('name="json"', 'name="data"'), "signature_missing"],
      no_end: [(body) => body.slice(0, -10), "signature_missing"],
    },
    async verify({ secret, body, headers }) {
      const { EventCallbackHelper, EventCallbackRequest } = require("@dropbox/sign");
      const form = await new Response(body, { headers }).formData();
      return EventCallbackHelper.isValid(secret, EventCallbackRequest.init(JSON.parse(form.get("json"))));
    },
  },
  twilio: {
    made_by: "sdk",
    package: "twilio",
    secret: "12345",
    header: "x-twilio-signature",
    url: "https://hooks.example.com/in/twilio?foo=1&bar=2",
    body: "CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212&a=2&a=1&a=2&Empty=",
    sign({ secret, body, url }) {
      const { getExpectedTwilioSignature } = require("twilio/lib/webhooks/webhooks");
      const fields = {};
      for (const [name, value] of new URLSearchParams(body)) (fields[name] ??= []).push(value);
      return { "x-twilio-signature": getExpectedTwilioSignature(secret, url, fields) };
    },
    verify({ secret, body, headers, url }) {
      const { validateRequest } = require("twilio");
      const fields = {};
      for (const [name, value] of new URLSearchParams(body)) (fields[name] ??= []).push(value);
      return validateRequest(secret, headers["x-twilio-signature"], url, fields);
    },
  },
  "twilio-body": {
    provider: "twilio",
    made_by: "sdk",
    package: "twilio",
    secret: "12345",
    header: "x-twilio-signature",
    body: '{"property": "value", "boolean": true}',
    url:
      "https://hooks.example.com/in/twilio?bodySHA256=" +
      createHash("sha256").update('{"property": "value", "boolean": true}').digest("hex"),
    sign({ secret, url }) {
      const { getExpectedTwilioSignature } = require("twilio/lib/webhooks/webhooks");
      return { "x-twilio-signature": getExpectedTwilioSignature(secret, url, {}) };
    },
    verify({ secret, body, headers, url }) {
      const { validateRequestWithBody } = require("twilio");
      return validateRequestWithBody(secret, headers["x-twilio-signature"], url, body);
    },
    // The digest isn't the signature's: it says only that something doesn't fit.
    reasons: { tampered_body: "refused" },
  },
  plivo: {
    package: "plivo",
    secret: "plivo_auth_token",
    header: "x-plivo-signature-v3",
    id: "x-plivo-signature-v3-nonce",
    url: "https://hooks.example.com/in/plivo?b=2&a=1",
    body: "MessageUUID=db3ce55a-7f1d-11e1-8ea7-1231380bc196&Status=delivered&To=14153336666&From=14153337777",
    sign({ secret, body, id, url }) {
      const [base, query] = url.split("?");
      const sorted = (text) => [...new URLSearchParams(text)].sort();
      const ordered = sorted(query ?? "").map(([name, value]) => `${name}=${value}`).join("&");
      const fields = sorted(body).map((pair) => pair.join("")).join("");
      const content = `${base}?${ordered}${ordered ? "." : ""}${fields}.${id}`;
      return {
        "x-plivo-signature-v3-nonce": id,
        "x-plivo-signature-v3": createHmac("sha256", secret).update(content).digest("base64"),
      };
    },
    verify({ secret, body, headers, url }) {
      const { validateV3Signature } = require("plivo/dist/utils/v3Security");
      const { "x-plivo-signature-v3-nonce": nonce, "x-plivo-signature-v3": signature } = headers;
      return validateV3Signature("POST", url, nonce, secret, signature ?? "", parsed(body));
    },
  },
  contentful: {
    made_by: "sdk",
    package: "@contentful/node-apps-toolkit",
    timed: true,
    secret: "contentful_signing_secret_of_64_characters_0123456789abcdefghijk".padEnd(64, "x"),
    other: "another_signing_secret_of_64_characters_0123456789abcdefghijklmn".padEnd(64, "x"),
    header: "x-contentful-signature",
    url: "https://hooks.example.com/in/contentful",
    body: '{"sys":{"type":"Entry","id":"e1"}}',
    sign({ secret, body, time, url }) {
      const { signRequest } = require("@contentful/node-apps-toolkit");
      const headers = { "x-contentful-topic": "ContentManagement.Entry.publish" };
      const request = { method: "POST", path: new URL(url).pathname, headers, body };
      return { ...headers, ...signRequest(secret, request, time * 1000) };
    },
    verify({ secret, body, headers, url }) {
      const { verifyRequest } = require("@contentful/node-apps-toolkit");
      const request = { method: "POST", path: new URL(url).pathname, headers, body };
      return verifyRequest(secret, request, 300);
    },
    lenient: ["future"],
  },
  easypost: {
    package: "@easypost/api",
    secret: "easypost_webhook_secret",
    header: "x-hmac-signature",
    body: '{"id":"evt_1","description":"batch.created","result":{"parcel":{"weight":12},"weight": 7 ,"length":10.0}}',
    sign: ({ secret, body }) => {
      const content = body.replace('"weight":12', '"weight":12.0').replace('"weight": 7 ,', '"weight": 7.0,');
      const tag = createHmac("sha256", secret).update(content).digest("hex");
      return { "x-hmac-signature": `hmac-sha256-hex=${tag}` };
    },
    async verify({ secret, body, headers }) {
      const { default: EasyPost } = await import("@easypost/api");
      const client = new EasyPost("key");
      return client.Utils.validateWebhook(Buffer.from(body), headers, secret);
    },
  },
};

// AWS SNS: the SDK fetches the certificate, here from this process.

const sns = certified("sns.amazonaws.com");
const ARN = "arn:aws:sns:eu-west-1:123456789012:events";
const CERTIFICATE =
  "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem";
const written = (time) => new Date(time * 1000).toISOString();

const signedBySns = (message, key) => {
  const confirms = message.Type !== "Notification";
  const names = confirms
    ? ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    : ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
  const content = names
    .filter((name) => name in message)
    .map((name) => `${name}\n${message[name]}\n`)
    .join("");
  const Signature = createSign("RSA-SHA256").update(content).sign(key, "base64");
  return JSON.stringify({ ...message, Signature });
};

const snsProvider = (more, changes = {}) => ({
  provider: "aws-sns",
  package: "sns-validator",
  // The topic.
  secret: ARN,
  other: "of_another",
  inBody: true,
  timed: true,
  key: () => sns().own.pem,
  sign({ secret, time }) {
    const { own, other } = sns();
    const message = {
      Type: "Notification",
      MessageId: "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
      TopicArn: ARN,
      Message: '{"transfer":"trf_8172","note":"üñí\\n"}',
      Timestamp: written(time),
      SignatureVersion: "2",
      SigningCertURL: CERTIFICATE,
      ...more,
    };
    return { body: signedBySns(message, secret === ARN ? own.key : other.key) };
  },
  tamper: (body) => body.replace("trf_8172", "trf_8173"),
  unsign: (body) => JSON.stringify({ ...JSON.parse(body), Signature: undefined }),
  malform: (body) => JSON.stringify({ ...JSON.parse(body), Signature: "no signature!" }),
  others: {
    another_message: [(body) => JSON.stringify({ ...JSON.parse(body), MessageId: "x" }), "signature_mismatch"],
    first_version: [(body) => JSON.stringify({ ...JSON.parse(body), SignatureVersion: "1" }), "signature_malformed"],
    ones_own_certificate: [
      (body) => body.replace("sns.eu-west-1.amazonaws.com", "sns.eu-west-1.amazonaws.com.evil.example"),
      "key_not_allowed",
    ],
    ...changes,
  },
  verify({ body }) {
    const https = require("node:https");
    const Validator = require("sns-validator");
    const { EventEmitter } = require("node:events");
    https.get = (url, taken) => {
      const answer = Object.assign(new EventEmitter(), { statusCode: 200 });
      taken(answer);
      answer.emit("data", sns().own.pem);
      answer.emit("end");
      return new EventEmitter();
    };
    return new Promise((resolve, reject) => {
      const message = JSON.parse(body);
      new Validator().validate(message, (error) => (error ? reject(error) : resolve(true)));
    });
  },
  // It leaves the time to its users.
  lenient: ["stale", "future"],
});

canonical["aws-sns"] = snsProvider({ Subject: "A transfer" });
canonical["aws-sns-subscription"] = snsProvider({
  Type: "SubscriptionConfirmation",
  Token: "2336412f37",
  Message: "You have chosen to subscribe to the topic trf_8172.",
  SubscribeURL:
    "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=2336412f37",
});

// TrueLayer: a detached JSON Web Signature.

const p521 = generateKeyPairSync("ec", { namedCurve: "secp521r1" });
const p521Other = generateKeyPairSync("ec", { namedCurve: "secp521r1" });
const truelayerKeys = () =>
  JSON.stringify({
    keys: [{ ...p521.publicKey.export({ format: "jwk" }), kid: "k1", alg: "ES512", use: "sig" }],
  });

canonical.truelayer = {
  made_by: "sdk",
  package: "truelayer-signing",
  // It takes none: its keys are published.
  secret: "none",
  timed: true,
  header: "tl-signature",
  url: "https://hooks.example.com/in/truelayer",
  body: '{"type":"payment_executed","event_version":1,"event_id":"evt_1","payment_id":"trf_8172"}',
  key: truelayerKeys,
  sign({ secret, body, time, url }) {
    const { sign } = require("truelayer-signing");
    const headers = { "X-Tl-Webhook-Timestamp": written(time) };
    const { privateKey } = secret === "none" ? p521 : p521Other;
    const privateKeyPem = privateKey.export({ type: "sec1", format: "pem" });
    const path = new URL(url).pathname;
    const signature = sign({ kid: "k1", privateKeyPem, method: "POST", path, headers, body });
    return { "x-tl-webhook-timestamp": written(time), "tl-signature": signature };
  },
  verify({ body, headers, url }) {
    const { verify } = require("truelayer-signing");
    const path = new URL(url).pathname;
    const signature = headers["tl-signature"];
    verify({ jwks: truelayerKeys(), signature, method: "POST", path, headers, body });
  },
  // It leaves the time to its users.
  lenient: ["stale", "future"],
};
