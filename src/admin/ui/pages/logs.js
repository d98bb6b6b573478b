// Logs: every request that ended, searched and filtered; pages by cursor. The filters are in the address, so a view can be
// sent to a colleague; `#/logs/req_…` opens one request beside the list.

import { get, query } from '../api.js';
import { failed } from '../dialog.js';
import { h, put, settled } from '../dom.js';
import { dollars, moment, ms, short, tokens } from '../fmt.js';
import { icon } from '../icons.js';
import { broken, button, empty, head, skeleton, table } from '../page.js';
import { logDetail } from './log-detail.js';
import { cacheBadge, statusBadge } from './row.js';

const SPANS = [['', 'Any time'], ['15m', 'Last 15 minutes'], ['1h', 'Last hour'], ['24h', 'Last 24 hours'], ['7d', 'Last 7 days']];
const STATUSES = [['', 'Any status'], ['ok', 'Succeeded'], ['error', 'Failed'], ['429', '429'], ['4xx', '4xx'], ['5xx', '5xx']];
const NAMES = ['q', 'status', 'since', 'provider', 'model', 'key_id'];
const PAGE = 50;

export default function logs({ root, signal, rest, query: given }) {
  const chosen = Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? '']));
  const place = h('div');
  const body = h('section', { class: 'card flush', 'aria-label': 'Request log' });
  const providers = h('select', { 'aria-label': 'Provider', onchange: (event) => pick('provider', event.target.value) }, h('option', { value: '' }, 'All providers'));
  const keys = h('select', { 'aria-label': 'Key', onchange: (event) => pick('key_id', event.target.value) }, h('option', { value: '' }, 'All keys'), h('option', { value: 'anonymous' }, 'Anonymous'));
  const choice = (label, name, options) => h('select', { 'aria-label': label, value: chosen[name], onchange: (event) => pick(name, event.target.value) }, options.map(([key, words]) => h('option', { value: key, selected: key === chosen[name] }, words)));
  const typed = (name) => settled(300, (event) => pick(name, event.target.value.trim()));
  body.append(h('div', { class: 'filters' },
    h('span', { class: 'search' }, icon('search'), h('input', { type: 'search', placeholder: 'Search ids, models, errors', 'aria-label': 'Search the log', value: chosen.q, oninput: typed('q') })),
    choice('Status', 'status', STATUSES), choice('Time', 'since', SPANS), providers, keys,
    h('input', { class: 'narrow', type: 'search', placeholder: 'Model', 'aria-label': 'Model', value: chosen.model, oninput: typed('model') })), place);
  put(root, head('Logs', 'Every request that has ended, newest first.', button('Refresh', 'rotate', () => first())), body);

  put(place, skeleton());
  let wave = 0;
  function pick(name, value) {
    chosen[name] = value;
    history.replaceState(null, '', `#/logs${query(chosen)}`);
    first();
  }

  async function first() {
    const mine = ++wave;
    place.classList.add('stale');
    try {
      const page = await get(`/api/logs${query({ ...chosen, limit: PAGE })}`, signal);
      if (mine !== wave) return;
      const rows = page.logs;
      show(rows, page.next_cursor, mine);
    } catch (error) {
      if (!signal.aborted && mine === wave && error.status !== 401) put(place, broken(error, first));
    }
    place.classList.remove('stale');
  }

  function show(rows, cursor, mine) {
    const filtered = NAMES.some((name) => chosen[name]);
    const more = cursor && button('Load older', 'down', async () => {
      more.disabled = true;
      try {
        const page = await get(`/api/logs${query({ ...chosen, limit: PAGE, cursor })}`, signal);
        if (mine !== wave) return;
        const seen = new Set(rows.map((row) => row.request_id));
        const from = rows.length;
        show([...rows, ...page.logs.filter((row) => !seen.has(row.request_id))], page.next_cursor, mine);
        place.querySelectorAll('tbody tr')[from]?.querySelector('a')?.focus({ preventScroll: true });
      } catch (error) {
        more.disabled = false;
        failed(error);
      }
    }, { focus: 'older' });
    put(place, listed(rows, filtered), h('p', { class: 'more', role: 'status' }, more || (rows.length ? h('span', { class: 'faint' }, `That was all: ${rows.length} shown`) : null)));
  }

  const open = (id) => logDetail({ id, signal, closed: () => { if (!signal.aborted && location.hash.startsWith(`#/logs/${id}`)) history.replaceState(null, '', `#/logs${query(chosen)}`); } });
  place.addEventListener('click', (event) => {
    const row = event.target.closest('tr[data-id]');
    if (!row || event.metaKey || event.ctrlKey || String(getSelection())) return;
    event.preventDefault();
    history.replaceState(null, '', `#/logs/${row.dataset.id}${query(chosen)}`);
    open(row.dataset.id);
  });
  first();
  if (rest[0]) open(rest[0]);
  offer();

  async function offer() {
    try {
      const [accounts, known] = await Promise.all([get('/api/accounts', signal), get('/api/keys?limit=1000', signal)]);
      providers.append(...[...new Set(accounts.accounts.map((one) => one.provider))].sort().map((name) => h('option', { value: name }, name)));
      keys.append(...known.keys.map((key) => h('option', { value: key.id }, key.name)));
      for (const [select, value] of [[providers, chosen.provider], [keys, chosen.key_id]]) {
        // A colleague's address may name what is gone.
        if (value && ![...select.options].some((one) => one.value === value)) select.append(h('option', { value }, value));
        select.value = value;
      }
    } catch { /* the lists stay short; the filters work by address all the same */ }
  }
}

function listed(rows, filtered) {
  if (!rows.length) return filtered ? empty('search', 'Nothing matches', 'Loosen the filters, or look further back.') : empty('list', 'No requests yet', 'They appear here within a second of their end.');
  return table({
    label: 'Requests',
    kind: 'dense',
    rows,
    row: (tr, row) => { tr.dataset.id = row.request_id; tr.classList.add('link'); },
    cols: [
      { head: 'Time', cls: 'time', cell: (row) => h('a', { href: `#/logs/${row.request_id}`, class: 'plain' }, h('time', { datetime: row.time, title: moment(row.time) }, when(row.time))) },
      { head: 'Status', cell: (row) => h('span', { class: 'chips' }, statusBadge(row.status), cacheBadge(row.cache), row.attempts > 1 && h('span', { class: 'badge warn', title: `${row.attempts} attempts` }, `${row.attempts}×`)) },
      { head: 'Model', cls: 'main', cell: (row) => [h('span', {}, row.requested_model), row.error && h('small', { class: 'bad' }, row.error)] },
      { head: 'Key', cell: (row) => row.key_name ?? h('span', { class: 'faint' }, 'anonymous') },
      { head: 'Account', cell: (row) => (row.provider ? h('span', {}, row.provider, h('span', { class: 'faint' }, ` @${row.account ?? '–'}`)) : h('span', { class: 'faint' }, '–')) },
      { head: 'Tokens', num: true, cell: (row) => h('span', { title: `${row.tokens.prompt} in, ${row.tokens.completion} out${row.estimated ? ', estimated' : ''}` }, `${row.estimated ? '~' : ''}${short(tokens(row.tokens))}`) },
      { head: 'Cost', num: true, cell: (row) => dollars(row.cost_usd) },
      { head: 'Latency', num: true, cell: (row) => ms(row.latency_ms) },
    ],
  });
}

function when(time) {
  const at = new Date(time);
  const today = new Date().toDateString() === at.toDateString();
  const clock = at.toLocaleTimeString('en-GB');
  return today ? clock : `${at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${clock.slice(0, 5)}`;
}
