// Numbers, moments and durations as an operator reads them. Times are the server's: a browser's clock may be wrong.

let skew = 0;

/** Called with each answer's `Date`: how far the browser's clock is off, in milliseconds. */
export function serverTime(date) {
  const at = Date.parse(date ?? '');
  // The header is cut to seconds: smaller differences mean nothing.
  if (Number.isFinite(at)) skew = Math.abs(at - Date.now()) < 1500 ? 0 : at + 500 - Date.now();
}

/** Now, by the server's clock. */
export const now = () => Date.now() + skew;

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

/** 1,234 */
export const count = (n) => (n === null || n === undefined ? '–' : whole.format(n));

/** 12.3K */
export const short = (n) => {
  if (n === null || n === undefined) return '–';
  return Math.abs(n) < 10 && n % 1 ? n.toFixed(1) : compact.format(n);
};

/** A rate: three digits that mean something. */
export const rate = (n) => (n >= 1000 ? compact.format(n) : n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(n ? 2 : 0));

/** $0.0042, $12.30, $1.2K */
export function dollars(n) {
  if (n === null || n === undefined) return '–';
  const size = Math.abs(n);
  if (size === 0) return '$0';
  if (size < 0.0001) return '<$0.0001';
  if (size < 0.01) return `$${n.toFixed(4)}`;
  if (size < 1) return `$${n.toFixed(3)}`;
  if (size < 10_000) return `$${n.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return `$${compact.format(n)}`;
}

/** Numbers beside an axis: no more digits than they need. */
export const tick = {
  number: (n) => (n >= 1000 ? compact.format(n) : String(Number(n.toPrecision(3)))),
  dollars: (n) => (n >= 1000 ? `$${compact.format(n)}` : `$${Number(n.toPrecision(2))}`),
  ms: (n) => (n === 0 ? '0' : n >= 1000 ? `${Number((n / 1000).toPrecision(3))} s` : n < 1 ? `${Math.round(n * 1000)} µs` : `${Number(n.toPrecision(3))} ms`),
};

/** Milliseconds: 840 µs, 12 ms, 1.24 s, 2 m 5 s */
export function ms(n) {
  if (n === null || n === undefined) return '–';
  if (n === 0) return '<1 ms';
  if (n > 0 && n < 1) return `${Math.round(n * 1000)} µs`;
  if (n < 10) return `${n.toFixed(1)} ms`;
  if (n < 1000) return `${Math.round(n)} ms`;
  if (n < 60_000) return `${(n / 1000).toFixed(n < 10_000 ? 2 : 1)} s`;
  return span(n);
}

/** A long time in its two largest units: 2 m 5 s, 3 h 20 m, 4 d 2 h */
export function span(n) {
  let rest = Math.max(0, Math.round(n / 1000));
  const parts = [];
  for (const [unit, size] of [['d', 86_400], ['h', 3600], ['m', 60], ['s', 1]]) {
    const many = Math.floor(rest / size);
    rest -= many * size;
    if (many || (unit === 's' && !parts.length)) parts.push(`${many} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

/** Whether a request with that status failed; who hung up (499) was not failed. */
export const failing = (status) => status >= 400 && status !== 499;

/** 99.2 % */
export function percent(part, all) {
  if (!all) return '–';
  if (!part) return '0 %';
  if (part / all < 0.0005) return '<0.1 %';
  const share = (100 * part) / all;
  return share === 100 ? '100 %' : `${share > 99.9 && share < 100 ? '99.9' : share.toFixed(share < 10 || share > 99 ? 1 : 0)} %`;
}

/** 14:03:22 */
export const clock = (at) => new Date(at).toLocaleTimeString('en-GB');

/** 14:03 */
export const minute = (at) => clock(at).slice(0, 5);

/** 5 Mar 2026, 14:03 */
export function moment(at) {
  if (!at) return '–';
  const date = new Date(at);
  const day = date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });
  return `${day}, ${minute(date)}`;
}

/** 3 m ago, in 2 h */
export function ago(at) {
  if (!at) return '–';
  const past = now() - new Date(at).getTime();
  if (Math.abs(past) < 5000) return 'just now';
  return past > 0 ? `${span(past).split(' ').slice(0, 2).join(' ')} ago` : `in ${span(-past)}`;
}

/** 5 Mar */
export const day = (iso) => new Date(`${iso}T12:00:00Z`).toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });

/** The middle cut out of an id that is too long to be read. */
export const brief = (id) => (id && id.length > 18 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id ?? '–');

/** All tokens of a request or a sum. */
export const tokens = (t) => (t ? t.prompt + t.completion : 0);
