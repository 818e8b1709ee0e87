// Keyboard shortcuts. They can be switched off: https://www.w3.org/WAI/WCAG22/Understanding/character-key-shortcuts

import { html, render } from '../vendor/lit-html/lit-html.js';

const OFF = 'zentra.shortcuts.off';
/** Time between `g` and the letter of a page. */
const SOON = 1500;

const PAGES = {
  o: ['Overview', '#/'], e: ['Events', '#/events'], d: ['Dead letters', '#/dead'], j: ['Jobs', '#/jobs'],
  c: ['Sources', '#/sources'], n: ['Destinations', '#/destinations'], r: ['Refused', '#/refused'], a: ['Archive', '#/stored'], s: ['System', '#/system'],
};

let began = 0;

function isTyping({ target }) {
  return target.matches('input, select, textarea, [contenteditable]') || document.querySelector('dialog[open]');
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
  if (localStorage.getItem(OFF) && event.key !== '?') return;
  const isSecond = Date.now() - began < SOON;
  began = 0;
  if (isSecond && PAGES[event.key]) {
    location.hash = PAGES[event.key][1];
  } else if (event.key === 'g') {
    began = Date.now();
  } else if (event.key === '/') {
    /** @type {HTMLInputElement | null} */ (document.querySelector('main input'))?.focus();
  } else if (event.key === '?') {
    shortcuts.help();
  } else {
    return;
  }
  event.preventDefault();
}

export const shortcuts = {
  /** From now on, while `active()`. */
  listen(active) {
    addEventListener('keydown', (event) => active() && press(event));
  },

  help() {
    const dialog = document.createElement('dialog');
    const close = () => { dialog.close(); dialog.remove(); };
    const change = ({ target }) => (target.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, '1'));
    const key = (keys, what) => html`<div><dt><kbd>${keys}</kbd></dt><dd>${what}</dd></div>`;
    render(html`<h2 id="shortcuts">Shortcuts</h2>
      <dl>${key('?', 'this list')}${key('/', 'the filter')}
        ${Object.entries(PAGES).map(([letter, [name]]) => key(`g ${letter}`, name))}${key('Esc', 'close a dialog')}</dl>
      <label class="check"><input type="checkbox" ?checked=${!localStorage.getItem(OFF)} @change=${change}> Shortcuts are on</label>
      <p class="actions"><button class="primary" @click=${close}>Close</button></p>`, dialog);
    dialog.setAttribute('aria-labelledby', 'shortcuts');
    dialog.addEventListener('cancel', close);
    document.body.append(dialog);
    dialog.showModal();
  },
};
