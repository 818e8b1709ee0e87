// Pieces of pages that several views have.

import { html, nothing, svg } from '../vendor/lit-html/lit-html.js';
import { number, time, visible, words } from './format.js';

const TONES = {
  delivered: 'good', dead: 'bad', waiting: 'warn', in_flight: 'info',
  closed: 'good', open: 'bad', half_open: 'warn',
};

/** A state as a word with a mark: the colour is never the only sign. */
export function state(name, detail) {
  const marks = { good: '✓', bad: '✕', warn: '◔', info: '…' };
  const tone = TONES[name] ?? 'info';
  const text = detail ? `${words(name)}: ${words(detail)}` : words(name);
  return html`<span class="state ${tone}"><span aria-hidden="true">${marks[tone]}</span> ${text}</span>`;
}

export function when(text) {
  return html`<time datetime=${text ?? nothing} title=${text ?? nothing}>${time(text)}</time>`;
}

/** Strangers' text. */
export function stranger(text) {
  return html`<bdi>${visible(text)}</bdi>`;
}

export function eventLink(key, text) {
  return html`<a href="#/events/${encodeURIComponent(key)}"><bdi>${visible(text ?? key)}</bdi></a>`;
}

export function problem(error, again) {
  return html`<div class="notice bad" role="alert">
    <p>${error.message}</p>
    ${again ? html`<button @click=${again}>Try again</button>` : nothing}
  </div>`;
}

export function loading() {
  return html`<p class="quiet" role="status">Loading…</p>`;
}

export function empty(title, next) {
  return html`<div class="empty"><p>${title}</p><p class="quiet">${next}</p></div>`;
}

/** The last hour as a line of bars. */
export function sparkline(line, label) {
  const bars = 60;
  const per = Math.ceil(line.taken.length / bars);
  const sums = (values) => Array.from({ length: bars }, (_, at) =>
    values.slice(at * per, (at + 1) * per).reduce((sum, value) => sum + value, 0));
  const [good, bad] = [sums(line.delivered), sums(line.failed)];
  const most = Math.max(1, ...good.map((value, at) => value + bad[at]));
  const total = line.delivered.reduce((sum, value) => sum + value, 0);
  const failed = line.failed.reduce((sum, value) => sum + value, 0);
  const text = `${label}, last hour: ${number(total)} delivered, ${number(failed)} failed attempts`;
  const bar = (value, at, below, tone) => value === 0 ? nothing : svg`<rect class=${tone}
    x=${at * 4} width="3" y=${32 - ((value + below) / most) * 30} height=${(value / most) * 30}></rect>`;
  return html`<svg class="spark" viewBox="0 0 240 32" preserveAspectRatio="none" role="img" aria-label=${text}>
    <title>${text}</title>
    <line x1="0" y1="31.5" x2="240" y2="31.5"></line>
    ${good.map((value, at) => bar(value, at, 0, 'good'))}
    ${bad.map((value, at) => bar(value, at, good[at], 'bad'))}
  </svg>`;
}
