// Dead letters: grouped by destination, reason and error. Requeueing a group, or selected letters, is a
// job: plan, canary, run.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { number, visible, words } from './format.js';
import { plan } from './jobs.js';
import { act, loader, messages, only } from './load.js';
import { empty, eventLink, loading, problem, state, stranger, when } from './parts.js';

/** For each destination. A group of a destination with as many may have more. */
const LIMIT = 1000;
/** Number of events of a group that are shown, and can be selected. */
const SHOWN = 100;
/** Number of events with which a group is open. */
const OPEN = 10;
/** Maximum number of selected letters: that of a job's ids. */
const SELECTED = 100;

/** @typedef {{ destination: string, reason?: Api.DeadReason, error?: string, items: Api.Delivery[], isWhole: boolean }} Group */

/** @type {View<{ groups: Group[] | null, selected: Set<string> }>} */
export const dead = {
  title: 'Dead letters',

  start(page) {
    const load = loader(page, async () => {
      const asked = new URLSearchParams(page.query);
      asked.set('limit', String(LIMIT));
      const { items } = await get(`v1/dead?${asked}`, page.signal);
      const there = new Set(items.map((one) => one.key));
      return ({ selected }) => ({ groups: grouped(items), selected: new Set([...selected].filter((key) => there.has(key))) });
    });
    page.actions.requeue = ({ destination, reason, error, items, isWhole }) => {
      // As the list is narrowed.
      const { source, type } = Object.fromEntries(new URLSearchParams(page.query));
      // Letters without an error are named, if there are few enough: no filter selects only them.
      const ids = !error && isWhole && items.length <= SELECTED ? items.map((one) => one.key) : undefined;
      const count = error || ids ? (isWhole ? number(items.length) : 'all') : 'all with this reason';
      const narrowed = `${source ? `, from ${source}` : ''}${type ? `, of the type ${type}` : ''}`;
      return plan(page, {
        title: `Plan: requeue ${count}`,
        text: `A job is planned for all letters of ${destination} with the reason "${words(reason)}"${error
          ? ` and the error "${visible(error)}"` : ''}${narrowed}. Nothing is requeued yet: the next page shows the plan.`,
        name: destination,
      }, ids ? { ids } : { destination, reason, error, source, type });
    };
    page.actions.requeueSelected = () => {
      const ids = [...page.state().selected];
      return plan(page, {
        title: `Plan: requeue ${number(ids.length)}`,
        text: 'A job is planned for the selected letters. Nothing is requeued yet: the next page shows the plan.',
        name: only(ids.map(destinationOf)),
      }, { ids });
    };
    page.actions.drainSelected = () => {
      const ids = [...page.state().selected];
      return act(page, {
        title: `Drain ${number(ids.length)}`,
        text: 'The selected letters are taken out of their queues for good. They cannot be requeued; a replay from the archive can deliver them.',
        name: only(ids.map(destinationOf)),
      }, async ({ because }) => {
        const { done } = await post('v1/dead/drain', { ids, because });
        return `${number(done)} drained.`;
      });
    };
    page.actions.select = (keys, isSelected) => page.update(({ selected }) => {
      const now = new Set(selected);
      for (const key of keys) isSelected ? now.add(key) : now.delete(key);
      return { selected: now };
    });
    load();
  },

  initial: { groups: null, selected: new Set(), error: null, done: null, failed: null },

  render(now, page) {
    const { groups, selected, error } = now;
    if (!groups) return error ? problem(error, page.actions.load) : loading();
    return html`
      ${messages(now, page)}
      ${groups.length === 0
        ? empty('There is no dead letter.', 'A delivery that is given up would be here, until somebody acts.')
        : groups.map((group) => card(group, selected, page))}
      ${selected.size > 0 ? selection(selected, page) : nothing}`;
  },
};

function destinationOf(key) {
  return key.split('/', 1)[0];
}

/**
 * Groups by destination, reason and error. A group is whole if the list has all letters of its destination.
 * @param {Api.Delivery[]} items
 * @returns {Group[]}
 */
function grouped(items) {
  const groups = new Map();
  const counts = new Map();
  for (const one of items) {
    const destination = destinationOf(one.key);
    const name = JSON.stringify([destination, one.reason, one.error]);
    if (!groups.has(name)) groups.set(name, { destination, reason: one.reason, error: one.error, items: [] });
    groups.get(name).items.push(one);
    counts.set(destination, (counts.get(destination) ?? 0) + 1);
  }
  for (const group of groups.values()) group.isWhole = counts.get(group.destination) < LIMIT;
  return [...groups.values()].sort((one, other) => other.items.length - one.items.length);
}

/**
 * @param {Set<string>} selected
 * @param {Page} page
 */
function selection(selected, page) {
  const isTooMuch = selected.size > SELECTED;
  return html`<div class="actions selection" role="status">
    <strong>${number(selected.size)} selected</strong>
    ${isTooMuch ? html`<span class="quiet">At most ${SELECTED} at a time. Requeue the group, or select fewer.</span>` : html`
      <button @click=${() => page.actions.requeueSelected()}>Requeue selected…</button>
      <button @click=${() => page.actions.drainSelected()}>Drain selected…</button>`}
    <button @click=${() => page.actions.select([...selected], false)}>Clear</button></div>`;
}

/**
 * @param {Group} group
 * @param {Set<string>} selected
 * @param {Page} page
 */
function card(group, selected, page) {
  const { destination, reason, error, items } = group;
  const isSuspected = ['suspected_replay', 'conflict'].includes(reason);
  const isSelectable = page.context.acts && !isSuspected;
  const count = group.isWhole ? number(items.length) : `${number(items.length)} or more`;
  const label = `${destination}: ${words(reason)}${error ? `, ${visible(error)}` : ''}`;
  const shown = items.slice(0, SHOWN);
  const keys = shown.map((one) => one.key);
  const box = (name, of) => html`<input type="checkbox" aria-label=${name} .checked=${of.every((key) => selected.has(key))}
    @change=${({ target }) => page.actions.select(of, target.checked)}>`;
  return html`<article class="card" aria-label=${label}>
    <header class="head"><h2>${destination}: ${state('dead', reason)}</h2><p>${count}</p></header>
    ${error ? html`<p class="finding">${stranger(error)}</p>` : nothing}
    ${isSuspected ? html`<p class="quiet">Each of these is released by itself, if it is genuine: open it.</p>` : nothing}
    ${isSelectable ? html`<p class="actions">
      <button @click=${() => page.actions.requeue(group)}>Requeue ${count}…</button></p>` : nothing}
    <details ?open=${items.length <= OPEN}><summary>${items.length > SHOWN ? `The oldest ${SHOWN}` : 'Events'}</summary>
      <div class="scroll" tabindex="0"><table>
        <thead><tr>${isSelectable ? html`<th scope="col">${box(`Select all shown of ${label}`, keys)}</th>` : nothing}
          <th scope="col">Event</th><th scope="col">Type</th><th scope="col">Source</th><th scope="col">Received</th></tr></thead>
        <tbody>${shown.map(({ key, event }) => html`<tr>
          ${isSelectable ? html`<td>${box(`Select ${visible(event.event_id ?? key)}`, [key])}</td>` : nothing}
          <td>${eventLink(key, event.event_id ?? '(no ID)')}</td><td>${stranger(event.event_type ?? '')}</td>
          <td>${visible(event.source)}</td><td>${when(event.received_at)}</td></tr>`)}</tbody></table></div>
      ${items.length > SHOWN ? html`<p><a href="#/events?destination=${encodeURIComponent(destination)}&state=dead&reason=${reason}">All with
        this reason</a></p>` : nothing}
    </details></article>`;
}
