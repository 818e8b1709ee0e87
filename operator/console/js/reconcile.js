// Reconcile: a provider's list of events, compared with what came.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { compare } from './api.js';
import { number, words } from './format.js';
import { act, messages } from './load.js';
import { empty, eventLink, loading, stranger, when } from './parts.js';

/** Maximum number of events of a list, and its size in bytes. */
const MOST = 10_000;
const LARGEST = 8 << 20;

/** The events of a list as they are written: numbers keep all their digits. */
export function listed(text) {
  const list = text.trim();
  if (list.startsWith('[')) return list;
  const lines = list.split('\n').filter((line) => line.trim());
  if (lines.length > MOST) throw new Error(`The list has more than ${number(MOST)} events.`);
  lines.forEach((line, at) => {
    try {
      JSON.parse(line);
    } catch {
      throw new Error(`Line ${at + 1} is not JSON.`);
    }
  });
  return `[${lines.join(',')}]`;
}

async function decoded(file) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error('The file is not UTF-8.');
  }
}

/** @typedef {{ source: string, events: string }} Asked */

/** @type {View<{ asked: Asked | null, report: Api.Report | null, busy: boolean }>} */
export const reconcile = {
  title: 'Reconcile',

  start(page) {
    page.actions.compare = async (event) => {
      event.preventDefault();
      const form = new FormData(event.target);
      page.update({ report: null, busy: true, failed: null, done: null });
      try {
        const file = /** @type {File} */ (form.get('list'));
        if (file.size > LARGEST) throw new Error('The file is larger than 8 MiB.');
        const asked = { source: String(form.get('source')), events: listed(await decoded(file)) };
        page.update({ asked, report: await compare({ ...asked, ingest: false, because: '' }, page.signal) });
      } catch (error) {
        page.update({ failed: error });
      }
      page.update({ busy: false });
    };
    // What is ingested is the list of the report that is shown.
    page.actions.ingest = (asked) => act(page, {
      title: 'Ingest missing events',
      text: `Missing events of ${asked.source} are accepted as if the provider had sent them. The list counts as the provider's word.`,
      name: asked.source,
    }, async ({ because }) => {
      // It goes on if the operator goes to another page.
      const report = await compare({ ...asked, ingest: true, because });
      page.update({ report });
      return `Ingested: ${number(report.counts.ingested ?? 0)}.`;
    });
  },

  initial: { asked: null, report: null, busy: false, error: null, failed: null, done: null },

  render(now, page) {
    const { config, acts } = page.context;
    if (!acts) return empty('A viewer does not reconcile.', 'It needs the role operator.');
    return html`
      ${messages(now, page)}
      <form class="card" @submit=${page.actions.compare}>
        <p>Compare the provider's list of events with what came. Nothing changes.</p>
        <label>Source<select name="source">${config.sources.map((one) => html`<option>${one.name}</option>`)}</select></label>
        <label>List: a file with one JSON event per line, or a JSON array; at most ${number(MOST)} events
          <input name="list" type="file" required accept=".json,.jsonl,.ndjson,application/json"></label>
        <button class="primary" ?disabled=${now.busy}>Compare</button>
      </form>
      ${now.busy ? loading() : nothing}
      ${now.report ? shown(now.report, now.asked, page) : nothing}`;
  },
};

/**
 * @param {Api.Report} report
 * @param {Asked} asked
 * @param {Page} page
 */
function shown({ source, counts, events }, asked, page) {
  const { me } = page.context;
  const all = Object.entries(counts);
  const canIngest = me.role === 'admin' && me.admits && (counts.missing ?? 0) > 0;
  return html`<section aria-labelledby="result"><h2 id="result">${source}</h2>
    <p role="status">${all.length === 0 ? 'The list is empty.' : all.map(([name, count]) => `${number(count)} ${words(name)}`).join(', ')}</p>
    ${canIngest ? html`<p class="actions"><button @click=${() => page.actions.ingest(asked)}>Ingest missing events…</button></p>` : nothing}
    ${(counts.missing ?? 0) > 0 && !canIngest ? html`<p class="quiet">Ingesting needs the role admin, and a server with
      the sources' secrets: zentra serve --admit.</p>` : nothing}
    ${events.length === 0 ? empty('Every event of the list came.', 'None is missing, dead or of another type.')
      : html`<div class="scroll" tabindex="0"><table>
      <thead><tr><th scope="col">Event</th><th scope="col">Type</th><th scope="col">At</th><th scope="col">State</th>
        <th scope="col">Details</th></tr></thead>
      <tbody>${events.map((one) => html`<tr><td>${one.state === 'missing' ? stranger(one.id) : eventLink(one.id)}</td>
        <td>${stranger(one.type ?? '')}</td><td>${when(one.at)}</td><td>${words(one.state)}</td>
        <td>${stranger(one.detail ?? '')}</td></tr>`)}</tbody></table></div>`}</section>`;
}
