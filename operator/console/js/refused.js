// Refused callbacks: each step of the verification, and the admission of those that verify now.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { repeat } from '../vendor/lit-html/directives/repeat.js';
import { get, post } from './api.js';
import { number, words } from './format.js';
import { act, loader, messages } from './load.js';
import { empty, loading, problem, stranger, when } from './parts.js';

const LIMIT = 200;

/** @typedef {Partial<Api.Explanation> & { error?: Failure }} Explained */

/** @type {View<{ items: Api.RefusedCallback[] | null, explained: Record<string, Explained> }>} */
export const refused = {
  title: 'Refused callbacks',

  start(page) {
    const load = loader(page, async () => {
      const asked = new URLSearchParams(page.query);
      asked.set('limit', String(LIMIT));
      const { items } = await get(`v1/refused?${asked}`, page.signal);
      return { items };
    });
    page.actions.explain = async (id) => {
      page.update((now) => ({ explained: { ...now.explained, [id]: {} } }));
      let found;
      try {
        found = await get(`v1/refused/${encodeURIComponent(id)}/explain`, page.signal);
      } catch (error) {
        found = { error };
      }
      page.update((now) => ({ explained: { ...now.explained, [id]: found } }));
    };
    page.actions.admit = ({ id, source }) => act(page, {
      title: 'Admit',
      text: 'It is verified again by the present configuration, and accepted if it verifies.',
      name: source,
    }, async ({ because }) => {
      const { items: [outcome] } = await post('v1/refused/admit', { ids: [id], because });
      if (!outcome?.admitted) throw new Error(`Still refused: ${words(outcome?.reason ?? 'it is gone')}.`);
      return `Admitted: ${number(outcome.events)} event(s) of ${source}.`;
    });
    load();
  },

  initial: { items: null, error: null, done: null, failed: null, explained: {} },

  render(now, page) {
    const { items, error, explained } = now;
    if (!items) return error ? problem(error, page.actions.load) : loading();
    return html`
      ${messages(now, page)}
      ${items.length === 0
        ? empty('No refused callback is stored.', 'A callback with a wrong, missing or stale signature would be here.')
        : html`<p class="quiet">${groups(items)}${page.query ? html` · <a href="#/refused">all</a>` : nothing}</p>
      ${repeat(items, (one) => one.id, (one) => card(one, explained[one.id], page))}`}`;
  },
};

/**
 * How many of each source and reason, as links to them.
 * @param {Api.RefusedCallback[]} items
 */
function groups(items) {
  const counts = new Map();
  for (const { source, reason } of items) {
    const name = JSON.stringify({ source, reason });
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count], at) => {
    const { source, reason } = JSON.parse(name);
    return html`${at > 0 ? ', ' : ''}<a href="#/refused?${new URLSearchParams({ source, reason })}">${source}:
      ${words(reason)}</a> (${number(count)})`;
  });
}

/**
 * @param {Api.RefusedCallback} one
 * @param {Explained | undefined} explained
 * @param {Page} page
 */
function card(one, explained, page) {
  const { admits } = page.context.me;
  return html`<article class="card" aria-label="Refused callback ${one.id}">
    <header class="head"><h2>${stranger(one.source)}: ${words(one.reason)}</h2>
      <p>${when(one.received_at)} ${one.peer ? `from ${one.peer}` : nothing}</p></header>
    <p><code>${one.id}</code>, ${number(one.bytes)} bytes</p>
    ${admits ? html`<p class="actions">
      <button @click=${() => page.actions.explain(one.id)}>Explain</button>
      ${page.context.acts ? html`<button @click=${() => page.actions.admit(one)}>Admit…</button>` : nothing}</p>`
      : html`<p class="quiet">This server does not have the sources' secrets: zentra serve --admit explains and admits.</p>`}
    ${explained ? explanation(explained) : nothing}
    <details><summary>Headers (${number(one.headers.length)})</summary>
      <table class="headers"><tbody>${one.headers.map(([name, value]) => html`
        <tr><th scope="row">${stranger(name)}</th><td>${stranger(value)}</td></tr>`)}</tbody></table></details>
  </article>`;
}

/** @param {Explained} explained */
function explanation({ error, steps, hints, verified }) {
  if (error) return problem(error);
  if (!steps) return loading();
  return html`<ol class="steps">${steps.map(({ good, found }) => html`<li class=${good ? 'good' : 'bad'}>
      <span aria-hidden="true">${good ? '✓' : '✕'}</span> <span class="sr">${good ? 'right:' : 'wrong:'}</span>
      ${stranger(found)}</li>`)}</ol>
    ${hints.map((hint) => html`<p class="finding"><span aria-hidden="true">→</span> ${stranger(hint)}</p>`)}
    ${verified ? html`<p class="finding good"><span aria-hidden="true">✓</span> It verifies now.</p>` : nothing}`;
}
