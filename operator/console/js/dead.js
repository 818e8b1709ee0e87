// Dead letters: grouped by destination and reason, with what the destinations said. Requeueing a group
// is a job: plan, canary, run.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { number, visible, words } from './format.js';
import { plan } from './jobs.js';
import { loader, messages } from './load.js';
import { empty, eventLink, loading, problem, state, stranger, when } from './parts.js';

/** For each destination. A group with as many may have more. */
const LIMIT = 1000;
/** Number of events that are shown of a group. */
const SHOWN = 10;

export const dead = {
  title: 'Dead letters',

  start(page) {
    const load = loader(page, async () => {
      const asked = new URLSearchParams(page.query);
      asked.set('limit', LIMIT);
      const { items } = await get(`v1/dead?${asked}`, page.signal);
      return { groups: grouped(items) };
    });
    page.actions.requeue = ({ destination, reason, items, isWhole }) => {
      // As the list is narrowed.
      const { source, type } = Object.fromEntries(new URLSearchParams(page.query));
      const narrowed = `${source ? `, from ${source}` : ''}${type ? `, of the type ${type}` : ''}`;
      return plan(page, {
        title: `Plan: requeue ${isWhole ? number(items.length) : 'all'}`,
        text: `A job is planned for all letters of ${destination} with the reason "${words(reason)}"${narrowed}. `
          + 'Nothing is requeued yet: the next page shows the plan.',
        name: destination,
      }, { destination, reason, source, type });
    };
    load();
  },

  initial: { groups: null, error: null, failed: null },

  render(now, page) {
    const { groups, error } = now;
    if (!groups) return error ? problem(error, page.actions.load) : loading();
    return html`
      ${messages(now, page)}
      ${groups.length === 0
        ? empty('There is no dead letter.', 'A delivery that is given up would be here, until somebody acts.')
        : groups.map((group) => card(group, page))}`;
  },
};

/** Groups by destination and reason. A group is whole if the list has all letters of its destination. */
function grouped(items) {
  const groups = new Map();
  const counts = new Map();
  for (const one of items) {
    const destination = one.key.split('/', 1)[0];
    const name = `${destination}/${one.reason}`;
    if (!groups.has(name)) groups.set(name, { destination, reason: one.reason, items: [] });
    groups.get(name).items.push(one);
    counts.set(destination, (counts.get(destination) ?? 0) + 1);
  }
  for (const group of groups.values()) group.isWhole = counts.get(group.destination) < LIMIT;
  return [...groups.values()].sort((one, other) => other.items.length - one.items.length);
}

/** What the destination said last, and how often. */
function errors(items) {
  const counts = new Map();
  for (const { history } of items) {
    const last = history.findLast((entry) => entry.what === 'dead');
    const said = last?.status ? `answered ${last.status}` : last?.error;
    if (said) counts.set(said, (counts.get(said) ?? 0) + 1);
  }
  return [...counts].sort(([, one], [, other]) => other - one).slice(0, 5);
}

function card(group, page) {
  const { destination, reason, items } = group;
  const suspected = ['suspected_replay', 'conflict'].includes(reason);
  const count = group.isWhole ? number(items.length) : `${number(items.length)} or more`;
  return html`<article class="card" aria-label="${destination}: ${words(reason)}">
    <header class="head"><h2>${destination}: ${state('dead', reason)}</h2><p>${count}</p></header>
    ${errors(items).map(([said, times]) => html`<p class="finding">${number(times)} × ${stranger(said)}</p>`)}
    ${suspected ? html`<p class="quiet">Each of these is released by itself, if it is genuine: open it.</p>` : nothing}
    ${page.context.acts && !suspected ? html`<p class="actions">
      <button @click=${() => page.actions.requeue(group)}>Requeue ${count}…</button></p>` : nothing}
    <details ?open=${items.length <= SHOWN}><summary>${items.length > SHOWN ? `The oldest ${SHOWN}` : 'Events'}</summary>
      <div class="scroll" tabindex="0"><table>
        <thead><tr><th scope="col">Event</th><th scope="col">Type</th><th scope="col">Source</th><th scope="col">Received</th></tr></thead>
        <tbody>${items.slice(0, SHOWN).map(({ key, event }) => html`<tr>
          <td>${eventLink(key, event.event_id ?? '(no ID)')}</td><td>${stranger(event.event_type ?? '')}</td>
          <td>${visible(event.source)}</td><td>${when(event.received_at)}</td></tr>`)}</tbody></table></div>
      ${items.length > SHOWN ? html`<p><a href="#/events?destination=${encodeURIComponent(destination)}&state=dead&reason=${reason}">All of
        them</a></p>` : nothing}
    </details></article>`;
}
