// Jobs: the plan, the canary, the progress.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { duration, number, words } from './format.js';
import { act, loader, messages, only } from './load.js';
import { empty, loading, problem, stranger, when } from './parts.js';

const EVERY = 2000;

const STAGES = {
  planned: ['info', 'nothing was changed'],
  canary: ['warn', 'the canary letters are requeued and watched'],
  running: ['warn', 'the canary succeeded; the rest follows'],
  paused: ['info', 'it can continue'],
  stopped: ['bad', 'too many deliveries failed; it can continue'],
  cancelled: ['info', 'what it has requeued stays requeued'],
  done: ['good', 'finished'],
};

/** @param {Api.Job} job */
function stage({ stage: name, why }) {
  const [tone, text] = STAGES[name] ?? ['info', ''];
  return html`<span class="state ${tone}">${words(name)}</span> <span class="quiet">${why || text}</span>`;
}

/**
 * Asks how a job is to run, plans it, and goes to its page.
 * @param {Page} page
 * @param {{ title: string, text: string, name?: string }} asks
 * @param {Partial<Api.NewJob>} selects
 */
export function plan(page, asks, selects) {
  const field = (name, label, value, most) => html`<label>${label}<input name=${name} type="number" required min="0"
    max=${most} value=${value}></label>`;
  const fields = html`<details><summary>Canary, rate and limit</summary>
    ${field('canary', 'Letters that go first (0: no canary)', 10, 100)}
    ${field('rate', 'Letters per second (0: no limit)', 100, 1_000_000)}
    ${field('max_failures', 'Stop at more than this percentage of failures', 10, 100)}</details>`;
  return act(page, { fields, ...asks }, async ({ because, canary, rate, max_failures: failures }) => {
    const pace = { canary: Number(canary), rate: Number(rate), max_failures: Number(failures) };
    // A plan reads all dead letters: of a million that takes a minute and a half.
    page.update({ done: 'The job is being planned…', failed: null });
    const { id } = await post('v1/jobs', { ...selects, ...pace, because });
    // Who has gone on stays where they are: the job is in the list.
    if (!page.signal.aborted) location.hash = `#/jobs/${id}`;
    return null;
  });
}

/** @type {View<{ items: Api.Job[] | null }>} */
export const jobs = {
  title: 'Jobs',

  start(page) {
    loader(page, async () => {
      const { items } = await get('v1/jobs', page.signal);
      return { items };
    }, EVERY * 2)();
  },

  initial: { items: null, error: null },

  render({ items, error }, page) {
    if (!items) return error ? problem(error, page.actions.load) : loading();
    if (items.length === 0) return empty('There is no job.', 'Requeue a group of dead letters: that plans one.');
    return html`${error ? problem(error, page.actions.load) : nothing}
      <div class="scroll" tabindex="0"><table>
      <thead><tr><th scope="col">Job</th><th scope="col">Stage</th><th scope="col">Letters</th>
        <th scope="col" class="number">Requeued</th><th scope="col">Planned</th></tr></thead>
      <tbody>${items.map((job) => html`<tr><td><a href="#/jobs/${job.id}">${job.id}</a></td><td>${stage(job)}</td>
        <td>${stranger(job.asked)}, at ${job.destinations.join(', ')}</td>
        <td class="number">${number(job.progress.requeued)} of ${number(job.plan.letters)}</td>
        <td>${when(job.made.at)} by ${stranger(job.made.by)}</td></tr>`)}</tbody></table></div>`;
  },
};

/** @type {View<{ found: Api.Job | null }>} */
export const job = {
  title: 'Job',

  start(page) {
    const path = `v1/jobs/${encodeURIComponent(page.id)}`;
    const load = loader(page, async () => ({ found: await get(path, page.signal) }), EVERY);
    page.actions.act = (action, body, title, text) => {
      return act(page, { title, text, name: only(page.state().found.destinations) }, async ({ because }) => {
        await post(`${path}/${action}`, { because, ...body });
        return null;
      });
    };
    load();
  },

  initial: { found: null, error: null, failed: null },

  render(now, page) {
    const { found, error } = now;
    if (!found) return error ? problem(error, page.actions.load) : loading();
    const { plan, pace, progress, destinations, made } = found;
    const part = plan.letters > 0 ? Math.min(1, (progress.requeued + progress.leftover) / plan.letters) : 1;
    const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
    return html`
      ${messages(now, page)}
      <article class="card" aria-label="Job ${found.id}">
        <header class="head"><div><h2>${found.id}</h2>
          <p>${stranger(found.asked)}, at ${destinations.join(', ')}</p></div><p>${stage(found)}</p></header>
        <progress max="1" .value=${part} aria-label="Requeued"></progress>
        ${page.context.acts ? actions(found, page) : nothing}
        <h3>Plan</h3>
        <dl>
          ${fact('Letters', number(plan.letters))}
          ${fact('Oldest', when(plan.oldest))}
          ${fact('Canary', pace.canary === 0 ? 'none' : `the first ${number(pace.canary)}`)}
          ${fact('Rate', pace.rate === 0 ? 'no limit' : `${number(pace.rate)} per second`)}
          ${fact('Time', plan.seconds === null ? '—' : duration(plan.seconds * 1000))}
          ${fact('Stops at', `more than ${number(pace.max_failures)} % failures`)}
        </dl>
        <ul>${Object.entries(plan.by).map(([of, count]) => html`<li>${number(count)} ${stranger(of)}</li>`)}</ul>
        <h3>Progress</h3>
        <dl>
          ${fact('Requeued', number(progress.requeued))}
          ${fact('Delivered', number(progress.delivered))}
          ${fact('Failed again', number(progress.failed))}
          ${fact('Left: dead again', number(progress.again))}
          ${fact('Left: to be released', number(progress.unsuited))}
          ${fact('Left: in flight', number(progress.busy))}
          ${fact('Handled before', number(progress.leftover))}
        </dl>
        ${found.runs > 0 ? html`<p><a href=${touched(found)}>The deliveries that it has ${found.from === 'archive'
          ? 'replayed' : 'requeued'}</a></p>` : nothing}
        <p class="quiet">Planned ${when(made.at)} by ${stranger(made.by)}${made.because
          ? html`, because ${stranger(made.because)}` : nothing}. Runs: ${number(found.runs)}.</p>
      </article>`;
  },
};

/**
 * The list of what a job has touched. A worker took up none of them before the oldest was received.
 * @param {Api.Job} job
 */
function touched({ id, destinations, plan }) {
  const filter = new URLSearchParams({ job: id });
  if (destinations.length === 1) filter.set('destination', destinations[0]);
  if (plan.oldest) filter.set('since', plan.oldest);
  return `#/events?${filter}`;
}

/**
 * @param {Api.Job} job
 * @param {Page} page
 */
function actions({ stage: name, pace }, page) {
  const run = (title, body, text) => html`<button @click=${() => page.actions.act('run', body, title, text)}>${title}…</button>`;
  const rests = ['planned', 'paused', 'stopped'].includes(name);
  const runs = ['canary', 'running'].includes(name);
  const halt = (action, title, text) =>
    html`<button @click=${() => page.actions.act(action, {}, title, text)}>${title}…</button>`;
  return html`<p class="actions">
    ${rests ? run(name === 'planned' ? 'Run' : 'Continue', {},
      pace.canary > 0 ? `The canary of ${pace.canary} goes first, then the rest.` : 'All letters are requeued.') : nothing}
    ${name === 'planned' && pace.canary > 0 ? run('Run the canary', { only_canary: true }, 'It pauses after the canary.') : nothing}
    ${runs ? halt('pause', 'Pause', 'It pauses within a second, and can continue.') : nothing}
    ${rests || runs ? halt('cancel', 'Cancel', 'Letters that it has requeued stay requeued.') : nothing}</p>`;
}
