// Destinations: what they do now, and pause, resume, and attempts in spite of an open circuit.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { duration, number } from './format.js';
import { act, loader, messages } from './load.js';
import { loading, problem, state, stranger, when } from './parts.js';

const EVERY = 10_000;

const ACTIONS = {
  pause: ['Pause', 'No attempts are made until it is resumed. Events wait; none is lost.'],
  resume: ['Resume', 'Attempts are made again.'],
  'close-circuit': ['Attempt now', 'The circuit is closed, and attempts start again at once.'],
};

/** @type {View<{ items: Api.DestinationState[] | null, status: Api.Status | null }>} */
export const destinations = {
  title: 'Destinations',

  start(page) {
    const load = loader(page, async () => {
      const [{ items }, status] = await Promise.all([
        get('v1/destinations', page.signal), get('v1/status', page.signal),
      ]);
      return { items, status };
    }, EVERY);
    page.actions.act = (name, action) => {
      const [title, text] = ACTIONS[action];
      return act(page, { title: `${title}: ${name}`, text, name }, async ({ because }) => {
        await post(`v1/destinations/${encodeURIComponent(name)}/${action}`, { because });
        return `${title}: ${name}.`;
      });
    };
    load();
  },

  initial: { items: null, status: null, error: null, done: null, failed: null },

  render(now, page) {
    const { items, status, error } = now;
    if (!items) return error ? problem(error, page.actions.load) : loading();
    const settings = (name) => page.context.config.destinations.find((one) => one.name === name);
    return html`
      ${messages(now, page)}
      ${items.map((one) =>
        card(one, status.destinations.find(({ destination }) => destination === one.destination), settings(one.destination), page))}`;
  },
};

/**
 * @param {Api.DestinationState} one
 * @param {Api.DestinationStatus | undefined} seen
 * @param {Api.DestinationSettings | undefined} settings
 * @param {Page} page
 */
function card(one, seen, settings, page) {
  const { destination: name, pause } = one;
  const isOpen = one.circuit && one.circuit !== 'closed';
  const button = (action) => html`<button @click=${() => page.actions.act(name, action)}>${ACTIONS[action][0]}…</button>`;
  return html`<article class="card" aria-label="Destination ${name}">
    <header class="head"><h2><a href="#/events?destination=${encodeURIComponent(name)}">${name}</a></h2>
      <p>${pause ? html`<span class="state warn"><span aria-hidden="true">‖</span> paused</span>` : nothing}
        ${one.circuit ? html`circuit ${state(one.circuit)}` : 'no worker'}</p></header>
    ${pause ? html`<p>Paused by ${stranger(pause.by)} ${when(pause.at)}${pause.because
      ? html`, because ${stranger(pause.because)}` : nothing}.
      ${number(one.heard)} of ${number(one.workers)} workers have read it.</p>` : nothing}
    ${page.context.acts ? html`<p class="actions">${pause ? button('resume') : button('pause')}
      ${isOpen ? button('close-circuit') : nothing}</p>` : nothing}
    <dl>
      <div><dt>Workers</dt><dd>${number(one.workers)}</dd></div>
      <div><dt>In flight</dt><dd>${number(one.in_flight)}</dd></div>
      ${seen ? figures(seen) : nothing}
    </dl>
    ${settings ? html`<h3>Settings</h3><dl class="wide">${effective(settings)}</dl>` : nothing}</article>`;
}

/** @param {Api.DestinationStatus} seen */
function figures(seen) {
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const share = seen.attempts > 0 ? `${Math.round((seen.succeeded / seen.attempts) * 100)} %` : '—';
  return html`
    ${fact('Queued', number(seen.backlog))}
    ${fact('Waiting', number(seen.waiting))}
    ${fact('Oldest', when(seen.oldest))}
    ${fact('Successful, last hour', share)}
    ${fact('Last delivered', when(seen.last_delivered))}`;
}

/** @param {Api.DestinationSettings} settings */
function effective(settings) {
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const { retry, circuit } = settings;
  return html`
    ${fact('Address', settings.url ?? (settings.lease_seconds === null ? 'a handler' : 'consumers pull'))}
    ${fact('Subscribes to', settings.subscribe.join(', '))}
    ${fact('Attempts', `${retry.attempts}, after ${duration(retry.initial_ms)} to ${duration(retry.max_ms)}`)}
    ${fact('Time limit', duration(settings.timeout_ms))}
    ${fact('At a time', `${number(settings.concurrency)} for each worker`)}
    ${fact('Rate', settings.rate === 0 ? 'no limit' : `${number(settings.rate)} per second and worker`)}
    ${fact('Circuit opens', circuit.failures === 0 ? 'never' : `after ${number(circuit.failures)} failures`)}`;
}
