// What is judged by SDKs that are written in Python: see judge.py.

import { spawnSync } from "node:child_process";
import { createSign } from "node:crypto";
import { crc32 } from "node:zlib";

import { certified, hex, NOW, standard } from "./lib.mjs";

/** Whether the vendor's SDK takes a callback. */
const judged = (name) => (callback) => {
  const input = JSON.stringify({ now: new Date(NOW * 1000).toISOString(), ...callback });
  const judge = new URL("judge.py", import.meta.url).pathname;
  const python = new URL("../.venv/bin/python", import.meta.url).pathname;
  const { error, status } = spawnSync(python, [judge, name], { input });
  if (error) throw error;
  return status === 0;
};

const mailgunSigned = (body, changes) => {
  const whole = JSON.parse(body);
  return JSON.stringify({ ...whole, signature: { ...whole.signature, ...changes } });
};

const paypalKeys = certified("messageverificationcerts.paypal.com");

export const python = {
  increase: {
    python: "increase",
    ...standard("webhook", judged("increase"), { key: (secret) => secret }),
    secret: "the text is the key",
    other: "another text is another key",
    body: '{"id":"event_1","category":"transfer.settled","associated_object_id":"trf_8172"}',
  },
  mailgun: {
    python: "mailgun",
    secret: "mailgun_signing_key",
    inBody: true,
    timed: true,
    sign({ secret, time }) {
      const token = "ae9d1c7a8e3c1ea1fbb3d1ee3a4a1a9d1c7a8e3c1ea1fbb3d1";
      const timestamp = `${time}`;
      const signature = { token, timestamp, signature: hex(secret, timestamp + token) };
      const body = { signature, "event-data": { id: "Ase7i2zsRYeDXztHGENqRA", event: "delivered" } };
      return { body: JSON.stringify(body) };
    },
    tamper: (body) => mailgunSigned(body, { token: "of_another" }),
    unsign: (body) => mailgunSigned(body, { signature: undefined }),
    malform: (body) => mailgunSigned(body, { signature: "no signature!" }),
    verify: judged("mailgun"),
  },
  paypal: {
    python: "paypalrestsdk",
    // The webhook's id.
    secret: "0EH40505U7160970P",
    other: "1EH40505U7160970P",
    header: "paypal-transmission-sig",
    id: "paypal-transmission-id",
    body: '{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"trf_8172 üñí"}}',
    key: () => paypalKeys().own.pem,
    sign({ secret, body, time, id }) {
      const written = new Date(time * 1000).toISOString().replace(".000", "");
      const content = `${id}|${written}|${secret}|${crc32(body)}`;
      return {
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270",
        "paypal-transmission-id": id,
        "paypal-transmission-time": written,
        "paypal-transmission-sig": createSign("RSA-SHA256").update(content).sign(paypalKeys().own.key, "base64"),
      };
    },
    verify: (callback) => judged("paypal")({ ...callback, key: paypalKeys().own.pem }),
  },
};
