// Times, numbers and strangers' text, for people.

const TIMES = 'zentra.times';
const KINDS = ['relative', 'local', 'utc'];

export function times() {
  const kept = localStorage.getItem(TIMES);
  return KINDS.includes(kept) ? kept : 'relative';
}

/** Changes to the next way of showing times. */
export function nextTimes() {
  localStorage.setItem(TIMES, KINDS[(KINDS.indexOf(times()) + 1) % KINDS.length]);
}

const local = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: '2-digit', day: '2-digit',
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23',
});

/** @param {string | null | undefined} text */
export function time(text, now = Date.now()) {
  if (!text) return '—';
  const at = new Date(text);
  switch (times()) {
    case 'utc': return text.replace('T', ' ').replace('Z', ' UTC');
    case 'local': return local.format(at);
    default: return relative(at.getTime() - now);
  }
}

function relative(milliseconds) {
  const ago = milliseconds <= 0;
  const text = duration(Math.abs(milliseconds));
  if (text === '0 ms' || (ago && -milliseconds < 1000)) return 'now';
  return ago ? `${text} ago` : `in ${text}`;
}

/** @type {[string, number][]} */
const UNITS = [['d', 86_400_000], ['h', 3_600_000], ['min', 60_000], ['s', 1000]];

/** Two units at most: `2 h 5 min`. */
export function duration(milliseconds) {
  const at = UNITS.findIndex(([, unit]) => milliseconds >= unit);
  if (at < 0) return `${Math.round(milliseconds)} ms`;
  const [name, unit] = UNITS[at];
  const whole = Math.floor(milliseconds / unit);
  if (name === 's') return `${milliseconds < 10_000 ? (milliseconds / 1000).toFixed(1) : whole} s`;
  const [less, lessUnit] = UNITS[at + 1];
  const rest = Math.floor((milliseconds - whole * unit) / lessUnit);
  return rest > 0 && whole < 10 ? `${whole} ${name} ${rest} ${less}` : `${whole} ${name}`;
}

const grouped = new Intl.NumberFormat('en');

export function number(value) {
  return value === null || value === undefined ? '—' : grouped.format(value);
}

// Control characters, and characters that change the direction of text.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e01ef}]/gu;

/** Strangers' text with its invisible characters shown as `␀` or `\u202e`. */
export function visible(text) {
  return String(text ?? '').replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return '\u2421';
    return `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** `nothing_seen` as `nothing seen`. */
export function words(name) {
  return String(name ?? '').replaceAll('_', ' ');
}
