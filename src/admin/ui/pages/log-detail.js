// One request: what was asked and answered, what it cost, and where its time went, attempt by attempt.

import { get } from '../api.js';
import { copyable, dialog } from '../dialog.js';
import { h, put } from '../dom.js';
import { count, dollars, failing, moment, ms } from '../fmt.js';
import { icon } from '../icons.js';
import { badge, broken } from '../page.js';
import { cacheBadge, ERRORS, statusBadge } from './row.js';

/** Opens it beside the page. */
export function logDetail({ id, signal, closed }) {
  const place = h('div', { 'aria-live': 'polite' }, h('p', { class: 'faint' }, 'Loading…'));
  dialog({ title: 'Request', kind: 'drawer', body: place, closed });
  async function fetchIt(patience) {
    try {
      const row = await get(`/api/logs/${encodeURIComponent(id)}`, signal);
      put(place, render(row));
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      // One that has only just ended is written within a second.
      if (error.status === 404 && patience > 0) return setTimeout(() => fetchIt(patience - 1), 500);
      if (error.status === 404) error.message = 'There is no row of this request: it was left out by sampling, or is older than rows are kept.';
      put(place, broken(error, () => fetchIt(0)));
    }
  }
  fetchIt(4);
}

function render(row) {
  const t = row.tokens;
  const served = row.provider ? `${row.provider}/${row.model ?? row.requested_model}` : null;
  return [
    h('p', { class: 'chips' }, statusBadge(row.status), cacheBadge(row.cache), row.stream && badge('stream'), row.estimated && badge('tokens estimated', '', 'The provider reported none'), row.sampled > 1 && badge(`stands for ${row.sampled}`)),
    row.error && h('div', { class: `callout ${failing(row.status) ? 'bad' : ''}` }, icon('warn'), h('div', {}, h('code', {}, row.error), ERRORS[row.error] && h('p', {}, ERRORS[row.error]))),
    timeline(row),
    h('dl', { class: 'pairs' },
      pair('Asked for', h('code', {}, row.requested_model)),
      pair('Served by', served ? h('span', {}, h('code', {}, served), row.account && ` @${row.account}`) : 'nobody'),
      pair('Key', row.key_name ? h('a', { href: `#/logs?key_id=${row.key_id}` }, row.key_name) : 'anonymous'),
      pair('Endpoint', `${row.endpoint} (${row.dialect})`),
      pair('Began', `${moment(row.time)}:${row.time.slice(17, 19)}`),
      pair('Cost', row.cost_usd === null ? h('span', { class: 'faint' }, 'unknown: no price of this model is known') : dollars(row.cost_usd)),
      pair('Tokens in', `${count(t.prompt)}${t.cache_read || t.cache_write ? ` (${count(t.cache_read)} read from cache, ${count(t.cache_write)} written)` : ''}`),
      pair('Tokens out', `${count(t.completion)}${t.reasoning ? ` (${count(t.reasoning)} of reasoning)` : ''}`),
      pair('Instance', h('code', {}, row.request_id.slice(4, 16))),
      pair('Request id', copyable(row.request_id)),
      row.client_request_id && row.client_request_id !== row.request_id && pair("Client's id", copyable(row.client_request_id))),
  ];
}

const pair = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));

/** Spans over the whole time: the attempts where they are known, else the way to the first byte and the rest. */
function timeline(row) {
  const whole = Math.max(1, row.latency_ms);
  const own = row.overhead_us / 1000;
  const steps = [];
  for (const one of row.timeline ?? []) {
    // The last one has no time of its own: it went on to the end.
    const took = one.took_ms ?? Math.max(0, row.latency_ms - one.at_ms);
    const bad = one.error || one.status >= 400;
    steps.push({ name: `${one.provider} @${one.account}`, words: [one.model, one.status, one.error].filter(Boolean).join(' · '), from: one.at_ms, took, kind: bad ? 'bad' : 'c1' });
  }
  if (!steps.length) {
    const first = row.first_byte_ms;
    const many = row.attempts > 1 ? ` (${row.attempts} attempts)` : '';
    if (row.attempts === 0) steps.push({ name: 'Answered here', words: 'no provider was asked', from: 0, took: whole, kind: 'c2' });
    else if (first !== null && first < row.latency_ms) {
      steps.push({ name: `Until the first byte${many}`, words: '', from: 0, took: first, kind: failing(row.status) ? 'bad' : 'c1' });
      steps.push({ name: 'The rest of the answer', words: row.stream ? 'streamed' : '', from: first, took: whole - first, kind: 'c2' });
    } else steps.push({ name: `Provider${many}`, words: '', from: 0, took: whole, kind: failing(row.status) ? 'bad' : 'c1' });
  }
  return h('section', { class: 'timeline', 'aria-label': 'Timeline' },
    h('header', {}, h('h3', {}, 'Timeline'), h('span', { class: 'faint' }, `${ms(row.latency_ms)} in all, ${ms(own)} of it the gateway's own`)),
    h('ol', {}, steps.map((step) => h('li', {},
      h('div', {}, h('span', {}, step.name), step.words && h('small', { class: 'faint' }, step.words), h('em', {}, ms(step.took))),
      h('div', { class: 'track' }, h('span', { class: step.kind, css: { 'margin-left': `${(100 * Math.min(step.from, whole)) / whole}%`, width: `${Math.max(0.8, (100 * Math.min(step.took, whole)) / whole)}%` } }))))));
}
