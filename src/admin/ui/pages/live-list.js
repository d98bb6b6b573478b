// The live page's list: requests in flight on top, then those that ended, newest first. Rows are kept and moved, not
// made anew; a hundred are shown. Paused, the list stands still while the figures go on.

import { h, put, say, text } from '../dom.js';
import { feed } from '../feed.js';
import { clock, dollars, failing, ms, now, short, span, tokens } from '../fmt.js';
import { icon } from '../icons.js';
import { button } from '../page.js';
import { cacheBadge, statusBadge } from './row.js';

const SHOWN = 100;

export class LiveList {
  constructor(signal) {
    this.rows = new Map();
    this.frozen = null;
    this.words = '';
    this.status = '';
    this.instance = '';
    this.place = h('tbody', { role: 'rowgroup' });
    // The whole row leads on; its status is the link for keyboards.
    this.place.addEventListener('click', (event) => {
      if (String(getSelection()) || event.target.closest('a')) return;
      event.target.closest('tr[data-kind="ended"]')?.querySelector('a')?.click();
    });
    this.nothing = h('p', { class: 'quiet' });
    this.summary = h('p', { class: 'summary' });
    this.instances = h('select', { 'aria-label': 'Instance', onchange: (event) => this.filter('instance', event.target.value) }, h('option', { value: '' }, 'All instances'));
    this.pauser = button('Pause', 'pause', () => this.pause(), { focus: 'pause' });
    const heads = ['Time', 'Status', 'Model', 'Key', 'Account', 'Tokens', 'Cost', 'Latency'];
    this.el = h('section', { class: 'card flush', 'aria-label': 'Requests' },
      h('div', { class: 'filters' },
        h('span', { class: 'search' }, icon('search'), h('input', { type: 'search', placeholder: 'Filter by model, key, account, id', 'aria-label': 'Filter requests', oninput: (event) => this.filter('words', event.target.value.trim().toLowerCase()) })),
        h('select', { 'aria-label': 'Status', onchange: (event) => this.filter('status', event.target.value) },
          [['', 'Any status'], ['running', 'In flight'], ['ok', 'Succeeded'], ['error', 'Failed'], ['cached', 'From cache']].map(([key, name]) => h('option', { value: key }, name))),
        this.instances, h('span', { class: 'grow' }), this.summary, this.pauser),
      h('div', { class: 'scroll' }, h('table', { class: 'live dense', role: 'table', 'aria-label': 'Requests in flight and finished' },
        h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads.map((name, n) => h('th', { scope: 'col', role: 'columnheader', class: n > 4 ? 'num' : null }, name)))), this.place)),
      this.nothing);
    const timer = setInterval(() => this.tick(), 250);
    signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  }

  changed = () => this.render();

  filter(name, value) {
    this[name] = value;
    this.render(true);
  }

  pause() {
    this.frozen = this.frozen ? null : { running: [...feed.running.values()], ended: feed.ended.slice(), total: feed.total };
    put(this.pauser, icon(this.frozen ? 'play' : 'pause'), this.frozen ? 'Resume' : 'Pause');
    this.el.classList.toggle('paused', Boolean(this.frozen));
    say(this.frozen ? 'The list is paused' : 'The list goes on');
    this.render(true);
  }

  wanted(row) {
    if (this.instance && row.instance !== this.instance) return false;
    const running = row.at === undefined;
    if (this.status === 'running' && !running) return false;
    if (this.status === 'ok' && (running || row.status >= 400)) return false;
    if (this.status === 'error' && (running || !failing(row.status))) return false;
    if (this.status === 'cached' && (running || row.cache === 'miss')) return false;
    if (!this.words) return true;
    return [row.requested_model, row.model, row.provider, row.key_name, row.account, row.request_id, row.client_request_id, row.instance, row.error].some((one) => one?.toLowerCase().includes(this.words));
  }

  render() {
    const source = this.frozen ?? { running: [...feed.running.values()], ended: feed.ended, total: feed.total };
    const rows = [...source.running.reverse().filter((row) => this.wanted(row)), ...source.ended.filter((row) => this.wanted(row))].slice(0, SHOWN);
    const keep = new Set();
    let before = null;
    for (const row of rows) {
      const kind = row.at === undefined ? 'running' : 'ended';
      let node = this.rows.get(row.request_id);
      if (!node || node.dataset.kind !== kind) {
        const next = kind === 'running' ? runningRow(row) : endedRow(row);
        node?.replaceWith(next);
        node = next;
        this.rows.set(row.request_id, node);
      }
      keep.add(row.request_id);
      const after = before ? before.nextSibling : this.place.firstChild;
      if (node !== after) this.place.insertBefore(node, after);
      before = node;
    }
    for (const [id, node] of this.rows) {
      if (keep.has(id)) continue;
      node.remove();
      this.rows.delete(id);
    }
    this.offer();
    const fresh = this.frozen ? feed.total - this.frozen.total : 0;
    const parts = [`${source.running.length} in flight`];
    if (fresh) parts.push(`${short(fresh)} new since`);
    if (feed.missed) parts.push(`${short(feed.missed)} missed`);
    text(this.summary, parts.join(' · '));
    const filtered = this.words || this.status || this.instance;
    text(this.nothing, rows.length ? '' : filtered && feed.total ? 'Nothing of what is here matches the filter.' : 'Waiting for the first request.');
  }

  /** Instances that were heard of. */
  offer() {
    if (this.instances.options.length === feed.instances.size + 1) return;
    const known = new Set([...this.instances.options].map((one) => one.value));
    for (const name of feed.instances.keys()) if (!known.has(name)) this.instances.append(h('option', { value: name }, name));
  }

  tick() {
    if (this.frozen || document.hidden) return;
    for (const node of this.place.querySelectorAll('tr[data-kind="running"] [data-begun]')) {
      const took = Math.max(0, now() - Number(node.dataset.begun));
      text(node, took < 60_000 ? `${(took / 1000).toFixed(1)} s` : span(took));
    }
  }
}

const cell = (label, props, ...kids) => h('td', { role: 'cell', data: { label }, ...props }, kids);

function first(row) {
  return [
    cell('Time', { class: 'time' }, h('time', { datetime: new Date(row.begun).toISOString(), title: row.instance ? `instance ${row.instance}` : null }, clock(row.begun)), feed.instances.size > 1 && row.instance && h('small', { class: 'mono on', title: `instance ${row.instance}` }, row.instance)),
  ];
}

function who(row) {
  const asked = row.requested_model;
  const served = row.model && row.provider ? `${row.provider}/${row.model}` : null;
  return [
    cell('Model', { class: 'main' }, h('span', { title: asked }, asked), row.status >= 400 && row.error ? h('small', { class: 'bad', title: row.error }, row.error) : served && served !== asked && h('small', { title: served }, served)),
    cell('Key', {}, row.key_name ?? h('span', { class: 'faint' }, 'anonymous')),
    cell('Account', {}, row.account ? h('span', {}, row.provider, h('span', { class: 'faint' }, ` @${row.account}`)) : h('span', { class: 'faint' }, '–')),
  ];
}

function runningRow(row) {
  return h('tr', { role: 'row', class: 'running', data: { kind: 'running', id: row.request_id } }, first(row),
    cell('Status', {}, h('span', { class: 'badge info' }, h('i', { class: 'spin' }), row.stream ? 'streaming' : 'in flight')), who(row),
    cell('Tokens', { class: 'num' }, h('span', { class: 'faint' }, '–')), cell('Cost', { class: 'num' }, h('span', { class: 'faint' }, '–')),
    cell('Latency', { class: 'num' }, h('span', { data: { begun: String(row.begun) } }, '0.0 s')));
}

function endedRow(row) {
  const href = `#/logs/${row.request_id}`;
  return h('tr', { role: 'row', class: now() - row.at < 3000 ? 'link fresh' : 'link', data: { kind: 'ended', id: row.request_id } }, first(row),
    cell('Status', {}, h('a', { href, class: 'plain', 'aria-label': `Request with status ${row.status}: details`, title: row.error }, statusBadge(row.status)), cacheBadge(row.cache), row.attempts > 1 && h('span', { class: 'badge warn', title: `${row.attempts} attempts` }, `${row.attempts}×`)), who(row),
    cell('Tokens', { class: 'num', title: row.tokens ? `${row.tokens.prompt} in, ${row.tokens.completion} out` : null }, row.tokens ? short(tokens(row.tokens)) : '–'),
    cell('Cost', { class: 'num', title: row.cost_usd === null ? 'No price of this model is known' : null }, dollars(row.cost_usd)),
    cell('Latency', { class: 'num', title: row.first_byte_ms === null ? null : `first byte after ${ms(row.first_byte_ms)}` }, ms(row.latency_ms)));
}
