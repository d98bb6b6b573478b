// Bits of a request that several pages show alike.

import { h } from '../dom.js';

/** A status, by its class. */
export function statusBadge(status) {
  const kind = status < 400 ? 'ok' : status === 429 || status === 402 || status === 499 ? 'warn' : 'bad';
  return h('span', { class: `badge ${kind}` }, String(status));
}

/** Where the answer came from, unless from the provider. */
export const cacheBadge = (cache) => (cache && cache !== 'miss' ? h('span', { class: 'badge', title: 'Answered without asking a provider' }, cache) : null);

/** What the codes of failed requests mean. */
export const ERRORS = {
  invalid_request: 'The request could not be understood.',
  invalid_api_key: 'The key is missing, unknown, revoked or expired.',
  budget_exceeded: 'The key has spent its budget.',
  model_not_allowed: 'The key may not use this model.',
  model_not_found: 'No account offers this model, and no virtual model has this name.',
  request_timeout: 'The client was too slow in sending its request.',
  request_too_large: 'The body is larger than is accepted.',
  rate_limit_exceeded: 'A limit was reached: the key’s own, or those of every account that could have served.',
  upstream_failed: 'The provider failed, and nobody else could serve.',
  upstream_timeout: 'The provider did not answer in time.',
  unavailable: 'Nobody could serve: all accounts for this model rest.',
  overloaded: 'This instance had more requests than it takes.',
  client_gone: 'The client hung up before the answer was complete.',
  embedding_timeout: 'The embedding took longer than a request may wait for it.',
};

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
