// Events: deliveries, newest first, with filters in the address, and live changes.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { repeat } from '../vendor/lit-html/directives/repeat.js';
import { get, listen } from './api.js';
import { number } from './format.js';
import { empty, eventLink, loading, problem, state, stranger, when } from './parts.js';

const LIMIT = 100;
const NAMES = ['source', 'destination', 'type', 'state', 'reason', 'since', 'id'];

/** `source:stripe state:dead` as parameters. A word without a qualifier is an id. */
export function parse(text) {
  const found = new URLSearchParams();
  const unknown = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const at = word.indexOf(':');
    const [name, value] = at < 0 ? ['id', word] : [word.slice(0, at), word.slice(at + 1)];
    if (NAMES.includes(name) && value) found.set(name, value);
    else unknown.push(word);
  }
  return [found, unknown];
}

function write(parameters) {
  return NAMES.filter((name) => parameters.get(name)).map((name) => `${name}:${parameters.get(name)}`).join(' ');
}

export const events = {
  title: 'Events',

  start(page) {
    const query = new URLSearchParams(page.query);
    const id = query.get('id');
    if (id) {
      location.replace(`#/events/${encodeURIComponent(id)}`);
      return;
    }
    const load = async (cursor) => {
      const asked = new URLSearchParams(query);
      asked.set('limit', LIMIT);
      if (cursor) asked.set('cursor', cursor);
      try {
        const { items, next } = await get(`v1/events?${asked}`, page.signal);
        page.update((now) => ({ items: cursor ? [...now.items, ...items] : items, next, news: 0, error: null }));
      } catch (error) {
        if (!page.signal.aborted) page.update({ error });
      }
    };
    page.actions = { load, pause: () => page.update((now) => ({ paused: !now.paused })) };
    load();
    // Changes only say that there is something new: what is read stays where it is.
    let due = null;
    const followed = new URLSearchParams(query);
    followed.delete('since');
    listen(followed, {
      connected: (connected) => page.update({ connected }),
      missed: () => page.update({ news: 1 }),
      failed: (error) => page.update({ error }),
      changes: (changes) => {
        page.update((now) => ({ news: now.news + new Set(changes.map((one) => one.delivery)).size }));
        const isRead = document.hidden || page.state().paused || scrollY > 100;
        if (!isRead && !due) due = setTimeout(() => { due = null; load(); }, 1000);
      },
    }, page.signal);
    page.signal.addEventListener('abort', () => clearTimeout(due));
  },

  initial: { items: null, next: null, news: 0, paused: false, connected: true, error: null, unknown: [] },

  render(now, page) {
    const { items, next, news, paused, connected, error, unknown } = now;
    const search = (event) => {
      event.preventDefault();
      const [found, wrong] = parse(new FormData(event.target).get('query'));
      if (wrong.length > 0) page.update({ unknown: wrong });
      else location.hash = `#/events?${found}`;
    };
    const shown = write(new URLSearchParams(page.query));
    return html`
      <form class="filter" role="search" @submit=${search}>
        <label class="sr" for="query">Filter</label>
        <input id="query" name="query" .value=${shown} autocomplete="off" spellcheck="false" list="qualifiers"
          placeholder="source:stripe state:dead, or an ID">
        <datalist id="qualifiers">${NAMES.map((name) => html`<option value="${name}:"></option>`)}
          ${['delivered', 'waiting', 'in_flight', 'dead'].map((name) => html`<option value="state:${name}"></option>`)}
        </datalist>
        <button>Filter</button>
        <button type="button" aria-pressed=${paused} @click=${() => page.actions.pause()}>
          ${paused ? 'Go on' : 'Pause'}</button>
      </form>
      ${unknown.length > 0 ? html`<p class="notice warn" role="alert">Unknown: ${unknown.map(stranger)}. There are
        ${NAMES.map((name) => html`<code>${name}:</code> `)}</p>` : nothing}
      ${connected ? nothing : html`<p class="notice warn" role="status">The connection is lost. It is being made
        again.</p>`}
      ${error ? problem(error, () => page.actions.load()) : nothing}
      ${news > 0 && (paused || scrollY > 100) ? html`<button class="news" @click=${() => page.actions.load()}>
        ${number(news)} new</button>` : nothing}
      ${items === null ? (error ? nothing : loading()) : table(items, shown)}
      ${next ? html`<button class="more" @click=${() => page.actions.load(next)}>Show more</button>` : nothing}`;
  },
};

function table(items, shown) {
  if (items.length === 0) {
    return shown
      ? empty('No delivery matches.', 'Remove a filter, or look among the refused callbacks.')
      : empty('No delivery yet.', 'Send a test: zentra send SOURCE TYPE.');
  }
  return html`<div class="scroll"><table>
    <thead><tr><th scope="col">State</th><th scope="col">Event</th><th scope="col">Type</th><th scope="col">Source</th>
      <th scope="col">Destination</th><th scope="col" class="number">Attempts</th><th scope="col">First taken</th></tr></thead>
    <tbody>${repeat(items, (one) => one.key, row)}</tbody></table></div>`;
}

function row(one) {
  const [destination, source] = one.key.split('/', 2);
  const attempts = one.history.filter((entry) => entry.what === 'claimed').length;
  return html`<tr>
    <td>${state(one.record.state, one.reason)}</td>
    <td>${eventLink(one.key, one.event.event_id ?? '(no ID)')}</td>
    <td>${stranger(one.event.event_type ?? '')}</td>
    <td>${stranger(source)}</td><td>${stranger(destination)}</td>
    <td class="number">${attempts}</td>
    <td>${when(one.first_claimed_at)}</td></tr>`;
}
