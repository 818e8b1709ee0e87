// Sources: what to enter at the provider, what came, which secret verifies, and a signed test callback.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { duration, number, words } from './format.js';
import { act, loader, messages } from './load.js';
import { eventLink, findings, loading, problem, stranger, when } from './parts.js';

const EVERY = 10_000;

/** @type {View<{ status: Api.Status | null }>} */
export const sources = {
  title: 'Sources',

  start(page) {
    const load = loader(page, async () => ({ status: await get('v1/status', page.signal) }), EVERY);
    page.actions.test = ({ name, samples }) => act(page, {
      title: `Send a test callback: ${name}`,
      name,
      text: 'A sample event is signed with the source\'s secret and sent to the ingress. It is delivered like any other event.',
      fields: html`<label>Event type<select name="type">${samples.map((type) => html`<option>${type}</option>`)}</select></label>`,
    }, async ({ because, type }) => {
      const sent = await post(`v1/sources/${encodeURIComponent(name)}/test`, { type, because });
      if (!sent.answer.startsWith('2')) throw new Error(`${sent.url} did not accept it: ${sent.answer}.`);
      return html`The ingress accepted it: ${sent.event_id ? eventLink(sent.event_id) : sent.answer}`;
    });
    load();
  },

  initial: { status: null, error: null, done: null, failed: null },

  render(now, page) {
    const { status, error } = now;
    if (!status) return error ? problem(error, page.actions.load) : loading();
    return html`${messages(now, page)}
      ${page.context.config.sources.map((one) =>
        card(one, status.sources.find(({ source }) => source === one.name), page))}`;
  },
};

/** A link, if it is an address of the web: it can be any text. */
function documentation(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return stranger(text);
  }
  return ['https:', 'http:'].includes(url.protocol) ? html`<a href=${url.href} rel="noreferrer">${url.host}</a>` : stranger(text);
}

/**
 * @param {Api.SourceSettings} one
 * @param {Api.SourceStatus | undefined} seen
 * @param {Page} page
 */
function card(one, seen, page) {
  const { acts, me } = page.context;
  const isTestable = acts && one.samples.length > 0 && one.environment !== 'production';
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const refused = Object.values(seen?.refused ?? {}).reduce((sum, count) => sum + count, 0);
  return html`<article class="card" aria-label="Source ${one.name}">
    <header class="head"><h2><a href="#/events?source=${encodeURIComponent(one.name)}">${one.name}</a></h2>
      <p>${one.provider} ${one.environment ? html`<span class="quiet">${one.environment}</span>` : nothing}</p></header>
    ${seen ? findings(seen.findings, one.name) : nothing}
    ${isTestable && me.admits ? html`<p class="actions"><button @click=${() => page.actions.test(one)}>Test…</button></p>` : nothing}
    ${isTestable && !me.admits ? html`<p class="quiet">Test callbacks need the sources' secrets: zentra serve --admit.</p>` : nothing}
    <dl class="wide">
      ${fact('Enter at the provider', html`<code>${one.public_url ?? `https://your-host${one.path}`}</code>`)}
      ${fact('Last accepted', when(seen?.last_accepted))}
      ${fact('Delay', seen?.delay_ms ? duration(seen.delay_ms[0]) : '—')}
      ${fact('Copies', number(seen?.copies.count))}
      ${fact('Refused, last hour', html`<a href="#/refused?source=${encodeURIComponent(one.name)}">${number(refused)}</a>`)}
      ${fact('Verified with', seen?.keys_in_use.length > 0 ? stranger(seen.keys_in_use.join(', ')) : '—')}
      ${fact('Scheme', one.proven ? 'proven by the vendor\'s SDK' : 'by the provider\'s documentation')}
      ${one.weakness ? fact('Weakness', words(one.weakness)) : nothing}
      ${one.at_least_once ? fact('Delivery', 'at least once: the provider sends the same bytes for different events') : nothing}
      ${fact('Archive', one.archive ? 'yes' : 'no: it cannot be replayed')}
      ${fact('Remembered for', duration(one.retention_seconds * 1000))}
      ${one.documentation ? fact('Documentation', documentation(one.documentation)) : nothing}
    </dl></article>`;
}
