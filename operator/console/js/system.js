// Workers, sources, the configuration, and what operators did.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get } from './api.js';
import { number, words } from './format.js';
import { empty, loading, problem, state, stranger, when } from './parts.js';

const EVERY = 5000;

export const system = {
  title: 'System',

  start(page) {
    const isAdmin = page.context.me.role === 'admin';
    const load = async () => {
      try {
        const [workers, audit] = await Promise.all([
          get('v1/workers', page.signal), isAdmin ? get('v1/audit?limit=100', page.signal) : null,
        ]);
        page.update({ workers: workers.items, audit: audit?.items ?? null, error: null });
      } catch (error) {
        if (!page.signal.aborted) page.update({ error });
      }
    };
    page.actions.load = load;
    load();
    const timer = setInterval(() => document.hidden || load(), EVERY);
    page.signal.addEventListener('abort', () => clearInterval(timer));
  },

  initial: { workers: null, audit: null, error: null },

  render({ workers, audit, error }, page) {
    if (!workers) return error ? problem(error, page.actions.load) : loading();
    const { config } = page.context;
    return html`
      ${error ? problem(error, page.actions.load) : nothing}
      <section aria-labelledby="workers"><h2 id="workers">Workers</h2>${workers.length === 0
        ? empty('No worker runs.', 'Start zentra-worker.') : workerTable(workers)}</section>
      <section aria-labelledby="sources"><h2 id="sources">Sources</h2>${sourceTable(config.sources)}</section>
      ${audit === null ? nothing : html`<section aria-labelledby="audit"><h2 id="audit">Audit</h2>
        ${audit.length === 0 ? empty('Nobody has acted yet.', 'Each action of an operator would be here.') : auditTable(audit)}
      </section>`}
      <p class="quiet">Zentra ${config.version}, namespace ${config.namespace},
        ${config.embedded ? 'on one file' : 'on RabbitMQ and Redis'}. Deliveries are remembered for
        ${number(Math.round(config.retention_seconds / 86_400))} days, unless their source says otherwise.</p>`;
  },
};

function workerTable(workers) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">Worker</th><th scope="col">Version</th><th scope="col">Started</th>
      <th scope="col">Destinations</th></tr></thead>
    <tbody>${workers.map((one) => html`<tr><td>${stranger(one.worker)}</td><td>${one.version}</td>
      <td>${when(one.started_at)}</td><td>${Object.entries(one.destinations).map(([name, work]) => html`<div>${name}:
        ${number(work.in_flight)} in flight${work.circuit === 'closed' ? nothing : html`, circuit ${state(work.circuit)}`}
        ${work.paused ? 'paused' : nothing}</div>`)}</td></tr>`)}</tbody></table></div>`;
}

function sourceTable(sources) {
  const marks = (one) => [one.proven ? null : 'unproven', one.weakness && `weak: ${words(one.weakness)}`,
    one.at_least_once ? 'at least once' : null, one.archive ? null : 'not archived'].filter(Boolean).join(', ');
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">Source</th><th scope="col">Provider</th><th scope="col">Path at the ingress</th>
      <th scope="col">Environment</th><th scope="col">Notes</th></tr></thead>
    <tbody>${sources.map((one) => html`<tr><td>${one.name}</td><td>${one.provider}</td><td><code>${one.path}</code></td>
      <td>${one.environment}</td><td>${marks(one)}</td></tr>`)}</tbody></table></div>`;
}

function auditTable(entries) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Action</th><th scope="col">Why</th>
      <th scope="col">Result</th></tr></thead>
    <tbody>${entries.map((one) => html`<tr><td>${when(one.at)}</td><td>${stranger(one.by)}</td>
      <td>${one.action} ${stranger(one.on)}</td><td>${stranger(one.because)}</td><td>${stranger(one.result ?? '')}</td></tr>`)}</tbody>
  </table></div>`;
}
