// Settings: sessions and the password, management tokens for programs, where to read on.

import { call, onceName } from '../api.js';
import { ask, copyable, dialog, failed, secret, toast } from '../dialog.js';
import { h, put } from '../dom.js';
import { moment, now } from '../fmt.js';
import { field, form } from '../form.js';
import { icon } from '../icons.js';
import { badge, button, card, head, load, since, table } from '../page.js';
import { fingerprint } from './account-form.js';

const SCOPES = [['read', 'Read: look at everything'], ['write', 'Write: change everything but tokens'], ['admin', 'Admin: change tokens, too']];

export default function settings({ root, me, signal, again: restart }) {
  const place = h('div');
  const create = () => tokenForm(() => again());
  put(root, head('Settings', 'Who may come in here, and by what.'), session(me, restart),
    h('section', { class: 'card flush', 'aria-label': 'Management tokens' }, h('div', { class: 'filters' }, h('div', {}, h('h2', {}, 'Management tokens'), h('p', { class: 'faint' }, 'For programs that use /api/. They are no keys for models.')), h('span', { class: 'grow' }), button('Create token', 'plus', create)), place),
    card('About', h('dl', { class: 'pairs' },
      pair('Version', me.version), pair('Instance', h('code', {}, me.instance)),
      pair('API document', h('a', { href: '/api/openapi.json', target: '_blank', rel: 'noopener' }, 'openapi.json ', icon('external', 13))),
      pair('Metrics', h('a', { href: '/metrics', target: '_blank', rel: 'noopener' }, '/metrics ', icon('external', 13))))));
  const again = load({ signal }, place, ['/api/tokens'], ({ tokens }) => table({
    label: 'Management tokens',
    rows: tokens,
    none: h('p', { class: 'quiet' }, 'No tokens yet.'),
    cols: [
      { head: 'Name', cls: 'main', cell: (row) => h('div', {}, h('b', {}, row.name), h('small', { class: 'faint mono' }, row.id)) },
      { head: 'Scope', cell: (row) => badge(row.scope, row.scope === 'admin' ? 'warn' : '') },
      { head: 'Created', cell: (row) => since(row.created_at) },
      { head: 'Expires', cell: (row) => (!row.expires_at ? h('span', { class: 'faint' }, 'never') : new Date(row.expires_at).getTime() < now() ? badge('expired', 'bad') : since(row.expires_at)) },
      { head: '', cell: (row) => h('div', { class: 'tools' }, button('Revoke', 'trash', () => revoke(row, () => again()), { kind: 'small', label: `Revoke ${row.name}`, focus: `revoke-${row.id}` })) },
    ],
  }), { every: 10_000 });
}

const pair = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));

function session(me, restart) {
  if (!me.password_set) {
    return card('Set a password',
      h('p', {}, 'Without one the control plane answers this machine only, and everybody on it. Make a hash, put it into the environment, and start again:'),
      copyable("merido hash-password\nexport MERIDO_DASHBOARD_PASSWORD_HASH='…what it printed…'\nmerido start", { block: true }),
      h('p', { class: 'faint' }, 'Type the password when asked; only its argon2 hash is ever kept. On addresses other than loopback a password is required.'));
  }
  if (me.kind !== 'session') return card('Session', h('p', {}, `You are here by ${me.kind === 'token' ? `the token ${me.name}` : 'no session'}.`));
  return card('Session',
    h('p', {}, `You are logged in until ${moment(me.expires_at)}. The session is good on every instance.`),
    h('div', { class: 'tools' }, button('Log out everywhere', 'out', async () => {
      if (!(await ask({ title: 'Log out everywhere?', text: 'All sessions end at once on every instance, this one too. Tokens stay.', yes: 'Log out everywhere' }))) return;
      try {
        await call('POST', '/api/logout', { body: { everywhere: true } });
        restart();
      } catch (error) {
        failed(error);
      }
    })));
}

function tokenForm(done) {
  const once = onceName();
  const fields = [
    field({ name: 'name', label: 'Name', required: true, placeholder: 'terraform', autofocus: true }),
    field({ name: 'scope', label: 'Scope', kind: 'select', value: 'read', options: SCOPES }),
    field({ name: 'ttl', label: 'Expires in', kind: 'number', min: 0, step: 'any', suffix: 'days', placeholder: 'never' }),
  ];
  const open = dialog({
    title: 'Create token',
    body: form({
      fields,
      yes: 'Create token',
      cancel: () => open.close(),
      async send({ name, scope, ttl }) {
        const body = { name, scope };
        if (ttl) body.ttl_seconds = Math.round(ttl * 86_400);
        const made = await call('POST', '/api/tokens', { body, once: `${once}-${fingerprint(body)}` });
        open.close();
        secret({ title: 'Your new token', words: 'Send it as Authorization: Bearer …', value: made.token });
        done();
      },
    }),
  });
}

async function revoke(token, again) {
  if (!(await ask({ title: `Revoke ${token.name}?`, text: 'Whoever uses it is locked out at once.', yes: 'Revoke token' }))) return;
  try {
    await call('DELETE', `/api/tokens/${token.id}`);
    toast(`${token.name} was revoked`);
  } catch (error) {
    failed(error);
  }
  again();
}
