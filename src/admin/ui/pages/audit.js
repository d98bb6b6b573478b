// Audit: who changed what, from where, when. Nothing here can be changed.

import { get } from '../api.js';
import { failed } from '../dialog.js';
import { h, put } from '../dom.js';
import { moment } from '../fmt.js';
import { badge, broken, button, empty, head, since, skeleton, table } from '../page.js';

const PAGE = 50;
const ACTORS = { session: 'dashboard', token: 'token', anybody: 'anybody', nobody: 'nobody', command: 'command line' };

export default function audit({ root, signal }) {
  const place = h('section', { class: 'card flush', 'aria-label': 'Audit' });
  put(root, head('Audit', 'Every change to this deployment, and every login.', button('Refresh', 'rotate', () => more([], null))), place);
  put(place, skeleton());
  async function more(rows, cursor) {
    try {
      const page = await get(`/api/audit?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`, signal);
      const all = [...rows, ...page.audit];
      const older = page.next_cursor && button('Load older', 'down', () => { older.disabled = true; more(all, page.next_cursor); });
      put(place, listed(all), older && h('p', { class: 'more' }, older));
      place.querySelectorAll('tbody tr')[rows.length]?.scrollIntoView({ block: 'nearest' });
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (rows.length) failed(error);
      else put(place, broken(error, () => more([], null)));
    }
  }
  more([], null);
}

function listed(rows) {
  return table({
    label: 'Changes, newest first',
    rows,
    none: empty('history', 'Nothing has been changed yet', 'Changes by the dashboard, by tokens and by commands are written down here.'),
    cols: [
      { head: 'When', cls: 'time', cell: (row) => h('span', { title: moment(row.time) }, since(row.time)) },
      { head: 'What', cls: 'main', cell: (row) => h('div', {}, badge(row.action.replace(/[._]/g, ' '), kind(row.action)), details(row.detail)) },
      { head: 'Target', cell: (row) => (row.target ? h('code', {}, row.target) : h('span', { class: 'faint' }, '–')) },
      { head: 'Who', cell: (row) => h('span', { title: row.actor.id }, row.actor.name ?? ACTORS[row.actor.kind] ?? row.actor.kind) },
      { head: 'From', cell: (row) => (row.address ? h('span', { class: 'mono' }, row.address) : h('span', { class: 'faint' }, '–')) },
    ],
  });
}

const kind = (action) => (/remove|revoke/.test(action) ? 'bad' : /failed/.test(action) ? 'warn' : /create/.test(action) ? 'ok' : '');

/** A value as words: lists by commas, objects by what they hold. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(', ');
  if (typeof value !== 'object') return String(value);
  return Object.entries(value).filter(([, one]) => one !== null).map(([name, one]) => (name === 'weight' ? `× ${one}` : name === 'account' ? `@${one}` : plain(one))).join(' ');
}

function details(detail) {
  const parts = Object.entries(detail ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== false && !(Array.isArray(value) && !value.length));
  if (!parts.length) return null;
  return h('small', { class: 'faint detail' }, parts.map(([name, value]) => `${name.replace(/_/g, ' ')}: ${plain(value)}`).join(' · '));
}
