// Pieces of pages that several views have.

import { html, nothing, svg } from '../vendor/lit-html/lit-html.js';
import { number, time, visible, words } from './format.js';

const TONES = {
  delivered: 'good', dead: 'bad', waiting: 'warn', in_flight: 'info',
  closed: 'good', open: 'bad', half_open: 'warn',
};

/** A state as a word with a mark: the colour is never the only sign. */
export function state(name, detail) {
  const marks = { good: '✓', bad: '✕', warn: '◔', info: '…' };
  const tone = TONES[name] ?? 'info';
  const text = detail ? `${words(name)}: ${words(detail)}` : words(name);
  return html`<span class="state ${tone}"><span aria-hidden="true">${marks[tone]}</span> ${text}</span>`;
}

/**
 * Whether an operator has drained a dead letter, by the history of its delivery.
 * @param {Api.Entry[]} history
 */
export function isDrained(history) {
  const ends = ['dead', 'requeued', 'replayed', 'released', 'discarded'];
  return history.findLast((entry) => ends.includes(entry.what))?.what === 'discarded';
}

export function when(text) {
  return html`<time datetime=${text ?? nothing} title=${text ?? nothing}>${time(text)}</time>`;
}

/** Strangers' text. */
export function stranger(text) {
  return html`<bdi>${visible(text)}</bdi>`;
}

export function eventLink(key, text) {
  return html`<a href="#/events/${encodeURIComponent(key)}"><bdi>${visible(text ?? key)}</bdi></a>`;
}

/**
 * @param {Failure} error
 * @param {(...given: any[]) => unknown} [again]
 */
export function problem(error, again) {
  return html`<div class="notice bad" role="alert">
    <p>${error.message}</p>
    ${again ? html`<button @click=${again}>Try again</button>` : nothing}
  </div>`;
}

export function loading() {
  return html`<p class="quiet" role="status">Loading…</p>`;
}

// What a finding means, what helps, and the page for it. The command line says the same: zentra status.
const FINDINGS = {
  no_worker: ['No worker runs for it.', 'Start zentra-worker.'],
  no_consumer: ['Nobody pulls from it.', 'Start a consumer.'],
  paused: ['An operator has paused it.', 'Resume it when the reason is gone.', () => '#/destinations'],
  circuit_open: ['Most attempts fail: workers only probe it.', 'See why it fails.', (name) => `#/events?destination=${name}&state=waiting`],
  failing: ['Many attempts of the last hour failed.', 'See its waiting events.', (name) => `#/events?destination=${name}&state=waiting`],
  queue_missing: ['Its work queue does not exist.', 'A running worker declares it again.', () => '#/system'],
  stuck: ['Events wait, and nothing is delivered.', 'See its workers.', () => '#/system'],
  dead_letters: ['It has dead letters.', 'Fix the cause, then requeue them.', (name) => `#/dead?destination=${name}`],
  unlisted_letters: ['RabbitMQ dead-lettered messages itself.', 'Requeue those with the reason crashed.', (name) => `#/dead?destination=${name}`],
  delayed: ['Callbacks arrive late.', 'Look at the provider, or at the proxy.'],
  duplicating: ['Many callbacks are copies.', 'Look at the answers of the ingress.'],
  refusing: ['Callbacks are refused.', 'See why.', (name) => `#/refused?source=${name}`],
  copies_jumped: ['Far more callbacks than before are copies.', 'See the provider, and the answers of the ingress.'],
  conflicts_jumped: ['Far more conflicts than before.', 'See them.', (name) => `#/events?source=${name}&reason=conflict`],
  suspected_replays_jumped: ['Far more suspected replays than before.', 'Somebody may send captured callbacks again.',
    (name) => `#/events?source=${name}&reason=suspected_replay`],
  silent: ['It is quieter than usual.', 'Ask the provider, or reconcile.', () => '#/reconcile'],
  down: ['It is down.', 'See zentra doctor.'],
  unrouted: ['Accepted events have no destination.', 'See them.', () => '#/stored'],
  nothing_seen: ['No event came yet.', 'Enter its address at the provider, and send a test.', () => '#/sources'],
};

/** What a finding means, in a sentence. */
export function meaning(finding) {
  return FINDINGS[finding]?.[0] ?? '';
}

/** What is wrong with a source or a destination. */
export function findings(found, name) {
  if (found.length === 0) return html`<p class="finding good"><span aria-hidden="true">✓</span> No findings</p>`;
  return found.map((one) => {
    const [what, next, page] = FINDINGS[one] ?? [words(one), ''];
    return html`<p class="finding warn"><span aria-hidden="true">!</span> ${what}
      ${page ? html`<a href=${page(encodeURIComponent(name))}>${next}</a>` : html`<span class="quiet">${next}</span>`}</p>`;
  });
}

export function empty(title, next) {
  return html`<div class="empty"><p>${title}</p><p class="quiet">${next}</p></div>`;
}

/** The last hour as a line of bars. */
export function sparkline(line, label) {
  const bars = 60;
  const per = Math.ceil(line.taken.length / bars);
  const sums = (values) => Array.from({ length: bars }, (_, at) =>
    values.slice(at * per, (at + 1) * per).reduce((sum, value) => sum + value, 0));
  const [good, bad] = [sums(line.delivered), sums(line.failed)];
  const most = Math.max(1, ...good.map((value, at) => value + bad[at]));
  const total = line.delivered.reduce((sum, value) => sum + value, 0);
  const failed = line.failed.reduce((sum, value) => sum + value, 0);
  const text = `${label}, last hour: ${number(total)} delivered, ${number(failed)} failed attempts`;
  const bar = (value, at, below, tone) => value === 0 ? nothing : svg`<rect class=${tone}
    x=${at * 4} width="3" y=${32 - ((value + below) / most) * 30} height=${(value / most) * 30}></rect>`;
  return html`<svg class="spark" viewBox="0 0 240 32" preserveAspectRatio="none" role="img" aria-label=${text}>
    <title>${text}</title>
    <line x1="0" y1="31.5" x2="240" y2="31.5"></line>
    ${good.map((value, at) => bar(value, at, 0, 'good'))}
    ${bad.map((value, at) => bar(value, at, good[at], 'bad'))}
  </svg>`;
}
