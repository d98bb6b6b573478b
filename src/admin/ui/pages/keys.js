// Keys: what applications call with; their limits, what they used, what is left.

import { call, get, onceName, send } from '../api.js';
import { meter } from '../chart.js';
import { ask, dialog, failed, secret, toast } from '../dialog.js';
import { h, put } from '../dom.js';
import { count, dollars, now, short } from '../fmt.js';
import { field, form } from '../form.js';
import { badge, button, card, empty, head, load, since, table } from '../page.js';
import { fingerprint } from './account-form.js';
import { connect } from './connect.js';

const DAY = 86_400;

export default function keys({ root, signal, rest: path }) {
  const place = h('div');
  const create = () => keyForm({ signal, done: () => again() });
  put(root, head('Keys', 'What applications call with. Only a hash of each is stored.', button('How to connect', 'plug', guide), button('Create key', 'plus', create, { kind: 'primary' })), place);
  let shown = 100;
  const again = load({ signal }, place, [() => `/api/keys?limit=${shown}`, '/api/usage?by=key&since=30d'], (page, usage) => {
    if (!page.keys.length) return card('', empty('key', 'No keys yet', 'Make one for each application: with limits, a budget, and models of its own.', button('Create key', 'plus', create, { kind: 'primary' })));
    const sums = new Map(usage.usage.map((row) => [row.key_id, row]));
    return [
      h('section', { class: 'card flush' }, list(page.keys, sums, { signal, again: () => again() })),
      page.next_cursor && h('p', { class: 'more' }, button('Show more', 'down', () => { shown = Math.min(1000, shown + 200); again(); })),
    ];
  }, { every: 5000 });
  if (path[0] === 'new') create();
}

const guide = () => dialog({ title: 'How to connect', kind: 'modal broad', body: connect({}) });

function list(rows, sums, { signal, again }) {
  return table({
    label: 'Keys',
    rows,
    cols: [
      { head: 'Name', cls: 'main', cell: (key) => h('div', {}, h('b', {}, key.name), h('small', { class: 'faint mono' }, key.id)) },
      { head: 'Limits', cell: limits },
      { head: 'Models', cell: (key) => (key.models?.length ? h('span', { title: key.models.join(', '), class: 'clip' }, key.models.slice(0, 2).map((one) => h('code', {}, one)), key.models.length > 2 && ` +${key.models.length - 2}`) : h('span', { class: 'faint' }, 'all')) },
      { head: 'Budget', cell: budget },
      { head: '30 days', num: true, cell: (key) => used(sums.get(key.id)) },
      { head: 'Expires', cell: (key) => expires(key.expires_at) },
      { head: '', cell: (key) => h('div', { class: 'tools' },
        button('Edit', 'edit', () => keyForm({ id: key.id, signal, done: again }), { kind: 'small', label: `Edit ${key.name}`, focus: `edit-${key.id}` }),
        button('', 'rotate', () => rotate(key, again), { kind: 'ghost', label: `Rotate ${key.name}`, focus: `rotate-${key.id}` }),
        button('', 'trash', () => revoke(key, again), { kind: 'ghost', label: `Revoke ${key.name}`, focus: `revoke-${key.id}` })) },
    ],
  });
}

function limits(key) {
  const all = [key.rpm && `${short(key.rpm)} req/min`, key.burst && `burst ${short(key.burst)}`, key.tpm && `${short(key.tpm)} tok/min`, key.max_parallel && `${key.max_parallel} parallel`].filter(Boolean);
  return all.length ? h('span', { class: 'chips' }, all.map((one) => badge(one))) : h('span', { class: 'faint' }, 'defaults');
}

function budget(key) {
  if (key.budget_usd === null) return h('span', { class: 'faint' }, 'none');
  const part = key.budget_usd ? (key.spent_usd ?? 0) / key.budget_usd : 1;
  const left = Math.max(0, key.budget_usd - (key.spent_usd ?? 0));
  return h('div', { class: 'budget' }, h('span', {}, h('b', {}, dollars(left)), h('span', { class: 'faint' }, ` left of ${dollars(key.budget_usd)}`)), meter(part, { label: 'Budget used', kind: part >= 1 ? 'bad' : part > 0.8 ? 'warn' : '' }));
}

const used = (sum) => (sum ? h('div', {}, h('b', {}, `${count(sum.requests)} req`), h('small', { class: 'faint' }, `${short(sum.tokens.prompt + sum.tokens.completion)} tok · ${dollars(sum.cost_usd)}`)) : h('span', { class: 'faint' }, 'unused'));

function expires(at) {
  if (!at) return h('span', { class: 'faint' }, 'never');
  return new Date(at).getTime() < now() ? badge('expired', 'bad') : since(at);
}

async function keyForm({ id, signal, done }) {
  try {
    const [{ models }, old] = await Promise.all([get('/api/models', signal), id ? send('GET', `/api/keys/${id}`, { signal }) : { value: null }]);
    const { value: key, tag } = old;
    const once = onceName();
    const number = (name, label, hint, more) => field({ name, label, kind: 'number', min: 0, step: 1, value: key?.[name], hint, placeholder: 'default', width: 'half', ...more });
    const fields = [
      field({ name: 'name', label: 'Name', required: true, value: key?.name, placeholder: 'my-app', autofocus: !key }),
      number('rpm', 'Requests per minute', '0: unlimited.'),
      number('burst', 'Burst', 'Requests at once, from rest.'),
      number('tpm', 'Tokens per minute', 'Prompt and completion together.'),
      number('max_parallel', 'Parallel requests', 'At the same time.'),
      number('budget_usd', 'Budget', 'Refused with 402 once it is spent.', { suffix: 'USD', step: 'any', placeholder: 'none' }),
      field({ name: 'ttl', label: key ? 'Expires in (anew)' : 'Expires in', kind: 'number', min: 0, step: 'any', suffix: 'days', placeholder: key?.expires_at ? 'unchanged' : 'never', width: 'half', hint: key?.expires_at ? '0: never.' : 'From now on.' }),
      field({ name: 'models', label: 'Models', kind: 'list', value: key?.models, placeholder: 'all', hint: 'Names apart by commas; openai/* takes all of a provider.', list: key ? [] : models.slice(0, 300).map((one) => one.id) }),
    ];
    const [name, rpm, burst, tpm, parallel, money, ttl, list_] = fields.map((one) => one.el);
    const open = dialog({
      title: key ? `Edit ${key.name}` : 'Create key',
      kind: 'modal broad',
      body: form({
        fields,
        body: [name, h('div', { class: 'two' }, rpm, burst, tpm, parallel, money, ttl), list_],
        yes: key ? 'Save' : 'Create key',
        cancel: () => open.close(),
        async send({ ttl: days, ...values }) {
          const body = values;
          // Left empty, an existing key's end stays as it is.
          if (days !== null) body.ttl_seconds = days > 0 ? Math.round(days * DAY) : null;
          if (key) {
            await call('PATCH', `/api/keys/${id}`, { body, tag });
            open.close();
            toast(`${values.name} was saved`);
          } else {
            const made = await call('POST', '/api/keys', { body, once: `${once}-${fingerprint(body)}` });
            open.close();
            reveal(made, 'Your new key');
          }
          done();
        },
      }),
    });
  } catch (error) {
    failed(error);
  }
}

function reveal(made, title) {
  secret({ title, words: `Give it to ${made.name}; any OpenAI, Anthropic or Gemini SDK takes it as its API key.`, value: made.key, kind: 'modal broad', more: connect({ key: made.key, allowed: made.models }) });
}

async function rotate(key, again) {
  if (!(await ask({ title: `Rotate ${key.name}?`, text: 'It gets a new secret, and the old one stops at once. Limits and use stay.', yes: 'Rotate key', danger: false }))) return;
  try {
    reveal(await call('POST', `/api/keys/${key.id}/rotate`, { once: onceName() }), `New secret of ${key.name}`);
  } catch (error) {
    failed(error);
  }
  again();
}

async function revoke(key, again) {
  if (!(await ask({ title: `Revoke ${key.name}?`, text: 'It stops at once on every instance. This cannot be taken back.', yes: 'Revoke key' }))) return;
  try {
    await call('DELETE', `/api/keys/${key.id}`);
    toast(`${key.name} was revoked`);
  } catch (error) {
    failed(error);
  }
  again();
}
