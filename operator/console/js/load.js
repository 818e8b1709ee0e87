// What pages share: reading again and again, and actions with a reason.

import { html, nothing } from '../vendor/lit-html/lit-html.js';
import { ask } from './dialog.js';
import { problem } from './parts.js';

/**
 * Makes a page's `load`: it updates the page with the values of `read`, or with the error. Of several at a time
 * only the last one counts. With `every` (ms) it repeats while the tab is seen, until the page ends; while an
 * answer is awaited it does not ask again.
 * @param {Page} page
 * @param {(...given: any[]) => Promise<object | ((now: any) => object)>} read
 * @param {number} [every]
 */
export function loader(page, read, every) {
  let last = 0;
  let running = 0;
  const load = async (...given) => {
    const mine = ++last;
    running += 1;
    try {
      const values = await read(...given);
      if (mine === last) page.update((now) => ({ ...(typeof values === 'function' ? values(now) : values), error: null }));
    } catch (error) {
      if (!page.signal.aborted && mine === last) page.update({ error });
    } finally {
      running -= 1;
    }
  };
  page.actions.load = load;
  if (every) {
    const timer = setInterval(() => document.hidden || running > 0 || load(), every);
    page.signal.addEventListener('abort', () => clearInterval(timer));
  }
  return load;
}

/**
 * Asks for the reason of an action and takes it. `action` gets what the operator entered, and returns a message of
 * what was done. Then the page loads again.
 * @param {Page} page
 * @param {{ title: string, text: string, name?: string, fields?: unknown }} asks
 * @param {(entered: Record<string, any>) => Promise<unknown>} action
 */
export async function act(page, asks, action) {
  const entered = await ask(asks, page.context, page.signal);
  if (entered === null) return;
  try {
    page.update({ done: await action(entered), failed: null });
  } catch (error) {
    page.update({ failed: error, done: null });
  }
  page.actions.load?.();
}

/**
 * The name that all of them are, or undefined.
 * @param {string[]} names
 */
export function only(names) {
  return new Set(names).size === 1 ? names[0] : undefined;
}

/**
 * What a page failed to read, and what came of the last action.
 * @param {Common} now
 * @param {Page} page
 */
export function messages({ error, done, failed }, page) {
  return html`
    ${error ? problem(error, () => page.actions.load()) : nothing}
    ${done ? html`<p class="notice good" role="status">${done}</p>` : nothing}
    ${failed ? problem(failed) : nothing}`;
}
