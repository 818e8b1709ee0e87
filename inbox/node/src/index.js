/**
 * Receives signed webhooks and writes each event once: the event's key is stored in the transaction of its effect.
 */
export { Inbox, Permanent } from './inbox.js';
export { Refused, Verifier } from './verify.js';
export { mysql, postgres, sqlite } from './stores.js';
