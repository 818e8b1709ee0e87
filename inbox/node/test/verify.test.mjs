// The signatures of the reference library (tests/vectors), and rules that have no vector.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { Inbox, Permanent, Refused, Verifier } from 'zentra-inbox';

const vectors = JSON.parse(readFileSync(process.env.ZENTRA_VECTORS, 'utf8'));
const { headers, body } = vectors.cases.find((one) => one.name === 'valid');
const other = 'whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA';

function verdict(verifier, headers, body, now = vectors.now) {
  try {
    verifier.verify(headers, body, now);
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof Refused, error);
    return error.reason;
  }
}

test('each vector of the reference library has its verdict', () => {
  const verifier = new Verifier([vectors.secret]);
  assert.ok(vectors.cases.length >= 12);
  for (const { name, headers, body, expect, now } of vectors.cases) {
    const seen = verdict(verifier, headers, body, now);
    // Several reasons are possible where the vector only says that it is refused.
    assert.ok(expect === 'refused' ? seen !== 'ok' : seen === expect, `${name}: ${seen}`);
    assert.equal(verdict(verifier, new Headers(headers), Buffer.from(body), now), seen, name);
  }
});

test('secrets and signatures rotate', () => {
  for (const secrets of [[other, vectors.secret], [vectors.secret, other]]) {
    assert.equal(verdict(new Verifier(secrets), headers, body), 'ok');
  }
  const signatures = `v1,${'A'.repeat(43)}= v2,x ${headers['webhook-signature']}`;
  const rotated = { ...headers, 'webhook-signature': signatures };
  assert.equal(verdict(new Verifier([vectors.secret]), rotated, body), 'ok');
  assert.equal(verdict(new Verifier([other]), rotated, body), 'signature_mismatch');
});

test('each flipped byte of the body is refused', () => {
  const verifier = new Verifier([vectors.secret]);
  for (let at = 0; at < body.length; at++) {
    const bytes = Buffer.from(body);
    bytes[at] ^= 1;
    assert.equal(verdict(verifier, headers, bytes), 'signature_mismatch', at);
  }
});

test('wrong settings and wrong bodies are named', async () => {
  for (const secrets of [[], undefined, ['whsec_'], ['not base64'], [null], ['whsec_abc']]) {
    assert.throws(() => new Verifier(secrets), /secrets/);
  }
  assert.throws(() => new Verifier([other], { tolerance: NaN }), /tolerance/);
  assert.throws(() => new Inbox({ secrets: [other], store: {}, retentionDays: 0 }), /retentionDays/);
  const errors = [];
  const inbox = new Inbox({ secrets: [other], store: {}, onError: (error) => errors.push(error) });
  assert.equal((await inbox.receive(headers, { parsed: true }, () => {})).status, 500);
  assert.match(errors[0].message, /raw bytes/);
});

test('what a handler throws decides the answer', async () => {
  const store = { once: async (key, work) => (await work(), true), forget: async () => {} };
  const errors = [];
  const tolerance = 1e10;
  const onError = (error) => errors.push(error.message);
  const inbox = new Inbox({ secrets: [vectors.secret], store, tolerance, onError });
  const thrown = (error) => inbox.receive(headers, body, () => { throw error; });
  assert.deepEqual(await thrown(new Permanent('no account')), { status: 422, text: 'no account' });
  // Nothing of another error is in the answer.
  assert.deepEqual(await thrown(new Error('password')), { status: 500, text: 'failed' });
  assert.deepEqual(errors, ['password']);
  const seen = await inbox.receive(headers, body, (event) => assert.equal(event.json().id, 'evt_1'));
  assert.equal(seen.status, 200);
});

test('a body is read from a stream, within its bound', async () => {
  const store = { once: async (key, work) => (await work(), true), forget: async () => {} };
  const errors = [];
  const onError = (error) => errors.push(error.message);
  const settings = { secrets: [vectors.secret], store, tolerance: 1e10, onError };
  const streamed = () => Readable.from([Buffer.from(body.slice(0, 9)), Buffer.from(body.slice(9))]);
  const exact = new Inbox({ ...settings, maxBody: body.length });
  assert.equal((await exact.receive(headers, streamed(), () => {})).status, 200);
  const smaller = new Inbox({ ...settings, maxBody: body.length - 1 });
  assert.equal((await smaller.receive(headers, streamed(), () => {})).status, 413);
  const read = streamed();
  await read.toArray();
  assert.equal((await exact.receive(headers, read, () => {})).status, 500);
  assert.match(errors[0], /body parser/);
});
