import { Verifier, header, raw, Refused } from './verify.js';

const HOUR = 3600;
const DAY = 24 * HOUR;
/** Maximum size of a body, in bytes: the one that Zentra accepts. */
const MAX_BODY = 1 << 20;

/** Throw it from a handler if a retry cannot help. The answer is 422 with its message, which Zentra keeps. */
export class Permanent extends Error {
  constructor(message) {
    super(message);
    this.name = 'Permanent';
  }
}

/** Receives events, and runs a handler once for each, in a transaction that also stores the event's key. */
export class Inbox {
  #verifier;
  #store;
  #retention;
  #maxBody;
  #onError;
  #forgotten = -Infinity;

  /**
   * `secrets`: signing secrets of the sender. `store`: see {@link postgres}, {@link mysql}, {@link sqlite}.
   * `retentionDays`: how long keys are kept; longer than the sender can send an event again (default 60).
   * `tolerance`: seconds that a signature is valid (default 300). `maxBody`: maximum size of a body that is read from
   * a stream, in bytes (default 1 MiB). `onError`: receives what a handler or the database throws (default:
   * `console.error`).
   */
  constructor({ secrets, store, retentionDays = 60, tolerance, maxBody = MAX_BODY, onError = console.error }) {
    if (!(retentionDays > 0)) throw new TypeError('retentionDays: give a number of days above 0');
    this.#verifier = new Verifier(secrets, { tolerance });
    this.#store = store;
    this.#retention = retentionDays * DAY;
    this.#maxBody = maxBody;
    this.#onError = onError;
  }

  /** Creates the table `zentra_inbox`, if it does not exist. Call it once at the start. */
  async create() {
    await this.#store.create();
  }

  /**
   * Receives one request. `body`: its raw bytes, or a stream of them, such as the request itself.
   * `handler(event, transaction)` writes the effect by `transaction`, and neither commits nor rolls back.
   * Never rejects: resolves to `{ status, text }`, the answer.
   */
  async receive(headers, body, handler) {
    try {
      const bytes = await rawBody(body, this.#maxBody);
      const key = this.#verifier.verify(headers, bytes);
      const event = {
        key,
        type: header(headers, 'ce-type'),
        attempt: Number(header(headers, 'zentra-attempt')) || 1,
        headers,
        body: bytes,
        json: () => JSON.parse(bytes.toString('utf8')),
      };
      const isNew = await this.#store.once(key, (transaction) => handler(event, transaction));
      this.#forgetSometimes();
      return { status: 200, text: isNew ? 'done' : 'done before' };
    } catch (error) {
      if (error instanceof Refused) return { status: 401, text: error.reason };
      if (error instanceof TooLarge) return { status: 413, text: error.message };
      if (error instanceof Permanent) return { status: 422, text: error.message };
      this.#report(error);
      return { status: 500, text: 'failed' };
    }
  }

  /** Removes keys older than the retention. Runs by itself once an hour. */
  async forget() {
    await this.#store.forget(this.#retention);
  }

  #forgetSometimes() {
    const now = performance.now() / 1000;
    if (now - this.#forgotten < HOUR) return;
    this.#forgotten = now;
    this.forget().catch((error) => this.#report(error));
  }

  #report(error) {
    try {
      this.#onError(error);
    } catch {
      // The answer goes out all the same.
    }
  }
}

class TooLarge extends Error {}

/** What is too large is read to its end, so that the answer can be sent, and not kept. */
async function rawBody(body, limit) {
  if (typeof body?.[Symbol.asyncIterator] !== 'function') return raw(body);
  if (body.readableDidRead) throw new TypeError('body: something else, such as a body parser, has read the request');
  let chunks = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limit) chunks = [];
    else chunks.push(chunk);
  }
  if (size > limit) throw new TooLarge(`the body is larger than ${limit} bytes`);
  return Buffer.concat(chunks);
}
