// Bits of a request that several pages show alike.

import { h } from '../dom.js';

/** A status, by its class. */
export function statusBadge(status) {
  const kind = status < 400 ? 'ok' : status === 429 || status === 402 || status === 499 ? 'warn' : 'bad';
  return h('span', { class: `badge ${kind}` }, String(status));
}

/** Where the answer came from, unless from the provider. */
export const cacheBadge = (cache) => (cache && cache !== 'miss' ? h('span', { class: 'badge', title: 'Answered without asking a provider' }, cache) : null);

/** Why somebody rests, in words. */
export const REASONS = {
  rate_limited: 'rate limited by the provider',
  forbidden: 'the provider forbids this model',
  model_missing: 'the provider does not know this model',
  quota: 'quota used up',
  failing: 'too many failures: breaker open',
  credentials: 'credential refused',
  cleared: 'cleared',
};
