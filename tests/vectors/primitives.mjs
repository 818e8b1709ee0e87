// Makes primitives.toml: what each algorithm, encoding and key format is held to, signed by Node's
// own crypto (OpenSSL). For development only: `node primitives.mjs`.

import { constants, createHash, createHmac, generateKeyPairSync, sign } from "node:crypto";
import { writeFileSync } from "node:fs";

const body = '{"id":"evt_1","amount_minor":125000}';
const other = body.replace("125000", "125001");
const key = Buffer.from("8f1e2d3c4b5a69788796a5b4c3d2e1f0", "hex");
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const p256 = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const p521 = generateKeyPairSync("ec", { namedCurve: "secp521r1" });
const ed = generateKeyPairSync("ed25519");
const pem = (pair) => pair.publicKey.export({ type: "spki", format: "pem" });
const der = (pair) => pair.publicKey.export({ type: "spki", format: "der" });
const mac = (hash) => (content) => createHmac(hash, key).update(content).digest();
const jwk = (...pairs) => {
  const keys = pairs.map(({ publicKey }) => publicKey.export({ format: "jwk" }));
  return JSON.stringify(keys.length === 1 ? keys[0] : { keys });
};
const fixed = (of) => sign("sha256", of, { key: p256.privateKey, dsaEncoding: "ieee-p1363" });
const wide = (of) => sign("sha512", of, { key: p521.privateKey, dsaEncoding: "ieee-p1363" });
const hashed = createHash("sha1").update("a private key").digest();
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };

const all = [
  ["hmac-sha1", "hex", "hex", key.toString("hex"), mac("sha1")],
  ["hmac-sha256", "base64url", "base64", key.toString("base64"), mac("sha256")],
  ["hmac-sha384", "base64", "base64", key.toString("base64").replace(/=+$/, ""), mac("sha384")],
  ["hmac-sha512", "hex", "hex", key.toString("hex").toUpperCase(), mac("sha512")],
  ["ed25519", "base64", "spki", pem(ed), (of) => sign(null, of, ed.privateKey)],
  ["ed25519", "hex", "base64", der(ed).subarray(-32).toString("base64"), (of) => sign(null, of, ed.privateKey)],
  ["ecdsa-p256-sha256", "base64", "spki", der(p256).toString("base64"), (of) => sign("sha256", of, p256.privateKey)],
  ["rsa-sha256", "base64", "spki", pem(rsa), (of) => sign("sha256", of, rsa.privateKey)],
  ["rsa-pss-sha256", "base64url", "spki", der(rsa).toString("base64"), (of) => sign("sha256", of, { key: rsa.privateKey, ...pss })],
  ["es256", "base64url", "jwk", jwk(p256), fixed],
  ["es256", "base64", "spki", pem(p256), fixed],
  ["es512", "base64url", "jwk", jwk(p256, p521), wide],
  ["es512", "base64", "spki", pem(p521), wide],
  ["rsa-sha256", "base64url", "jwk", jwk(ed, rsa), (of) => sign("sha256", of, rsa.privateKey)],
  ["ed25519", "base64url", "jwk", jwk(ed), (of) => sign(null, of, ed.privateKey)],
  ["hmac-sha1", "hex", "sha1", "a private key", (of) => createHmac("sha1", hashed).update(of).digest()],
];

const text = all.map(([algorithm, encoding, format, secret, made]) => {
  const written = (content) => made(Buffer.from(content)).toString(encoding);
  return `[[vector]]
algorithm = "${algorithm}"
encoding = "${encoding}"
key = "${format}"
secret = ${JSON.stringify(secret)}
body = '${body}'
signature = "${written(body)}"
of_another = "${written(other)}"
`;
});
writeFileSync(
  new URL("primitives.toml", import.meta.url),
  `# Made by primitives.mjs, with Node ${process.version} and OpenSSL ${process.versions.openssl}.\n` + text.join("\n"),
);
