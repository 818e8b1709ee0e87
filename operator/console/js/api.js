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

async function request(method, path, body, signal) {
  const headers = { authorization: `Bearer ${token()}` };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { code: 'unreachable', detail: 'The server does not answer.' });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiError(response.status, problem);
}

export async function get(path, signal) {
  return (await request('GET', path, undefined, signal)).json();
}

export async function post(path, body, signal) {
  return (await request('POST', path, body, signal)).json();
}

/** Time without a line after which the connection counts as lost: the server sends one each 10 s. */
const SILENT = 25_000;
const LONGEST_PAUSE = 15_000;

/**
 * Calls `on.changes` with live changes until `signal` aborts. A lost connection is made again, and goes on
 * where it stopped. `on.connected` gets true or false, `on.missed` is called if changes are missing.
 */
export async function listen(query, on, signal) {
  let position = null;
  let pause = 500;
  while (!signal.aborted) {
    try {
      const parameters = new URLSearchParams(query);
      if (position) parameters.set('after', position);
      const connection = new AbortController();
      const stop = () => connection.abort();
      signal.addEventListener('abort', stop, { once: true });
      let silent = setTimeout(stop, SILENT);
      try {
        const response = await request('GET', `v1/tail?${parameters}`, undefined, connection.signal);
        on.connected(true);
        pause = 500;
        for await (const lines of jsonLines(response.body)) {
          clearTimeout(silent);
          silent = setTimeout(stop, SILENT);
          position = lines.at(-1).position;
          if (lines.some((line) => line.missed)) on.missed();
          const changes = lines.filter((line) => line.delivery);
          if (changes.length > 0) on.changes(changes);
        }
      } finally {
        clearTimeout(silent);
        signal.removeEventListener('abort', stop);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && [401, 403].includes(error.status)) {
        on.failed(error);
        return;
      }
      on.connected(false);
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }
}

async function* jsonLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    if (lines.length > 0) yield lines.map((line) => JSON.parse(line));
  }
}
