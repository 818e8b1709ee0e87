// Workers, tokens, the configuration, and what operators did.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { number, visible } from './format.js';
import { act, loader, messages } from './load.js';
import { empty, loading, problem, state, stranger, when } from './parts.js';

const EVERY = 5000;

/** @type {View<{ workers: Api.Heartbeat[] | null, audit: Api.AuditEntry[] | null, tokens: Api.TokenDetails[] | null }>} */
export const system = {
  title: 'System',

  start(page) {
    const isAdmin = page.context.me.role === 'admin';
    const load = loader(page, async () => {
      const [workers, audit, tokens] = await Promise.all([
        get('v1/workers', page.signal), isAdmin ? get('v1/audit?limit=100', page.signal) : null,
        isAdmin ? get('v1/tokens', page.signal) : null,
      ]);
      return { workers: workers.items, audit: audit?.items ?? null, tokens: tokens?.items ?? null };
    }, EVERY);
    page.actions.revoke = ({ id, name }) => act(page, {
      title: `Revoke the token of ${name}`,
      text: 'It is not valid from now on. This cannot be undone.',
    }, async ({ because }) => {
      await post(`v1/tokens/${encodeURIComponent(id)}/revoke`, { because });
      return `Revoked: ${name}.`;
    });
    load();
  },

  initial: { workers: null, audit: null, tokens: null, error: null, done: null, failed: null },

  render(now, page) {
    const { workers, audit, tokens, error } = now;
    if (!workers) return error ? problem(error, page.actions.load) : loading();
    const { config } = page.context;
    return html`
      ${messages(now, page)}
      <section aria-labelledby="workers"><h2 id="workers">Workers</h2>${workers.length === 0
        ? empty('No worker runs.', 'Start zentra-worker.') : workerTable(workers)}</section>
      ${tokens === null ? nothing : html`<section aria-labelledby="tokens"><h2 id="tokens">Tokens</h2>
        ${tokenTable(tokens, page)}<p class="quiet">New ones: zentra token create.</p></section>`}
      ${audit === null ? nothing : html`<section aria-labelledby="audit"><h2 id="audit">Audit</h2>
        ${audit.length === 0 ? empty('Nobody has acted yet.', 'Each action of an operator would be here.') : auditTable(audit)}
      </section>`}
      <details><summary>Configuration, without secrets</summary>
        <pre class="payload" tabindex="0">${visible(JSON.stringify(config, null, 2))}</pre></details>
      <p class="quiet">Zentra ${config.version}, namespace ${config.namespace},
        ${config.embedded ? 'on one file' : 'on RabbitMQ and Redis'}. Deliveries are remembered for
        ${number(Math.round(config.retention_seconds / 86_400))} days, unless their source says otherwise.</p>`;
  },
};

/** @param {Api.Heartbeat[]} workers */
function workerTable(workers) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">Worker</th><th scope="col">Version</th><th scope="col">Started</th>
      <th scope="col">Destinations</th></tr></thead>
    <tbody>${workers.map((one) => html`<tr><td>${stranger(one.worker)}</td><td>${one.version}</td>
      <td>${when(one.started_at)}</td><td>${Object.entries(one.destinations).map(([name, work]) => html`<div>${name}:
        ${number(work.in_flight)} in flight${work.circuit === 'closed' ? nothing : html`, circuit ${state(work.circuit)}`}
        ${work.paused ? 'paused' : nothing}</div>`)}</td></tr>`)}</tbody></table></div>`;
}

/**
 * @param {Api.TokenDetails[]} tokens
 * @param {Page} page
 */
function tokenTable(tokens, page) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Payloads</th><th scope="col">Valid until</th>
      <th scope="col">Created</th><th scope="col"><span class="sr">Action</span></th></tr></thead>
    <tbody>${tokens.map((one) => html`<tr><td>${stranger(one.name)} ${one.id === page.context.me.id ? '(yours)' : nothing}
        ${one.once ? '(a link that is not used yet)' : nothing}</td>
      <td>${one.role}${one.destinations.length > 0 ? ` of ${one.destinations.join(', ')}` : nothing}</td>
      <td>${one.payloads ? 'yes' : 'no'}</td>
      <td>${when(one.expires_at)}${Date.parse(one.expires_at) < Date.now() ? ' (expired)' : nothing}</td>
      <td>${when(one.created.at)} by ${stranger(one.created.by)}</td>
      <td><button @click=${() => page.actions.revoke(one)}>Revoke…</button></td></tr>`)}</tbody></table></div>`;
}

/** @param {Api.AuditEntry[]} entries */
function auditTable(entries) {
  return html`<div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Action</th><th scope="col">Why</th>
      <th scope="col">Result</th></tr></thead>
    <tbody>${entries.map((one) => html`<tr><td>${when(one.at)}</td><td>${stranger(one.by)}</td>
      <td>${one.action} ${stranger(one.on)}</td><td>${stranger(one.because)}</td><td>${stranger(one.result ?? '')}</td></tr>`)}</tbody>
  </table></div>`;
}
