// Overview: parts, sources and destinations, and what is wrong with them.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { duration, number, words } from './format.js';
import { loader } from './load.js';
import { loading, problem, sparkline, state, when } from './parts.js';

const EVERY = 10_000;

// What findings mean, and what helps. The command line says the same: zentra status.
const FINDINGS = {
  no_worker: ['No worker runs for it.', 'Start zentra-worker.'],
  no_consumer: ['Nobody pulls from it.', 'Start a consumer.'],
  paused: ['An operator has paused it.', 'Resume it when the reason is gone.'],
  circuit_open: ['Most attempts fail: workers only probe it.', 'See why it fails.'],
  failing: ['Many attempts of the last hour failed.', 'See its dead and waiting events.'],
  queue_missing: ['Its work queue does not exist.', 'A running worker declares it again.'],
  stuck: ['Events wait, and nothing is delivered.', 'See its workers.'],
  dead_letters: ['It has dead letters.', 'Fix the cause, then requeue them.'],
  unlisted_letters: ['RabbitMQ dead-lettered messages itself.', 'Requeue those with the reason crashed.'],
  delayed: ['Callbacks arrive late.', 'Look at the provider, or at the proxy.'],
  duplicating: ['Many callbacks are copies.', 'Look at the answers of the ingress.'],
  refusing: ['Callbacks are refused.', 'See the refused callbacks.'],
  copies_jumped: ['Far more callbacks than before are copies.', 'See the provider, and the answers of the ingress.'],
  conflicts_jumped: ['Far more conflicts than before.', 'See the events with the reason conflict.'],
  suspected_replays_jumped: ['Far more suspected replays than before.', 'Somebody may send captured callbacks again.'],
  silent: ['It is quieter than usual.', 'Ask the provider, or reconcile.'],
  nothing_seen: ['No event came yet.', 'Enter its address at the provider, and send a test.'],
};

export const overview = {
  title: 'Overview',

  start(page) {
    loader(page, async () => {
      const [status, series] = await Promise.all([
        get('v1/status', page.signal), get('v1/series', page.signal),
      ]);
      return { status, series };
    }, EVERY)();
  },

  render({ status, series, error }) {
    if (!status) return error ? problem(error) : loading();
    const line = (lines, name) => lines.find((one) => one.name === name);
    return html`
      ${error ? problem(error) : nothing}
      <section aria-labelledby="parts"><h2 id="parts" class="sr">Parts</h2>
        <ul class="parts">${status.parts.map(part)}</ul></section>
      <section aria-labelledby="destinations"><h2 id="destinations">Destinations</h2>
        <div class="cards">${status.destinations.map((one) =>
          destinationCard(one, line(series.destinations, one.destination)))}</div></section>
      <section aria-labelledby="sources"><h2 id="sources">Sources</h2>
        <div class="cards">${status.sources.map((one) =>
          sourceCard(one, line(series.sources, one.source)))}</div></section>
      <p class="quiet"><a href="#/refused">${number(status.refused)} refused callbacks</a> are stored, ${number(status.unrouted)} events have
        no destination. The figures are from the newest ${number(status.seen.deliveries)} deliveries.</p>`;
  },
};

function part({ name, up, problem: why }) {
  return html`<li class="part ${up ? 'good' : 'bad'}">
    <span aria-hidden="true">${up ? '✓' : '✕'}</span> <strong>${words(name)}</strong>
    <span>${up ? 'up' : why ?? 'down'}</span></li>`;
}

function findings(names) {
  if (names.length === 0) return html`<p class="finding good"><span aria-hidden="true">✓</span> No findings</p>`;
  return names.map((name) => {
    const [what, next] = FINDINGS[name] ?? [words(name), ''];
    return html`<p class="finding warn"><span aria-hidden="true">!</span> ${what}
      <span class="quiet">${next}</span></p>`;
  });
}

function destinationCard(one, line) {
  const dead = Object.values(one.dead).reduce((sum, count) => sum + count, 0);
  const events = (more) => `#/events?destination=${encodeURIComponent(one.destination)}${more}`;
  return html`<article class="card">
    <h3><a href=${events('')}>${one.destination}</a>
      ${one.circuit && one.circuit !== 'closed' ? html`circuit ${state(one.circuit)}` : nothing}</h3>
    ${line ? sparkline(line, one.destination) : nothing}
    ${findings(one.findings)}
    <dl>
      <div><dt>Queued</dt><dd>${number(one.backlog)}</dd></div>
      <div><dt>In flight</dt><dd>${number(one.in_flight)}</dd></div>
      <div><dt>Waiting</dt><dd><a href=${events('&state=waiting')}>${number(one.waiting)}</a></dd></div>
      <div><dt>Dead</dt><dd><a href="#/dead?destination=${encodeURIComponent(one.destination)}">${number(dead)}</a></dd></div>
      <div><dt>Workers</dt><dd>${number(one.workers)}</dd></div>
      <div><dt>Last delivered</dt><dd>${when(one.last_delivered)}</dd></div>
    </dl></article>`;
}

function sourceCard(one, line) {
  const refused = Object.values(one.refused).reduce((sum, count) => sum + count, 0);
  return html`<article class="card">
    <h3><a href="#/events?source=${encodeURIComponent(one.source)}">${one.source}</a>
      <span class="quiet">${one.provider}</span></h3>
    ${line ? sparkline(line, one.source) : nothing}
    ${findings(one.findings)}
    <dl>
      <div><dt>Last accepted</dt><dd>${when(one.last_accepted)}</dd></div>
      <div><dt>Delay</dt><dd>${one.delay_ms ? duration(one.delay_ms[0]) : '—'}</dd></div>
      <div><dt>Copies</dt><dd>${number(one.copies.count)}</dd></div>
      <div><dt>Refused, last hour</dt><dd>${number(refused)}</dd></div>
    </dl></article>`;
}
