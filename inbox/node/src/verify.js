/**
 * Verifies requests by Standard Webhooks (https://www.standardwebhooks.com), symmetric keys.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

/** Time between the signature and its check, in seconds: the specification's recommendation. */
const TOLERANCE = 300;
/** Maximum length of a key: the column of MySQL has this width. */
const MAX_KEY = 512;
/** Maximum number of signatures that are looked at. */
const MAX_SIGNATURES = 32;

/** A request without a valid signature. `reason` says why: it is safe to answer with it. */
export class Refused extends Error {
  constructor(reason) {
    super(reason);
    this.name = 'Refused';
    this.reason = reason;
  }
}

/** Checks signatures of one sender. Each secret verifies, so that secrets can be rotated. */
export class Verifier {
  #keys;
  #tolerance;

  constructor(secrets, { tolerance = TOLERANCE } = {}) {
    if (!Array.isArray(secrets) || secrets.length === 0) {
      throw new TypeError('secrets: give a list of at least one signing secret (whsec_…)');
    }
    if (!(tolerance >= 0)) throw new TypeError('tolerance: give a number of seconds');
    this.#keys = secrets.map(decoded);
    this.#tolerance = tolerance;
  }

  /**
   * The event's key: `webhook-id`, which the signature covers. Throws {@link Refused}.
   * `now` is in seconds since 1970.
   */
  verify(headers, body, now = Date.now() / 1000) {
    const [id, time, signatures] = ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map(
      (name) => header(headers, name),
    );
    if (!id || !time || !signatures) throw new Refused('signature_missing');
    if (id.length > MAX_KEY || !/^[!-~]+$/.test(id)) throw new Refused('id_invalid');
    if (!/^[0-9]{1,12}$/.test(time)) throw new Refused('timestamp_invalid');
    const signed = Buffer.concat([Buffer.from(`${id}.${time}.`), raw(body)]);
    const expected = this.#keys.map((key) => createHmac('sha256', key).update(signed).digest('base64'));
    const given = signatures.split(' ', MAX_SIGNATURES).filter((one) => one.startsWith('v1,'));
    const matches = given.filter((one) => expected.some((other) => isSame(one.slice(3), other)));
    if (matches.length === 0) throw new Refused('signature_mismatch');
    if (Number(time) < now - this.#tolerance) throw new Refused('timestamp_stale');
    if (Number(time) > now + this.#tolerance) throw new Refused('timestamp_future');
    return id;
  }
}

/** The value of a header in Node's object of headers or in a `Headers`. */
export function header(headers, name) {
  const value = typeof headers.get === 'function' ? headers.get(name) : headers[name];
  return typeof value === 'string' ? value : undefined;
}

/** The body's bytes. Throws a `TypeError` for a parsed body: the signature covers the raw one. */
export function raw(body) {
  if (typeof body === 'string' || body instanceof Uint8Array) return Buffer.from(body);
  throw new TypeError('body: give the raw bytes of the request, not a parsed object');
}

function decoded(secret, at) {
  const text = typeof secret === 'string' ? secret.trim().replace(/^whsec_/, '') : '';
  const key = Buffer.from(text, 'base64');
  const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(text) && text.length % 4 === 0;
  if (!isBase64) throw new TypeError(`secrets[${at}]: not a signing secret: whsec_ and Base64`);
  return key;
}

function isSame(given, expected) {
  const [left, right] = [Buffer.from(given), Buffer.from(expected)];
  return left.length === right.length && timingSafeEqual(left, right);
}
