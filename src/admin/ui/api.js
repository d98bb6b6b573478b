// The one way to the control plane. Every failure is an `ApiError` in the server's own words; a 401 anywhere ends the
// session here and shows the login. Writes are JSON or bodiless and same-origin: the server refuses any other page's.

import { serverTime } from './fmt.js';

/** What went wrong. `status` 0: nobody answered. `field`: which one is wrong. `retryAfter`: seconds. */
export class ApiError extends Error {
  constructor(status, code, message, field, retryAfter) {
    super(message);
    Object.assign(this, { status, code, field, retryAfter });
  }
}

const PATIENCE = 30_000;
let lost = () => {};

/** Who is told that the session is over. */
export function onLost(listener) {
  lost = listener;
}

/** Says that the session is over. */
export function sessionLost() {
  lost();
}

/** One request; its JSON, or `null` where there is no body. `options`: `body`, `signal`, `tag` (If-Match), `once`. */
export async function call(method, path, options = {}) {
  return (await send(method, path, options)).value;
}

/** The same with the answer's ETag, for a later `tag`. */
export async function send(method, path, { body, signal, tag, once } = {}) {
  const headers = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (tag) headers['if-match'] = tag;
  // A double click or a lost answer must not make two keys.
  if (once) headers['idempotency-key'] = once;
  const signals = [AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])];
  let response;
  let value = null;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.any(signals),
    });
    const text = await response.text();
    if (text && response.headers.get('content-type')?.includes('json')) value = JSON.parse(text);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'unreachable', 'The gateway does not answer. It may be restarting.');
  }
  serverTime(response.headers.get('date'));
  if (response.ok) return { value, tag: response.headers.get('etag') };
  const { code = 'unknown', message = `The gateway answered ${response.status}.`, field } = value?.error ?? {};
  const failed = new ApiError(response.status, code, sentence(message), field, Number(response.headers.get('retry-after')) || 0);
  if (failed.status === 401 && path !== '/api/login') lost();
  throw failed;
}

export const get = (path, signal) => call('GET', path, { signal });

/** `?a=1&b=2` of what is not empty. */
export function query(values) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== '' && value !== undefined && value !== null) pairs.set(name, value);
  const text = pairs.toString();
  return text ? `?${text}` : '';
}

/** A name for a request that must be done once. */
export const onceName = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');

function sentence(words) {
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
