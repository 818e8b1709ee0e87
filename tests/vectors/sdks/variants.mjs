// Callbacks in a second form that the vendors' SDKs take as well.

import { createRequire } from "node:module";
import { gunzipSync, gzipSync } from "node:zlib";

import { canonical } from "./canonical.mjs";
import { headers } from "./headers.mjs";
import { base64, hex } from "./lib.mjs";
import { more } from "./more.mjs";
import { python } from "./python.mjs";

const require = createRequire(import.meta.url);
const RealDate = Date;
const form = (fields) => new URLSearchParams(fields).toString();
const parsed = (body) => Object.fromEntries(new URLSearchParams(body));

/** Header names changed by a pattern. */
const renamed = (all, from, to) =>
  Object.fromEntries(Object.entries(all).map(([name, value]) => [name.replace(from, to), value]));

const twilio = (fields) => (secret, url) => {
  const { getExpectedTwilioSignature } = require("twilio/lib/webhooks/webhooks");
  return { "x-twilio-signature": getExpectedTwilioSignature(secret, url, fields) };
};

/** As Box's SDK may have the body (`jsonStringifyWithEscapedUnicode`). */
const escaped = (body) =>
  body
    .replace(/[\u007f-\uffff]/g, (c) => `\\u${`0000${c.charCodeAt(0).toString(16)}`.slice(-4)}`)
    .replace(/(?<!\\)\//g, "\\/");

export const variants = {
  // Signed without the port of the address, as TwiML requests are (twilio-node#411).
  "twilio-port": {
    ...canonical.twilio,
    provider: "twilio",
    url: "https://hooks.example.com:8443/in/twilio?foo=1",
    body: "MessageSid=SM2&MessageStatus=delivered",
    sign: ({ secret, url, body }) => twilio(parsed(body))(secret, url.replace(":8443", "")),
  },
  // Twilio lets each webhook be a GET: there the query is all that there is.
  "twilio-get": {
    ...canonical.twilio,
    provider: "twilio",
    method: "GET",
    url: "https://hooks.example.com/in/twilio?CallSid=CA2&CallStatus=ringing",
    body: "",
    sign: ({ secret, url }) => twilio({})(secret, url),
    skip: ["tampered_body"],
  },
  // Plivo signs the parameters of a GET sorted and without percent-encoding.
  "plivo-get": {
    ...canonical.plivo,
    provider: "plivo",
    method: "GET",
    url: "https://hooks.example.com/in/plivo?To=14153336666&Status=sent&From=%C3%BC+x&MessageUUID=db3",
    body: "",
    sign({ secret, id, url }) {
      const [base, query] = url.split("?");
      const sorted = [...new URLSearchParams(query)].sort().map((pair) => pair.join("=")).join("&");
      return {
        "x-plivo-signature-v3-nonce": id,
        "x-plivo-signature-v3": base64(secret, `${base}?${sorted}.${id}`),
      };
    },
    verify({ secret, headers, url }) {
      const { validateV3Signature } = require("plivo/dist/utils/v3Security");
      const { "x-plivo-signature-v3-nonce": nonce, "x-plivo-signature-v3": signature } = headers;
      return validateV3Signature("GET", url, nonce, secret, signature ?? "");
    },
    skip: ["tampered_body"],
  },
  // Routes and legacy events sign fields of a form.
  "mailgun-form": {
    ...python.mailgun,
    provider: "mailgun",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    sign(of) {
      const { signature } = JSON.parse(python.mailgun.sign(of).body);
      return { body: form({ recipient: "a@example.com", "body-plain": "hello", ...signature }) };
    },
    tamper: (body) => form({ ...parsed(body), token: "of_another" }),
    unsign: (body) => form(Object.entries(parsed(body)).filter(([name]) => name !== "signature")),
    malform: (body) => form({ ...parsed(body), signature: "no signature!" }),
  },
  // GetStream signs the body before it compresses it.
  "getstream-gzip": {
    ...more.getstream,
    provider: "getstream",
    binary: true,
    body: gzipSync(more.getstream.body).toString("latin1"),
    sign: ({ secret, body }) => ({
      "content-encoding": "gzip",
      "x-signature": hex(secret, gunzipSync(Buffer.from(body, "latin1"))),
    }),
    verify({ secret, body, headers }) {
      const { StreamChat } = require("stream-chat");
      const signature = headers["x-signature"] ?? "";
      return Boolean(new StreamChat("key", secret).verifyAndParseWebhook(Buffer.from(body, "latin1"), signature));
    },
    // Its digest no longer fits the compressed data.
    reasons: { tampered_body: "refused" },
  },
  "shopify-new": {
    ...headers.shopify,
    provider: "shopify",
    header: "shopify-hmac-sha256",
    sign: (of) => renamed(headers.shopify.sign(of), /^x-/, ""),
  },
  "svix-unbranded": {
    ...headers.svix,
    provider: "svix",
    header: "webhook-signature",
    id: "webhook-id",
    sign: (of) => renamed(headers.svix.sign(of), /^svix-/, "webhook-"),
  },
  "easypost-unicode": {
    ...canonical.easypost,
    provider: "easypost",
    secret: "gehe\u00efm-\ufb01-\u212b",
    sign: (of) => canonical.easypost.sign({ ...of, secret: of.secret.normalize("NFKD") }),
  },
  // A form that has lost the line feed at the payload's end.
  "braintree-lf": {
    ...canonical.braintree,
    provider: "braintree",
    sign(of) {
      const { bt_signature, bt_payload } = parsed(canonical.braintree.sign(of).body);
      return { body: form({ bt_signature, bt_payload: bt_payload.trimEnd() }) };
    },
  },
  "box-escaped": {
    ...more.box,
    provider: "box",
    body: '{"type":"webhook_event","id":"0f5ab5ab","trigger":"FILE.UPLOADED","source":{"name":"Übersicht 😀","url":"https://a/b"}}',
    sign({ secret, body, time }) {
      const local = new RealDate((time - 7 * 3600) * 1000).toISOString();
      const at = local.replace(".000Z", "-07:00");
      return {
        "box-delivery-timestamp": at,
        "box-signature-algorithm": "HmacSHA256",
        "box-signature-primary": base64(secret, `${escaped(body)}${at}`),
        "box-signature-version": "1",
      };
    },
  },
  "contentful-query": {
    ...canonical.contentful,
    provider: "contentful",
    url: "https://hooks.example.com/in/contentful?a=1&b=%C3%A4%20x&c=(d)",
    sign({ secret, body, time, url }) {
      const { signRequest } = require("@contentful/node-apps-toolkit");
      const headers = { "x-contentful-topic": "ContentManagement.Entry.publish" };
      const { pathname, search } = new URL(url);
      const request = { method: "POST", path: pathname + search, headers, body };
      return { ...headers, ...signRequest(secret, request, time * 1000) };
    },
    verify({ secret, body, headers, url }) {
      const { verifyRequest } = require("@contentful/node-apps-toolkit");
      const { pathname, search } = new URL(url);
      return verifyRequest(secret, { method: "POST", path: pathname + search, headers, body }, 300);
    },
  },
};
