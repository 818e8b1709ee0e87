// The frame: sign-in, navigation, and the page that the address names.

import { html, nothing, render } from '../vendor/lit-html/lit-html.js';
import { get, post } from './api.js';
import { dead } from './dead.js';
import { destinations } from './destinations.js';
import { event } from './event.js';
import { events } from './events.js';
import { nextTimes, times, visible } from './format.js';
import { job, jobs } from './jobs.js';
import { overview } from './overview.js';
import { loading, problem } from './parts.js';
import { reconcile } from './reconcile.js';
import { refused } from './refused.js';
import { signInByLink, signInWith, signOut, token } from './session.js';
import { shortcuts } from './shortcuts.js';
import { sources } from './sources.js';
import { stored } from './stored.js';
import { system } from './system.js';

/** @type {Record<string, View<any>>} */
const VIEWS = { '': overview, events, dead, jobs, sources, destinations, refused, stored, reconcile, system };
/** Pages of one thing: `#/events/ID`. */
/** @type {Record<string, View<any>>} */
const DETAILS = { events: event, jobs: job };
const app = document.getElementById('app');

/** Where `zentra console open` looks by itself. */
const USUAL = 'http://127.0.0.1:9470';
/** The environment in which an action asks for a name. */
const PRODUCTION = 'production';
/** Time limit of a sign-out, in ms. */
const SIGN_OUT = 5000;

/** @type {Context | null} */
let context = null;
let page = null;
let notice = null;

/** One visit of a view: it ends with the next address. */
class Page {
  #now;
  #ending = new AbortController();
  #drawing = false;

  /**
   * @param {View<any>} view
   * @param {{ id?: string, query: string }} at
   */
  constructor(view, { id, query }) {
    this.view = view;
    this.id = id;
    this.query = query;
    this.context = context;
    this.actions = {};
    this.#now = { ...view.initial };
  }

  get signal() {
    return this.#ending.signal;
  }

  state() {
    return this.#now;
  }

  /** Takes values, or a function of the present ones, and draws once for all changes of a moment. */
  update(change) {
    if (this.signal.aborted) return;
    const values = typeof change === 'function' ? change(this.#now) : change;
    this.#now = { ...this.#now, ...values };
    if (values.error?.status === 401) {
      leave('The session has ended.');
      return;
    }
    if (!this.#drawing) {
      this.#drawing = true;
      requestAnimationFrame(() => {
        this.#drawing = false;
        draw();
      });
    }
  }

  end() {
    this.#ending.abort();
  }
}

/**
 * The view, the id and the query of an address: `#/events/ID?state=dead`.
 * @returns {[View<any> | undefined, { id?: string, query: string }]}
 */
function address() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const [name, id] = path.split('/', 2);
  if (!id) return [VIEWS[name], { query }];
  try {
    return [DETAILS[name], { id: decodeURIComponent(id), query }];
  } catch {
    return [undefined, { query }];
  }
}

function go() {
  page?.end();
  const [view, at] = address();
  page = view ? new Page(view, at) : null;
  document.title = `${view?.title ?? 'Not found'} · Zentra`;
  view?.start(page);
  draw();
  scrollTo(0, 0);
  // Whoever uses a keyboard or listens goes on at the top of the new page.
  document.getElementById('main')?.focus({ preventScroll: true });
  // On a phone the pages are one line that scrolls.
  document.querySelector('nav [aria-current]')?.scrollIntoView({ inline: 'center', block: 'nearest' });
}

function leave(why) {
  page?.end();
  page = null;
  context = null;
  notice = why;
  signOut();
  draw();
}

/** Signs out. The server revokes the token, if a link made it. */
async function end() {
  try {
    const limit = new AbortController();
    setTimeout(() => limit.abort(), SIGN_OUT);
    await post('v1/me/sign-out', {}, limit.signal);
    leave(null);
  } catch (error) {
    leave(error.status === 401 ? null : 'The token could not be revoked. It is valid until it expires: zentra token revoke ends it.');
  }
}

function draw() {
  render(token() ? frame() : signIn(), app);
}

function signIn() {
  const submit = async (submitted) => {
    submitted.preventDefault();
    if (signInWith(new FormData(submitted.target).get('token'))) await begin();
    else leave('This is no token.');
  };
  return html`<main id="main" class="sign-in" tabindex="-1">
    <h1>Zentra</h1>
    ${notice ? html`<p class="notice warn" role="alert">${notice}</p>` : nothing}
    <p>Open a link from this command. It signs in once:</p>
    <pre>zentra console open${location.origin === USUAL ? '' : ` --at ${location.origin}`}</pre>
    <form @submit=${submit}>
      <label>Or use a token<input name="token" type="password" required autocomplete="off"></label>
      <button class="primary">Sign in</button>
    </form></main>`;
}

/** The environments of the sources, production first. The colour is never the only sign. */
function environments() {
  const names = new Set(context?.config.sources.map((one) => one.environment).filter(Boolean));
  const rank = (name) => (name === PRODUCTION ? 0 : 1);
  return [...names].sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
}

/** A colour for each environment: production's own, one for those before it, one for all others. */
function tone(environment) {
  if (environment === PRODUCTION) return 'bad';
  return /^(stag|pre-?prod|uat|qa)/i.test(environment) ? 'warn' : 'info';
}

function frame() {
  const view = page?.view;
  const found = environments();
  const link = (href, name, of) => html`<a href=${href} aria-current=${of.includes(view) ? 'page' : nothing}>${name}</a>`;
  const clock = () => { nextTimes(); draw(); };
  return html`
    <header class="top ${found.length > 0 ? `environment-${tone(found[0])}` : ''}">
      <a class="brand" href="#/">Zentra</a>
      <nav aria-label="Main">${link('#/', 'Overview', [overview])}${link('#/events', 'Events', [events, event])}
        ${link('#/dead', 'Dead letters', [dead])}${link('#/jobs', 'Jobs', [jobs, job])}
        ${link('#/sources', 'Sources', [sources])} ${link('#/destinations', 'Destinations', [destinations])}${link('#/refused', 'Refused', [refused])}
        ${link('#/stored', 'Archive', [stored])}
        ${context?.acts ? link('#/reconcile', 'Reconcile', [reconcile]) : nothing}
        ${link('#/system', 'System', [system])}</nav>
      <div class="who">
        ${found.map((name) => html`<strong class="environment state ${tone(name)}">${visible(name)}</strong>`)}
        <button @click=${clock} title="How times are shown">${times()}</button>
        ${context ? html`<span class="name" title=${context.me.name}>${context.me.name.split('-console-')[0]} <span class="quiet">${context.me.role}</span></span>` : nothing}
        <button @click=${() => shortcuts.help()} aria-label="Shortcuts" title="Shortcuts">?</button>
        <button @click=${end}>Sign out</button>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${!context ? (notice ? problem(new Error(notice), begin) : loading()) : html`
      <h1>${view?.title ?? 'Not found'}</h1>
      ${view ? view.render(page.state(), page) : html`<p>No page has this address. <a href="#/">Overview</a></p>`}`}
    </main>`;
}

/** Reads who this is, and shows the page. */
async function begin() {
  notice = null;
  draw();
  if (!token()) return;
  try {
    const [me, config] = await Promise.all([get('v1/me'), get('v1/config')]);
    const acts = ['operator', 'admin'].includes(me.role);
    context = { me, config, acts, production: config.production };
    go();
  } catch (error) {
    if ([401, 403].includes(error.status)) leave('This token is not valid here, or has expired.');
    else {
      notice = error.message;
      draw();
    }
  }
}

addEventListener('hashchange', async () => {
  if (location.hash.startsWith('#code=')) await start();
  else if (context) go();
});
// Relative times go on.
setInterval(() => context && times() === 'relative' && !document.hidden && draw(), 5000);

shortcuts.listen(() => context !== null);

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  document.getElementById('main')?.focus();
});

async function start() {
  page?.end();
  page = null;
  context = null;
  const failed = await signInByLink();
  if (failed) leave(failed);
  else await begin();
}

await start();
