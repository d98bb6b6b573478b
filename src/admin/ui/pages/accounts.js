// Accounts: which credentials serve, which rest, until when and why; what each carries and how well.

import { call, get } from '../api.js';
import { meter } from '../chart.js';
import { ask, dialog, failed, toast } from '../dialog.js';
import { h, put } from '../dom.js';
import { count, dollars, ms, percent } from '../fmt.js';
import { badge, button, countdown, empty, head, load } from '../page.js';
import { accountForm } from './account-form.js';
import { REASONS } from './row.js';

export default function accounts({ root, signal, rest: path }) {
  const place = h('div');
  const open = (account) => accountForm({ account, signal, done: () => again() });
  put(root, head('Accounts', 'Credentials with providers. One that fails rests, and the others take over.', button('Add account', 'plus', () => open(null), { kind: 'primary' })), place);
  const again = load({ signal }, place, ['/api/accounts', '/api/cooldowns', '/api/usage?by=account&since=24h'], ({ accounts: all }, { cooldowns }, usage) => {
    if (!all.length) return empty('plug', 'No accounts yet', 'Add a credential with a provider; requests go out with it.', button('Add account', 'plus', () => open(null), { kind: 'primary' }));
    const sums = new Map(usage.usage.filter((row) => row.account_id).map((row) => [row.account_id, row]));
    const total = [...sums.values()].reduce((sum, row) => sum + row.requests, 0);
    const resting = new Set(cooldowns.filter((one) => !one.model).map((one) => one.account)).size;
    const locks = cooldowns.filter((one) => one.model).length;
    return [
      h('p', { class: 'line', role: 'status' }, h('b', {}, `${all.length - resting} of ${all.length}`), ' serving', resting ? ` · ${resting} resting` : '', locks ? ` · ${locks} ${locks === 1 ? 'model' : 'models'} locked` : ''),
      h('div', { class: 'grid accounts' }, all.map((account) => shown(account, cooldowns.filter((one) => one.account === account.id), sums.get(account.id), total, { open, again }))),
    ];
  }, { every: 3000 });
  if (path[0] === 'new') open(null);
}

function shown(account, rests, sum, total, { open, again }) {
  const whole = rests.find((one) => !one.model);
  const locks = rests.filter((one) => one.model);
  const name = `${account.provider} @${account.label}`;
  const own = account.source === 'store';
  const share = sum ? sum.requests / total : 0;
  return h('article', { class: `card account ${whole ? 'resting' : ''}`, 'aria-label': `Account ${name}`, data: { account: account.id } },
    h('header', {}, h('span', { class: `monogram m${[...account.provider].reduce((sum, char) => sum + char.codePointAt(0), 0) % 6}`, 'aria-hidden': 'true' }, account.provider[0].toUpperCase()), h('div', { class: 'grow' }, h('h2', {}, account.provider, h('span', { class: 'faint' }, ` @${account.label}`)), h('p', { class: 'faint url', title: account.effective_base_url }, account.effective_base_url ?? 'built in')), state(whole, locks)),
    whole && rest(whole, 'The whole account', account, again),
    locks.length > 0 && h('ul', { class: 'locks', 'aria-label': 'Locked models' }, locks.map((one) => h('li', {}, rest(one, one.model, account, again)))),
    h('dl', { class: 'facts' },
      fact('Traffic, 24 h', h('span', { class: 'share' }, percent(sum?.requests ?? 0, total), meter(share, { label: 'Share of traffic' })), `${count(sum?.requests ?? 0)} requests`),
      fact('Success', sum ? percent(sum.requests - sum.errors, sum.requests) : '–', sum ? `${count(sum.errors)} failed` : null),
      fact('Spend, 24 h', dollars(sum?.cost_usd ?? 0)),
      fact('In flight', count(account.running)),
      fact('Weight', count(account.weight))),
    h('footer', {},
      button('Test', 'bolt', () => test(account, name), { focus: `test-${account.id}`, label: `Test the credential of ${name}`, disabled: account.source === 'demo' }),
      own && button('Edit', 'edit', () => open(account), { focus: `edit-${account.id}`, label: `Edit ${name}` }),
      own && button('', 'trash', () => remove(account, name, again), { kind: 'ghost', label: `Remove ${name}`, focus: `remove-${account.id}` }),
      !own && badge(account.source === 'demo' ? 'built in' : 'from the environment', '', 'It cannot be changed here')));
}

const fact = (name, value, title) => h('div', { title }, h('dt', {}, name), h('dd', {}, value));

function state(whole, locks) {
  if (whole) return badge(whole.reason === 'failing' ? (whole.remaining_ms ? 'breaker open' : 'half open') : whole.remaining_ms ? 'cooling' : 'probing', 'bad');
  if (locks.length) return badge('partly locked', 'warn');
  return badge('serving', 'ok');
}

function rest(one, what, account, again) {
  const label = one.model ? `Unlock ${one.model}` : `End the rest of ${account.provider} @${account.label}`;
  const times = one.level > 1 ? ` · ${one.level} in a row` : '';
  return h('div', { class: 'rest' },
    h('div', {}, h('b', {}, what), h('small', {}, REASONS[one.reason] ?? one.reason, times)),
    h('span', { class: 'left', title: `until ${new Date(one.until).toLocaleTimeString('en-GB')}` }, one.remaining_ms ? countdown(one.remaining_ms) : 'next request probes'),
    button('Unlock', 'unlock', async (event) => {
      event.currentTarget.disabled = true;
      try {
        const model = one.model ? `/${one.model.split('/').map(encodeURIComponent).join('/')}` : '';
        await call('DELETE', `/api/cooldowns/${account.id}${model}`);
        toast(`${what === 'The whole account' ? `${account.provider} @${account.label}` : what} serves again`);
      } catch (error) {
        failed(error);
      }
      again();
    }, { kind: 'small', label, focus: `unlock-${account.id}-${one.model ?? ''}` }));
}

async function remove(account, name, again) {
  const yes = await ask({ title: `Remove ${name}?`, text: 'Its credential is deleted. Requests in flight finish; new ones go to other accounts.', yes: 'Remove account' });
  if (!yes) return;
  try {
    await call('DELETE', `/api/accounts/${account.id}`);
    toast(`${name} was removed`);
  } catch (error) {
    failed(error);
  }
  again();
}

/** One real call with the credential, and what came of it. */
async function test(account, name) {
  const result = h('div', { class: 'result', role: 'status' });
  const model = h('input', { id: 'test-model', list: 'test-models', placeholder: 'none: only list the models', autocomplete: 'off', spellcheck: 'false' });
  const models = h('datalist', { id: 'test-models' });
  const go = button('Run test', 'bolt', async () => {
    go.disabled = true;
    put(result, h('p', { class: 'faint' }, 'Asking the provider…'));
    try {
      const answer = await call('POST', `/api/accounts/${account.id}/test`, { body: model.value.trim() ? { model: model.value.trim() } : {} });
      put(result, h('p', {}, badge(answer.ok ? 'it works' : 'it does not work', answer.ok ? 'ok' : 'bad'), ' ', h('span', { class: 'faint' }, [answer.status && `status ${answer.status}`, ms(answer.latency_ms)].filter(Boolean).join(' · '))), answer.message && h('p', {}, answer.message));
    } catch (error) {
      put(result, h('p', { class: 'bad' }, error.message));
    }
    go.disabled = false;
  }, { kind: 'primary' });
  dialog({ title: `Test ${name}`, body: [h('p', {}, 'One real call with this credential. With a model it asks for one token, which costs next to nothing.'), h('div', { class: 'field' }, h('label', { for: 'test-model' }, 'Model'), model, models), result], foot: go });
  const known = await get('/api/models').catch(() => ({ models: [] }));
  const mine = known.models.filter((one) => one.kind === 'provider' && one.providers.includes(account.provider));
  put(models, mine.map((one) => h('option', { value: one.id.slice(account.provider.length + 1) })));
}
