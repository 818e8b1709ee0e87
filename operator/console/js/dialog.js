// Asks for the reason of an action.

import { html, nothing, render } from '../vendor/lit-html/lit-html.js';

/**
 * Returns what was entered: the reason, and the values of `fields` by their names; or null if the operator changed
 * their mind. In a production environment the destination's name must be typed.
 */
export function ask({ title, text, destination, fields }, { production }, signal) {
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
      if (production && destination && form.get('name') !== destination) {
        event.target.elements.name.setCustomValidity(`Type ${destination}.`);
        event.target.reportValidity();
        return;
      }
      close(Object.fromEntries(form));
    };
    const typed = (event) => event.target.setCustomValidity('');
    render(html`<form @submit=${submit}>
      <h2 id="ask">${title}</h2>
      <p>${text}</p>
      ${fields ?? nothing}
      <label>Reason, for the audit log<input name="because" required maxlength="250" autocomplete="off"></label>
      ${production && destination ? html`<label>This is production. Type the destination's name: ${destination}
        <input name="name" required autocomplete="off" @input=${typed}></label>` : nothing}
      <p class="actions"><button class="primary">${title}</button>
        <button type="button" @click=${() => close(null)}>Cancel</button></p>
    </form>`, dialog);
    dialog.setAttribute('aria-labelledby', 'ask');
    dialog.addEventListener('cancel', () => close(null));
    document.body.append(dialog);
    dialog.showModal();
  });
}
