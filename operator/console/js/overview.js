// Overview: parts, sources and destinations, and what is wrong with them.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { duration, number, words } from './format.js';
import { act, loader, messages } from './load.js';
import { findings, loading, meaning, problem, sparkline, state, stranger, when } from './parts.js';

const EVERY = 10_000;

/** @type {View<{ status?: Api.Status, series?: Api.Window, incidents?: Api.Incident[] }>} */
export const overview = {
  title: 'Overview',

  start(page) {
    const load = loader(page, async () => {
      const [status, series, { items }] = await Promise.all([
        get('v1/status', page.signal), get('v1/series', page.signal), get('v1/incidents?open=true', page.signal),
      ]);
      return { status, series, incidents: items };
    }, EVERY);
    page.actions.acknowledge = (one) => act(page, {
      title: `Acknowledge: ${title(one)}`, text: 'Nobody is reminded of it.', name: named(one),
    }, async ({ because }) => {
      await post(`v1/incidents/${encodeURIComponent(one.id)}/acknowledge`, { because });
      return `Acknowledged: ${title(one)}.`;
    });
    page.actions.resolve = (one) => act(page, {
      title: `Resolve: ${title(one)}`,
      text: 'It closes, and its receivers are notified. Its finding opens a new one only after it has gone.',
      name: named(one),
    }, async ({ because }) => {
      await post(`v1/incidents/${encodeURIComponent(one.id)}/resolve`, { because });
      return `Resolved: ${title(one)}.`;
    });
    load();
  },

  initial: {},

  render(now, page) {
    const { status, series, incidents, error } = now;
    if (!status) return error ? problem(error) : loading();
    const line = (lines, name) => lines.find((one) => one.name === name);
    return html`
      ${messages(now, page)}
      ${incidents.length > 0 ? html`<section aria-labelledby="incidents"><h2 id="incidents">Incidents</h2>
        ${incidents.map((one) => incident(one, page))}</section>` : nothing}
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

/** @param {Api.Incident} one */
function title({ name, finding }) {
  return `${name}: ${words(finding)}`;
}

/**
 * The name that an action on it asks for, or undefined for the namespace.
 * @param {Api.Incident} one
 */
function named({ subject, name }) {
  return subject === 'part' ? undefined : name;
}

const TONES = { critical: 'bad', warning: 'warn', info: 'info' };

/**
 * @param {Api.Incident} one
 * @param {Page} page
 */
function incident(one, page) {
  const notified = Object.entries(one.sent ?? {}).map(([name]) => name);
  return html`<article class="notice ${TONES[one.severity]}" aria-label="Incident ${title(one)}">
    <p><strong>${words(one.severity)}</strong> ${title(one)}, since ${when(one.opened_at)}. ${meaning(one.finding)}
      ${notified.length > 0 ? html`<span class="quiet">Notified: ${notified.join(', ')}.</span>` : nothing}</p>
    ${one.acknowledged ? html`<p class="quiet">Acknowledged by ${stranger(one.acknowledged.by)}
      ${when(one.acknowledged.at)}${one.acknowledged.because ? html`, because ${stranger(one.acknowledged.because)}` : nothing}.</p>` : nothing}
    ${page.context.acts ? html`<p class="actions">
      ${one.acknowledged ? nothing : html`<button @click=${() => page.actions.acknowledge(one)}>Acknowledge…</button>`}
      <button @click=${() => page.actions.resolve(one)}>Resolve…</button></p>` : nothing}</article>`;
}

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
