// Unrouted events, the archive, and the search for a text in bodies.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { number } from './format.js';
import { act, loader, messages, only } from './load.js';
import { empty, eventLink, loading, problem, stranger, when } from './parts.js';

const LIMIT = 100;
/** Age of the archived events that are listed, in seconds. */
const AGE = 3600;

/** @typedef {Partial<Api.Matches> & { text?: string, error?: Failure }} Matches */

/** @type {View<{ unrouted: Api.UnroutedEvent[] | null, archive: Api.ArchivedEvent[] | null, matches: Matches | null }>} */
export const stored = {
  title: 'Unrouted and archive',

  start(page) {
    const load = loader(page, async () => {
      const [unrouted, archive] = await Promise.all([
        get(`v1/unrouted?limit=${LIMIT}`, page.signal),
        get(`v1/archive?newer_than=${AGE}&limit=${LIMIT}`, page.signal),
      ]);
      return { unrouted: unrouted.items, archive: archive.items };
    });
    page.actions.route = () => act(page, {
      title: 'Route unrouted events',
      text: 'Those that a destination subscribes to by now are delivered. The others stay.',
      name: only(page.state().unrouted.flatMap((one) => one.destinations)),
    }, async ({ because }) => {
      const { items } = await post('v1/unrouted/requeue', { limit: LIMIT, because });
      return `Routed: ${number(items.length)}.`;
    });
    page.actions.find = async (event) => {
      event.preventDefault();
      const text = String(new FormData(event.target).get('text'));
      page.update({ matches: {} });
      try {
        page.update({ matches: { text, ...await get(`v1/find?${new URLSearchParams({ text })}`, page.signal) } });
      } catch (error) {
        page.update({ matches: { error } });
      }
    };
    load();
  },

  initial: { unrouted: null, archive: null, matches: null, error: null, done: null, failed: null },

  render(now, page) {
    const { unrouted, archive, matches, error } = now;
    if (!unrouted) return error ? problem(error, page.actions.load) : loading();
    const isRoutable = unrouted.some((one) => one.destinations.length > 0);
    return html`
      ${messages(now, page)}
      <section aria-labelledby="find"><h2 id="find">Find by a text</h2>
        ${page.context.me.payloads ? html`<form class="filter" role="search" @submit=${page.actions.find}>
          <label class="sr" for="text">Text of a body</label>
          <input id="text" name="text" required maxlength="200" autocomplete="off" placeholder="trf_8172">
          <button>Find</button></form>
          <p class="quiet">It searches bodies, and is audited.</p>${matches ? found(matches) : nothing}`
        : html`<p class="quiet">This needs a token that allows payloads: zentra console open --payloads.</p>`}</section>
      <section aria-labelledby="unrouted"><h2 id="unrouted">Unrouted</h2>
        ${unrouted.length === 0 ? empty('No event is unrouted.', 'Events that no destination subscribes to would be here.')
        : html`${page.context.acts && isRoutable ? html`<p class="actions">
          <button @click=${page.actions.route}>Route unrouted events…</button></p>` : nothing}
          ${table(unrouted, 'Subscribes by now', (one) => one.destinations.join(', ') || 'nobody')}`}</section>
      <section aria-labelledby="archive"><h2 id="archive">Archived within the last hour</h2>
        ${archive.length === 0 ? empty('No event was archived within the last hour.', 'zentra archive list shows older ones.')
        : table(archive, 'Bytes', (one) => number(one.bytes))}</section>`;
  },
};

function table(items, last, value) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">Event</th><th scope="col">Type</th><th scope="col">Source</th><th scope="col">Received</th>
      <th scope="col">${last}</th></tr></thead>
    <tbody>${items.map((one) => html`<tr><td>${one.event_id ? eventLink(one.event_id) : '(no ID)'}</td>
      <td>${stranger(one.event_type ?? '')}</td><td>${one.source}</td><td>${when(one.received_at)}</td>
      <td>${value(one)}</td></tr>`)}</tbody></table></div>`;
}

/** @param {Matches} matches */
function found({ error, events, refused, more }) {
  if (error) return problem(error);
  if (!events) return loading();
  if (events.length + refused.length === 0) return empty('No body has this text.', 'Bodies of delivered events are searched only in the archive.');
  return html`${events.length > 0 ? table(events, 'Deliveries', (one) =>
      Object.entries(one.deliveries).map(([name, state]) => `${name}: ${state}`).join(', ') || '—') : nothing}
    ${refused.length > 0 ? html`<p>Refused callbacks: ${refused.map((id) => html`<code>${id}</code> `)}</p>` : nothing}
    ${more ? html`<p class="quiet">There can be more.</p>` : nothing}`;
}
