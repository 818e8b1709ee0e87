// One event: each of its deliveries as a timeline, how it came, and what an operator can do.

import { html, nothing, svg } from '../vendor/lit-html/lit-html.js';
import { get, listen, post, text } from './api.js';
import { duration, number, visible, words } from './format.js';
import { plan } from './jobs.js';
import { act, loader, messages } from './load.js';
import { empty, isDrained, loading, problem, state, stranger, when } from './parts.js';

/** How often an event that may change is looked at, and how long after an action. */
const AGAIN = 5000;
const WATCHED = 30_000;

/** The event's identity, in its delivery key. */
function identity(key) {
  return key.split('/').slice(2).join('/');
}

/**
 * @type {View<{ found: Api.EventDetails | null, wrong: string | null, acted: number,
 *   payloads: Record<string, { text?: string, error?: Failure }> }>}
 */
export const event = {
  title: 'Event',

  start(page) {
    const path = `v1/events/${encodeURIComponent(page.id)}`;
    const load = loader(page, async () => ({ found: await get(path, page.signal) }));
    // Live changes are those of the newest deliveries: older ones are looked at again while they change.
    const again = () => {
      const { found, acted } = page.state();
      const isOpen = found?.deliveries.some(({ record }) => ['in_flight', 'waiting'].includes(record.state));
      if (!document.hidden && (isOpen || Date.now() - acted < WATCHED)) load();
    };
    const timer = setInterval(again, AGAIN);
    page.signal.addEventListener('abort', () => clearInterval(timer));
    page.actions.act = (action, key, asks) => act(page, asks, async ({ because }) => {
      page.update({ acted: Date.now() });
      await action(key, because);
      return `${asks.title}: done.`;
    });
    // Delivered or not: under the same idempotency key, and from the archive.
    page.actions.replay = (one) => plan(page, {
      title: 'Plan: replay',
      text: 'A job is planned that delivers the archived event again, under the same idempotency key.',
      name: one.key.split('/', 1)[0],
    }, {
      archive: true, force: true, ids: [identity(one.key)], source: one.event.source, destination: one.key.split('/', 1)[0],
    });
    page.actions.save = async () => {
      try {
        save(`zentra-${page.id.replace(/[^\w.-]+/g, '_')}.json`, await text(path, page.signal));
      } catch (error) {
        page.update({ failed: error });
      }
    };
    page.actions.copy = async (one, shown) => {
      try {
        await navigator.clipboard.writeText(curl(one, shown));
        page.update({ done: 'The request is in the clipboard.', failed: null });
      } catch {
        page.update({ failed: new Error('The browser does not allow the clipboard.') });
      }
    };
    // A look at a payload is audited, so it is asked for.
    page.actions.payload = async (one) => {
      // Of several events with this ID, the one of this source with this body.
      const among = new URLSearchParams({ source: one.event.source, body_sha256: one.event.body_sha256 });
      const archived = `v1/archive/${encodeURIComponent(one.event.event_id ?? identity(one.key))}/body?${among}`;
      const places = one.record.state === 'dead' ? [`v1/dead/${encodeURIComponent(one.key)}/body`, archived] : [archived];
      let shown = null;
      for (const place of places) {
        try {
          shown = { text: await text(place, page.signal) };
          break;
        } catch (error) {
          shown = { error };
        }
      }
      page.update((now) => ({ payloads: { ...now.payloads, [one.key]: shown } }));
    };
    listen({ id: page.id }, {
      connected: (wrong) => page.update({ wrong }),
      ready: load,
      missed: load,
      failed: (error) => page.update({ error }),
      changes: load,
    }, page.signal);
  },

  initial: { found: null, error: null, wrong: null, done: null, failed: null, acted: 0, payloads: {} },

  render(now, page) {
    const { found, error, wrong, payloads } = now;
    const connection = wrong ? html`<p class="notice warn" role="status">${wrong}</p>` : nothing;
    if (!found) {
      if (!error) return html`${connection}${loading()}`;
      return error.status === 404
        ? empty('No event has this ID.', 'It may be refused, or not have arrived: see Refused, or find it by a text of its body.')
        : html`${connection}${problem(error, page.actions.load)}`;
    }
    return html`
      ${connection}
      ${messages(now, page)}
      ${found.deliveries.map((one) => delivery(one, page, payloads[one.key]))}
      ${found.accepted.map(accepted)}
      ${found.refused.length > 0 ? html`<section class="card"><h2>Refused callbacks that claim this event</h2>
        <ul>${found.refused.map((one) => html`<li>${when(one.received_at)} ${words(one.reason)}
          <code>${one.refused_id}</code></li>`)}</ul></section>` : nothing}
      <p class="actions"><button @click=${() => page.actions.save()}>Save a case file</button></p>`;
  },
};

/** @param {Api.Accepted} one */
function accepted(one) {
  return html`<section class="card"><h2>${stranger(one.event.event_id ?? '(no ID)')}</h2>
    <p>Accepted ${when(one.event.received_at)}.
      ${one.place === 'unrouted' ? 'No destination subscribes to it.' : 'No worker has taken it up yet, or it was forgotten.'}
    </p></section>`;
}

/**
 * @param {Api.Delivery} one
 * @param {Page} page
 * @param {{ text?: string, error?: Failure }} [shown]
 */
function delivery(one, page, shown) {
  const { key, record, reason, event: about, history } = one;
  return html`<article class="card" aria-label="Delivery ${visible(key)}">
    <header class="head">
      <div><h2>${stranger(about.event_id ?? '(no ID)')}</h2>
        <p>${stranger(about.event_type ?? '(no type)')} from ${stranger(about.source)} to
          ${stranger(key.split('/', 1)[0])}</p></div>
      <p>${state(record.state, reason)}
        ${record.state === 'waiting' ? html`next attempt ${when(record.until)}` : nothing}</p>
    </header>
    ${actions(one, page)}
    <h3>History</h3>
    ${strip([{ at: about.received_at }, ...history])}
    <ol class="timeline">${[{ at: about.received_at, received: about }, ...history].map(entry)}</ol>
    ${how(one)}
    ${page.context.me.payloads ? payload(one, page, shown) : nothing}
  </article>`;
}

/**
 * @param {Api.Delivery} one
 * @param {Page} page
 * @param {{ text?: string, error?: Failure }} [shown]
 */
function payload(one, page, shown) {
  if (!shown) return html`<p><button @click=${() => page.actions.payload(one)}>Show the payload</button>
    <span class="quiet">Each look is audited.</span></p>`;
  if (shown.error) return html`<p class="quiet">The payload is not kept: it is neither in the archive nor a dead letter.
    (${shown.error.message})</p>`;
  // What is not UTF-8 cannot be copied as text. A terminal may take control characters for commands.
  const isText = !/[\ufffd\u0000-\u0008\u000b-\u001f\u007f]/.test(shown.text);
  return html`<h3>Payload</h3><pre class="payload" tabindex="0">${visible(shown.text)}</pre>
    ${isText ? html`<p class="actions"><button @click=${() => page.actions.copy(one, shown.text)}>Copy as curl</button></p>` : nothing}`;
}

/** A word for a shell. */
const quoted = (value) => `'${String(value).replaceAll("'", `'\\''`)}'`;

/**
 * The request as a command for an application on this machine. It is not signed.
 * @param {Api.Delivery} delivery
 * @param {string} body
 */
export function curl({ key, event: about }, body) {
  const headers = (about.context.headers ?? []).filter(([name]) => name !== 'content-length');
  // A header without a value ends with a semicolon: curl leaves out one that ends with a colon.
  const options = [...headers, ['idempotency-key', key]].map(([name, value]) => `-H ${quoted(value ? `${name}: ${value}` : `${name};`)}`);
  // --data-binary would take a leading @ for the name of a file.
  return ['curl http://127.0.0.1:3000/webhooks', ...options, `--data-raw ${quoted(body)}`].join(' \\\n  ');
}

/** Gives a text to the browser as a file. */
function save(name, content) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type: 'application/json' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * @param {Api.Delivery} one
 * @param {Page} page
 */
function actions(one, page) {
  if (!page.context.acts) return nothing;
  const { key, record, reason } = one;
  const suspected = ['suspected_replay', 'conflict'].includes(reason);
  const to = (name) => (id, because) => post(`v1/events/${encodeURIComponent(id)}/${name}`, { because });
  const all = [];
  // A drained letter is in no queue any more.
  const isGone = record.state === 'dead' && isDrained(one.history);
  const isDead = record.state === 'dead' && !isGone;
  if (isDead && !suspected) {
    all.push(['Requeue', (id, because) => requeued(id, because),
      'The event goes back to its work queue, with the same checks as a first delivery.']);
  }
  if (isDead && suspected) {
    all.push(['Release', to('release'), 'The event is delivered as an event of its own. Do it only if it is genuine.']);
  }
  if (isDead) {
    all.push(['Drain', (id, because) => drained(id, because),
      'The letter is taken out of the dead-letter queue for good. The history stays.']);
  }
  if (record.state === 'waiting') {
    all.push(['Attempt now', to('release'), 'The event is attempted now.']);
    all.push(['End retries', to('end'), 'The event becomes a dead letter.']);
  }
  const destination = key.split('/', 1)[0];
  const isArchived = page.context.config.sources.some((source) => source.name === one.event.source && source.archive);
  const replays = (record.state === 'delivered' || (isGone && !suspected)) && isArchived;
  return all.length === 0 && !replays ? nothing : html`<p class="actions">${all.map(([title, action, text]) => html`
    <button @click=${() => page.actions.act(action, key, { title, text, name: destination })}>${title}…</button>`)}
    ${replays ? html`<button @click=${() => page.actions.replay(one)}>Replay…</button>` : nothing}</p>`;
}

async function requeued(id, because) {
  const report = await post('v1/dead/requeue', { ids: [id], because });
  if (report.done !== 1) throw new Error('It was not requeued: its letter is not in the dead-letter queue.');
}

async function drained(id, because) {
  const report = await post('v1/dead/drain', { ids: [id], because });
  if (report.done !== 1) throw new Error('It was not drained: its letter is not in the dead-letter queue.');
}

const ENDS = { delivered: 'good', failed: 'warn', dead: 'bad' };
/** Of 1000 units of the strip. */
const NARROWEST = 6;

/** @typedef {Partial<Api.Entry> & { at: string, received?: Api.Summary }} Shown */

/**
 * Attempts as bars on a line from the receipt to the last entry: what is between them is waiting.
 * @param {Shown[]} entries
 */
function strip(entries) {
  const [first, last] = [Date.parse(entries[0].at), Date.parse(entries.at(-1).at)];
  const attempts = [];
  for (const { what, at } of entries) {
    if (what === 'claimed') attempts.push({ from: Date.parse(at), to: null, tone: 'info' });
    else if (ENDS[what] && attempts.at(-1)?.to === null) Object.assign(attempts.at(-1), { to: Date.parse(at), tone: ENDS[what] });
  }
  if (attempts.length === 0 || !(last > first)) return nothing;
  const x = (time) => ((time - first) / (last - first)) * (1000 - NARROWEST);
  const label = `${number(attempts.length)} attempt${attempts.length > 1 ? 's' : ''} within ${duration(last - first)}`;
  return html`<svg class="strip" viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=${label}>
    <title>${label}</title><line x1="0" y1="8" x2="1000" y2="8"></line>
    ${attempts.map(({ from, to, tone }) => svg`<rect class=${tone} x=${x(from)} y="2" height="12"
      width=${Math.max(NARROWEST, x(to ?? last) - x(from))}></rect>`)}</svg>`;
}

const MARKS = { delivered: 'good', dead: 'bad', failed: 'warn', conflict: 'bad', suspected: 'bad', superseded: 'warn' };

/**
 * Each entry with the time since the one before.
 * @param {Shown} one
 * @param {number} at
 * @param {Shown[]} all
 */
function entry(one, at, all) {
  const tone = MARKS[one.what] ?? 'info';
  const since = at > 0 && one.at && all[at - 1].at ? Date.parse(one.at) - Date.parse(all[at - 1].at) : null;
  return html`<li class=${tone}><div class="at">${when(one.at)}
    ${since > 0 ? html`<span class="since">+${duration(since)}</span>` : nothing}</div><div>${line(one)}${said(one)}</div></li>`;
}

/** @param {Shown} one */
function line(one) {
  if (one.received) {
    const { received } = one;
    const late = received.provider_time && Date.parse(received.received_at) - Date.parse(received.provider_time);
    const peer = received.context.peer ? ` from ${received.context.peer}` : '';
    const delay = late >= 1000 ? `, ${duration(late)} after the signed time` : '';
    return html`<strong>received</strong>${peer}${delay}, verified with ${stranger(received.verified_with)}`;
  }
  const by = html`<span class="quiet">by ${stranger(one.by)}</span>`;
  switch (one.what) {
    case 'claimed': return html`<strong>attempt ${one.attempt}</strong> begins
      ${one.reclaimed ? '(the last claim expired unsettled)' : nothing} ${by}`;
    case 'delivered': return html`<strong>delivered</strong> ${answer(one)} ${by}`;
    case 'failed': return html`<strong>failed</strong> ${answer(one)}; next attempt ${when(one.next_at)}`;
    case 'dead': return html`<strong>dead letter: ${words(one.reason)}</strong> ${answer(one)}`;
    case 'superseded': return html`<strong>overtaken</strong> ${answer(one)}: no effect`;
    case 'duplicate': case 'duplicate_dead': return html`<strong>copy</strong> of the same body: no effect`;
    case 'stale': return html`<strong>copy</strong>, overtaken by a newer attempt: no effect`;
    case 'busy': return html`<strong>busy</strong>: another attempt is running, deferred until after its lease`;
    case 'conflict': return html`<strong>conflict</strong>: another body under this ID, no effect here`;
    case 'newer': return html`a newer version of Zentra wrote this line`;
    default: return html`<strong>${one.what === 'discarded' ? 'drained' : words(one.what)}</strong> ${by}
      ${one.reason ? html`because ${stranger(one.reason)}` : nothing}`;
  }
}

/**
 * What the destination answered.
 * @param {Shown} one
 */
function answer({ status, error, duration_ms: took }) {
  if (!status && !error && !took) return nothing;
  const what = status ? `with ${status}` : error ? html`with ${stranger(error)}` : nothing;
  return html`${what} after ${duration(took)}`;
}

/**
 * The start of the destination's answer.
 * @param {Shown} one
 */
function said({ response }) {
  return response ? html`<details><summary>Answer</summary><pre>${visible(response)}</pre></details>` : nothing;
}

/** @param {Api.Delivery} one */
function how({ key, event: about }) {
  const { context } = about;
  const fact = (name, value) => value ? html`<div><dt>${name}</dt><dd>${value}</dd></div>` : nothing;
  return html`<details class="how"><summary>How it came</summary>
    <dl>
      ${fact('Idempotency key', html`<code>${visible(key)}</code>`)}
      ${fact('Body', html`<code>sha256:${about.body_sha256}</code>`)}
      ${fact('Provider', stranger(about.provider))}
      ${fact('Signed', (context.signed ?? []).join(', '))}
      ${fact('Signed time', about.provider_time && when(about.provider_time))}
      ${fact("Provider's attempt", context.provider_attempt && stranger(context.provider_attempt))}
      ${fact('Query', context.query && stranger(context.query))}
      ${fact('Trace', about.trace && html`<code>${about.trace}</code>`)}
      ${fact('Admitted', about.admitted && html`by ${stranger(about.admitted.by)} ${when(about.admitted.at)}`)}
    </dl>
    ${(context.headers ?? []).length > 0 ? html`<table class="headers"><caption>Headers
      (${number(context.headers.length)})</caption><tbody>${context.headers.map(([name, value]) => html`
      <tr><th scope="row">${stranger(name)}</th><td>${stranger(value)}</td></tr>`)}</tbody></table>` : nothing}
  </details>`;
}
