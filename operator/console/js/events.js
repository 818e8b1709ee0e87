// Events: deliveries, newest first, with filters in the address, and live changes.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { repeat } from '../vendor/lit-html/directives/repeat.js';
import { get, listen } from './api.js';
import { number } from './format.js';
import { plan } from './jobs.js';
import { loader, messages, only } from './load.js';
import { empty, eventLink, isDrained, loading, state, stranger, when } from './parts.js';

const LIMIT = 100;
const NAMES = ['source', 'destination', 'type', 'state', 'reason', 'job', 'since', 'id'];

/** `source:stripe state:dead` as parameters. A word without a known qualifier is an ID. */
export function parse(text) {
  const found = new URLSearchParams();
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const [name, ...value] = word.split(':');
    if (NAMES.includes(name) && value.join(':')) found.set(name, value.join(':'));
    else found.set('id', word);
  }
  return found;
}

const AGES = { s: 1000, min: 60_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `1h` as the time an hour ago. Anything else as it is. */
function since(text) {
  const age = /^(\d+)(s|min|m|h|d)$/.exec(text);
  return age ? new Date(Date.now() - Number(age[1]) * AGES[age[2]]).toISOString() : text;
}

function write(parameters) {
  return NAMES.filter((name) => parameters.get(name)).map((name) => `${name}:${parameters.get(name)}`).join(' ');
}

/** What a job selects for these filters, or null if it cannot select the same dead letters. */
function selection(query) {
  const { state: of, ...rest } = Object.fromEntries(query);
  const isSuspected = ['suspected_replay', 'conflict'].includes(rest.reason);
  const fits = of === 'dead' && !isSuspected
    && Object.keys(rest).every((name) => ['destination', 'source', 'type', 'reason'].includes(name));
  if (!fits) return null;
  return Object.keys(rest).length > 0 ? rest : { all: true };
}

/** Whether a job can requeue it: a drained letter is gone, and a conflict is released by itself. */
/** @param {Api.Listed} one */
function isRequeueable({ reason, history }) {
  return !['suspected_replay', 'conflict'].includes(reason) && !isDrained(history);
}

/**
 * The text of the filter with its last word completed: names of qualifiers, then their known values.
 * @param {string} text
 * @param {Api.Configuration} config
 * @param {Api.Listed[]} items
 */
function completions(text, config, items) {
  const words = text.split(/\s+/);
  const last = words.pop();
  const before = words.map((word) => `${word} `).join('');
  const seen = (value) => [...new Set(items.map(value).filter(Boolean))];
  const values = {
    source: config.sources.map((one) => one.name),
    destination: config.destinations.map((one) => one.name),
    type: seen((one) => one.event.event_type),
    state: ['delivered', 'waiting', 'in_flight', 'dead'],
    reason: ['exhausted', 'permanent', 'too_old', 'seal_broken', 'not_ours', 'suspected_replay', 'conflict', 'crashed',
      'ended', 'not_subscribed'],
    since: ['10min', '1h', '1d', '7d'],
  };
  const name = last.split(':', 1)[0];
  const fits = last.includes(':')
    ? (values[name] ?? []).map((value) => `${name}:${value}`)
    : NAMES.map((known) => `${known}:`);
  return fits.filter((word) => word.startsWith(last) && word !== last).map((word) => before + word);
}

/**
 * @type {View<{ items: Api.Listed[] | null, next?: string | null, news: number, paused: boolean, wrong: string | null,
 *   typed?: string }>}
 */
export const events = {
  title: 'Events',

  start(page) {
    const query = new URLSearchParams(page.query);
    const id = query.get('id');
    if (id) {
      location.replace(`#/events/${encodeURIComponent(id)}`);
      return;
    }
    const load = loader(page, async (cursor) => {
      const asked = new URLSearchParams(query);
      asked.set('limit', String(LIMIT));
      if (query.has('since')) asked.set('since', since(query.get('since')));
      if (cursor) asked.set('cursor', cursor);
      const { items, next } = await get(`v1/events?${asked}`, page.signal);
      return (now) => (cursor
        ? { items: [...now.items, ...items.filter((one) => now.items.every((other) => other.key !== one.key))], next }
        : { items, next, news: 0 });
    });
    // What is read stays where it is: then a button says how much is new.
    let due = null;
    const refresh = () => {
      const { news, paused } = page.state();
      if (news === 0 || paused || document.hidden || scrollY > 100 || due) return;
      due = setTimeout(() => { due = null; load(); }, 1000);
    };
    const add = (count) => {
      page.update((now) => ({ news: now.news + count }));
      refresh();
    };
    page.actions.pause = () => {
      page.update((now) => ({ paused: !now.paused }));
      refresh();
    };
    page.actions.requeue = () => plan(page, {
      title: 'Plan: requeue all that match',
      text: `A job is planned for all dead letters with ${write(query)}. Nothing is requeued yet: the next page shows the plan.`,
      name: query.get('destination') ?? only(page.context.config.destinations.map((one) => one.name)),
    }, selection(query));
    document.addEventListener('visibilitychange', refresh, { signal: page.signal });
    addEventListener('scroll', refresh, { signal: page.signal, passive: true });
    // A delivery that leaves a state or a time is a change too.
    const followed = new URLSearchParams(query);
    for (const name of ['since', 'state', 'reason', 'job']) followed.delete(name);
    listen(followed, {
      connected: (wrong) => page.update({ wrong }),
      ready: () => load(),
      missed: () => add(1),
      failed: (error) => page.update({ error }),
      changes: (changes) => add(new Set(changes.map((one) => one.delivery)).size),
    }, page.signal);
    page.signal.addEventListener('abort', () => clearTimeout(due));
  },

  initial: { items: null, next: null, news: 0, paused: false, wrong: null, error: null, done: null, failed: null },

  render(now, page) {
    const { items, next, news, paused, wrong, error } = now;
    const search = (event) => {
      event.preventDefault();
      location.hash = `#/events?${parse(new FormData(event.target).get('query'))}`;
    };
    const query = new URLSearchParams(page.query);
    const shown = write(query);
    const complete = ({ target }) => page.update({ typed: target.value });
    return html`
      <form class="filter" role="search" @submit=${search}>
        <label class="sr" for="query">Filter</label>
        <input id="query" name="query" .value=${shown} autocomplete="off" spellcheck="false" list="qualifiers" @input=${complete}
          placeholder="source:stripe state:dead, or an ID">
        <datalist id="qualifiers">${completions(now.typed ?? shown, page.context.config, items ?? []).map((text) => html`
          <option value=${text}></option>`)}</datalist>
        <button>Filter</button>
        <button type="button" aria-pressed=${paused} @click=${() => page.actions.pause()}>
          ${paused ? 'Go on' : 'Pause'}</button>
      </form>
      ${wrong ? html`<p class="notice warn" role="status">${wrong}</p>` : nothing}
      ${messages(now, page)}
      ${page.context.acts && selection(query) && items?.some(isRequeueable) ? html`<p class="actions">
        <button @click=${() => page.actions.requeue()}>Requeue all that match…</button></p>` : nothing}
      ${news > 0 ? html`<button class="news" @click=${() => page.actions.load()}>
        ${number(news)} new</button>` : nothing}
      ${items === null ? (error ? nothing : loading()) : table(items, shown)}
      ${next ? html`<button class="more" @click=${() => page.actions.load(next)}>Show more</button>` : nothing}`;
  },
};

/**
 * @param {Api.Listed[]} items
 * @param {string} shown
 */
function table(items, shown) {
  if (items.length === 0) {
    return shown
      ? empty('No delivery matches.', 'Remove a filter, or look among the refused callbacks.')
      : empty('No delivery yet.', 'Send a test: zentra send SOURCE TYPE.');
  }
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">State</th><th scope="col">Event</th><th scope="col">Type</th><th scope="col" class="roomy">Source</th>
      <th scope="col" class="roomy">Destination</th><th scope="col" class="number roomy">Attempts</th><th scope="col">First taken</th></tr></thead>
    <tbody>${repeat(items, (one) => one.key, row)}</tbody></table></div>`;
}

/** @param {Api.Listed} one */
function row(one) {
  const [destination, source] = one.key.split('/', 2);
  const attempts = one.history.filter((entry) => entry.what === 'claimed').length;
  return html`<tr>
    <td>${state(one.record.state, one.reason)}</td>
    <td class="id">${eventLink(one.key, one.event.event_id ?? '(no ID)')}</td>
    <td>${stranger(one.event.event_type ?? '')}</td>
    <td class="roomy">${stranger(source)}</td><td class="roomy">${stranger(destination)}</td>
    <td class="number roomy">${attempts}</td>
    <td>${when(one.first_claimed_at)}</td></tr>`;
}
