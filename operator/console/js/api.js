// Requests to the API, and its live changes.

import { token } from './session.js';

/** An answer that is no success. `code` is stable: see docs/errors.md. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.code = problem.code ?? 'unknown';
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {string | undefined} body - JSON text
 * @param {AbortSignal} [signal]
 */
async function request(method, path, body, signal) {
  /** @type {Record<string, string>} */
  const headers = { authorization: `Bearer ${token()}` };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { code: 'unreachable', detail: 'The server does not answer.' });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiError(response.status, problem);
}

/**
 * @template {string} P
 * @param {P} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.Get<P>>}
 */
export async function get(path, signal) {
  return (await request('GET', path, undefined, signal)).json();
}

/** A body, as text: what is not UTF-8 is shown as U+FFFD. */
export async function text(path, signal) {
  return (await request('GET', path, undefined, signal)).text();
}

/**
 * @template {string} P
 * @param {P} path
 * @param {object} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.Post<P>>}
 */
export async function post(path, body, signal) {
  return (await request('POST', path, JSON.stringify(body), signal)).json();
}

/**
 * Compares a provider's list with what came.
 * @param {{ source: string, events: string, ingest: boolean, because: string }} asked - `events` is JSON text, and
 *   is sent as it is
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.Report>}
 */
export async function compare({ events, ...rest }, signal) {
  const body = `${JSON.stringify(rest).slice(0, -1)},"events":${events}}`;
  return (await request('POST', 'v1/reconcile', body, signal)).json();
}

/** Time without a line after which the connection counts as lost: the server sends one each 10 s. */
const SILENT = 25_000;
const LONGEST_PAUSE = 15_000;
/** A connection that lasted this long is tried again at once. */
const LASTED = 10_000;

/**
 * Calls `on.changes` with live changes until `signal` aborts. A lost connection is made again, and goes on
 * where it stopped; so it is while the tab is hidden, since a browser allows six connections for all tabs.
 * `on.connected` gets null if all is well, or what is wrong. From `on.ready` on, changes are found: whoever
 * reads then, misses none. `on.missed` is called if changes are missing.
 */
export async function listen(query, on, signal) {
  let position = null;
  let pause = 500;
  let isFirst = true;
  while (!signal.aborted) {
    await visible(signal);
    const connection = new AbortController();
    const stop = () => connection.abort();
    const hide = () => document.hidden && stop();
    signal.addEventListener('abort', stop, { once: true });
    document.addEventListener('visibilitychange', hide);
    let silent = setTimeout(stop, SILENT);
    const began = Date.now();
    try {
      const parameters = new URLSearchParams(query);
      if (position) parameters.set('after', position);
      const response = await request('GET', `v1/tail?${parameters}`, undefined, connection.signal);
      for await (const lines of jsonLines(response.body)) {
        clearTimeout(silent);
        silent = setTimeout(stop, SILENT);
        const missed = lines.some((line) => line.missed) || (!isFirst && !position);
        position = lines.at(-1).position;
        on.connected(lines.at(-1).error ? 'The delivery store does not answer. It is asked again.' : null);
        if (isFirst) on.ready();
        else if (missed) on.missed();
        isFirst = false;
        const changes = lines.filter((line) => line.delivery);
        if (changes.length > 0) on.changes(changes);
      }
    } catch (error) {
      const isFinal = error instanceof ApiError && error.status >= 400 && error.status < 500
        && ![408, 429].includes(error.status);
      if (isFinal && !signal.aborted) {
        on.failed(error);
        return;
      }
    } finally {
      clearTimeout(silent);
      connection.abort();
      signal.removeEventListener('abort', stop);
      document.removeEventListener('visibilitychange', hide);
    }
    if (signal.aborted || document.hidden) continue;
    on.connected('The connection is lost. It is being made again.');
    if (Date.now() - began > LASTED) pause = 500;
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

/** Waits until the tab can be seen. */
function visible(signal) {
  if (!document.hidden) return null;
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', look);
      signal.removeEventListener('abort', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look);
  });
}

async function* jsonLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      if (lines.length > 0) yield lines.map((line) => JSON.parse(line));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
