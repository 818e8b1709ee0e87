// Overview: parts, sources and destinations, and what is wrong with them.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { duration, number, words } from './format.js';
import { loader } from './load.js';
import { findings, loading, problem, sparkline, state, when } from './parts.js';

const EVERY = 10_000;

/** @type {View<{ status?: Api.Status, series?: Api.Window }>} */
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
      <p class="quiet"><a href="#/refused">Refused callbacks: ${number(status.refused)}</a>.
        <a href="#/stored">Unrouted events: ${number(status.unrouted)}</a>. The figures are from the newest ${number(status.seen.deliveries)} deliveries.</p>`;
  },
};

/** @param {Api.Part} part */
function part({ name, up, problem: why }) {
  return html`<li class="part ${up ? 'good' : 'bad'}">
    <span aria-hidden="true">${up ? '✓' : '✕'}</span> <strong>${words(name)}</strong>
    <span>${up ? 'up' : why ?? 'down'}</span></li>`;
}

/**
 * @param {Api.DestinationStatus} one
 * @param {Api.Line} [line]
 */
function destinationCard(one, line) {
  const dead = Object.values(one.dead).reduce((sum, count) => sum + count, 0);
  const events = (more) => `#/events?destination=${encodeURIComponent(one.destination)}${more}`;
  return html`<article class="card">
    <h3><a href=${events('')}>${one.destination}</a>
      ${one.circuit && one.circuit !== 'closed' ? html`circuit ${state(one.circuit)}` : nothing}</h3>
    ${line ? sparkline(line, one.destination) : nothing}
    ${findings(one.findings, one.destination)}
    <dl>
      <div><dt>Queued</dt><dd>${number(one.backlog)}</dd></div>
      <div><dt>In flight</dt><dd>${number(one.in_flight)}</dd></div>
      <div><dt>Waiting</dt><dd><a href=${events('&state=waiting')}>${number(one.waiting)}</a></dd></div>
      <div><dt>Dead</dt><dd><a href="#/dead?destination=${encodeURIComponent(one.destination)}">${number(dead)}</a></dd></div>
      <div><dt>Workers</dt><dd>${number(one.workers)}</dd></div>
      <div><dt>Last delivered</dt><dd>${when(one.last_delivered)}</dd></div>
    </dl></article>`;
}

/**
 * @param {Api.SourceStatus} one
 * @param {Api.Line} [line]
 */
function sourceCard(one, line) {
  const refused = Object.values(one.refused).reduce((sum, count) => sum + count, 0);
  return html`<article class="card">
    <h3><a href="#/events?source=${encodeURIComponent(one.source)}">${one.source}</a>
      <span class="quiet">${one.provider}</span></h3>
    ${line ? sparkline(line, one.source) : nothing}
    ${findings(one.findings, one.source)}
    <dl>
      <div><dt>Last accepted</dt><dd>${when(one.last_accepted)}</dd></div>
      <div><dt>Delay</dt><dd>${one.delay_ms ? duration(one.delay_ms[0]) : '—'}</dd></div>
      <div><dt>Copies</dt><dd>${number(one.copies.count)}</dd></div>
      <div><dt>Refused, last hour</dt><dd>${number(refused)}</dd></div>
    </dl></article>`;
}
