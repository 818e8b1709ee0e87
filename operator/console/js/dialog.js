// Asks for the reason of an action.

import { html, nothing, render } from '../vendor/lit-html/lit-html.js';

/**
 * Returns what was entered: the reason, and the values of `fields` by their names; or null if the operator changed
 * their mind. In a production environment the name of the destination or source must be typed; of an action on
 * several, the namespace.
 * @param {{ title: string, text: string, name?: string, fields?: unknown }} asks
 * @param {Context} context
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, any> | null>}
 */
export function ask({ title, text, name, fields }, { production, config }, signal) {
  const typed = name ?? config.namespace;
  return new Promise((resolve) => {
    const dialog = document.createElement('dialog');
    const close = (entered) => {
      signal.removeEventListener('abort', cancel);
      // Gives the focus back.
      dialog.close();
      dialog.remove();
      resolve(entered);
    };
    // It belongs to its page.
    const cancel = () => close(null);
    signal.addEventListener('abort', cancel);
    const submit = (event) => {
      event.preventDefault();
      const form = new FormData(event.target);
      if (production && form.get('name') !== typed) {
        event.target.elements.name.setCustomValidity(`Type ${typed}.`);
        event.target.reportValidity();
        return;
      }
      close(Object.fromEntries(form));
    };
    const again = (event) => event.target.setCustomValidity('');
    render(html`<form @submit=${submit}>
      <h2 id="ask">${title}</h2>
      <p>${text}</p>
      ${fields ?? nothing}
      <label>Reason, for the audit log<input name="because" required maxlength="250" autocomplete="off"></label>
      ${production ? html`<label>This is production. Type ${name ? 'the name' : 'the namespace'}: ${typed}
        <input name="name" required autocomplete="off" @input=${again}></label>` : nothing}
      <p class="actions"><button class="primary">${title}</button>
        <button type="button" @click=${() => close(null)}>Cancel</button></p>
    </form>`, dialog);
    dialog.setAttribute('aria-labelledby', 'ask');
    dialog.addEventListener('cancel', () => close(null));
    document.body.append(dialog);
    dialog.showModal();
  });
}
