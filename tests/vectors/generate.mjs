// Makes the vectors: the vendors' own SDKs sign, or judge what is signed here by the plain rules of
// their documents. A vector is written only if the SDK takes the valid callback and refuses the
// wrong ones. For development only: the tests read what is committed.
//
//   cd tests/vectors && npm install --ignore-scripts
//   python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
//   node generate.mjs [PROVIDER ...]

import { readFileSync, writeFileSync } from "node:fs";

import { canonical } from "./sdks/canonical.mjs";
import { headers } from "./sdks/headers.mjs";
import { NOW } from "./sdks/lib.mjs";
import { more } from "./sdks/more.mjs";
import { python } from "./sdks/python.mjs";
import { tokens } from "./sdks/tokens.mjs";
import { variants } from "./sdks/variants.mjs";

/** Further from now than a provider allows, but where it says more. */
const FAR = 3 * 3600;
const clock = Date.now;
Date.now = () => NOW * 1000;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...all) {
    super(...(all.length === 0 ? [NOW * 1000] : all));
  }
};

const providers = { ...headers, ...more, ...tokens, ...canonical, ...python, ...variants };

/** Whether it doesn't throw, and doesn't say no. */
const accepts = async (call) => {
  try {
    return (await call()) !== false;
  } catch {
    return false;
  }
};

/** The same signature, in base64 where it is in hexadecimal, and the other way round. */
function otherwiseEncoded(text) {
  const hexadecimal = text.match(/[0-9a-f]{40,}/);
  if (hexadecimal) {
    return text.replace(hexadecimal[0], Buffer.from(hexadecimal[0], "hex").toString("base64"));
  }
  const base64 = text.match(/[A-Za-z0-9+/]{27,}=*$/);
  return base64 && text.replace(base64[0], Buffer.from(base64[0], "base64").toString("hex"));
}

/** The same signature as if it were of another version of the scheme. */
function otherVersion(text) {
  for (const [one, other] of [["v1,", "v2,"], ["v1=", "v9="], ["v0=", "v9="], ["h1=", "h9="], ["sha256=", "sha1="]]) {
    if (text.includes(one)) return text.replace(one, other);
  }
  return undefined;
}

/** The callbacks of one provider, and what becomes of them. */
async function cases(provider) {
  const { secret, timed, header, id, url } = provider;
  const far = provider.far ?? FAR;
  const other = provider.other ?? `${secret}_of_another`;
  const bodyAt = (time) =>
    typeof provider.body === "function"
      ? provider.body(time)
      : (provider.body ?? '{"id":"evt_1","type":"transfer.settled","amount_minor":125000}');
  const made = async (of = {}) => {
    const time = of.time ?? NOW;
    const body = bodyAt(time);
    const event = {
      secret: of.secret ?? secret,
      body,
      time,
      id: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
      url: of.url ?? url,
    };
    const signed = await provider.sign(event);
    return provider.inBody ? { headers: provider.headers ?? {}, body: signed.body } : { headers: signed, body };
  };
  const valid = await made();
  if (provider.inBody) {
    const as = (change) => ({ headers: valid.headers, body: change(valid.body) });
    const others = Object.entries(provider.others ?? {});
    return {
      ...(timed && {
        stale: [await made({ time: NOW - far }), "timestamp_stale"],
        future: [await made({ time: NOW + far }), "timestamp_future"],
      }),
      ...Object.fromEntries(others.map(([label, [change, reason]]) => [label, [as(change), reason]])),
      valid: [valid, "ok"],
      tampered: [as(provider.tamper), "signature_mismatch"],
      wrong_secret: [await made({ secret: other }), "signature_mismatch"],
      missing: [as(provider.unsign), "signature_missing"],
      malformed: [as(provider.malform), "signature_malformed"],
      no_form_at_all: [as(() => "[]"), "signature_missing"],
    };
  }
  const changed = (headers) => ({ ...valid, headers: { ...valid.headers, ...headers } });
  const { [header]: signature, ...unsigned } = valid.headers;
  const reversed = (text) => [...text].reverse().join("");
  const all = {
    valid: [valid, "ok"],
    tampered_body: [{ ...valid, body: valid.body.replace(/[0-9a-z](?=[^0-9a-z]*$)/, "X") }, "signature_mismatch"],
    wrong_secret: [await made({ secret: other }), "signature_mismatch"],
    missing_header: [{ ...valid, headers: unsigned }, "signature_missing"],
    malformed: [changed({ [header]: "no signature" }), "refused"],
    // What it signs of itself, the other way round.
    garbled: [changed({ [header]: reversed(signature) }), "refused"],
    empty: [changed({ [header]: "" }), "refused"],
  };
  const recoded = otherwiseEncoded(signature);
  if (recoded) all.wrong_encoding = [changed({ [header]: recoded }), "refused"];
  const version = otherVersion(signature);
  if (version) all.another_version = [changed({ [header]: version }), "refused"];
  if (timed) {
    all.stale = [await made({ time: NOW - FAR }), "timestamp_stale"];
    all.future = [await made({ time: NOW + FAR }), "timestamp_future"];
  }
  if (url) {
    all.of_another_endpoint = [
      await made({ url: "https://hooks.example.com/in/other" }),
      "signature_mismatch",
    ];
  }
  if (id) {
    all.id_changed = [changed({ [id]: "msg_another" }), "signature_mismatch"];
  }
  for (const label of provider.skip ?? []) delete all[label];
  for (const [label, reason] of Object.entries(provider.reasons ?? {})) all[label][1] = reason;
  return all;
}

/** The SDK's registry, name and version. */
function proof(provider) {
  const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
  if (provider.python) {
    const pinned = new RegExp(`^${provider.python}(?:\\[.*\\])?==(.*)$`, "m");
    return `PyPI ${provider.python} ${read("requirements.txt").match(pinned)[1]}`;
  }
  const { version } = JSON.parse(read(`node_modules/${provider.package}/package.json`));
  return `npm ${provider.package} ${version}`;
}

const wanted = process.argv.slice(2);
for (const [name, provider] of Object.entries(providers)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const found = [];
  for (const [label, [made, expect]] of Object.entries(await cases(provider))) {
    const taken = await accepts(() =>
      provider.verify({ secret: provider.secret, url: provider.url, ...made }),
    );
    // Some SDKs take these; the ingress doesn't.
    const stricter = ["wrong_encoding", "another_version"].includes(label);
    const lenient = stricter || provider.lenient?.includes(label);
    const open = provider.open?.includes(label);
    if (taken !== (open || expect === "ok") && !lenient) {
      throw new Error(`${name}: its SDK ${taken ? "takes" : "refuses"} ${label}`);
    }
    // A body of bytes is written as text of one byte a character.
    const body = provider.binary
      ? { body_base64: Buffer.from(made.body, "latin1").toString("base64") }
      : { body: made.body };
    found.push({ name: label, headers: made.headers, ...body, expect: open ? "ok" : expect });
  }
  const vectors = {
    provider: provider.provider ?? name,
    proof: proof(provider),
    // The SDK signs, or judges what is signed here by the rules of the vendor's documents.
    made_by: provider.made_by ?? "document",
    secret: provider.secret,
    key: provider.key?.(),
    url: provider.url,
    method: provider.method,
    now: NOW,
    cases: found,
  };
  writeFileSync(new URL(`${name}.json`, import.meta.url), JSON.stringify(vectors, null, 2) + "\n");
  console.log(`${name}: ${found.length} vectors, ${vectors.proof}`);
}
Date.now = clock;
