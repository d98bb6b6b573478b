// A virtual model's form: its name, how it picks, and its targets in order.

import { call, get, onceName, send } from '../api.js';
import { dialog, failed, toast } from '../dialog.js';
import { h, put, uid } from '../dom.js';
import { field, form } from '../form.js';
import { icon } from '../icons.js';
import { fingerprint } from './account-form.js';
import { sortable } from './sortable.js';

export const STRATEGIES = [
  ['failover', 'Failover', 'The first target that can, in order.'],
  ['load_balance', 'Load balance', 'Spread over all targets by how busy they are.'],
  ['weighted', 'Weighted', 'By the weights of the targets.'],
  ['cost_optimized', 'Lowest cost', 'The cheapest target that can.'],
  ['latency_based', 'Lowest latency', 'The target that answered fastest of late.'],
];

/** Opens it; `model` null makes one. */
export async function modelForm({ model, signal, done }) {
  try {
    const [{ models }, { accounts }, old] = await Promise.all([get('/api/models', signal), get('/api/accounts', signal), model ? send('GET', `/api/virtual-models/${model.id}`, { signal }) : { value: null }]);
    open(old, models.filter((one) => one.kind === 'provider').map((one) => one.id), accounts, done);
  } catch (error) {
    failed(error);
  }
}

function open({ value: model, tag }, known, accounts, done) {
  const once = onceName();
  const name = field({ name: 'name', label: 'Name', required: true, value: model?.name, placeholder: 'fast', hint: 'What applications ask for.', autofocus: !model });
  const strategy = field({ name: 'strategy', label: 'Strategy', kind: 'select', value: model?.strategy ?? 'failover', options: STRATEGIES.map(([key, words]) => [key, words]), width: 'half' });
  const sticky = field({ name: 'sticky', label: 'Sticky', kind: 'number', min: 1, step: 1, value: model?.sticky ?? 1, hint: 'Requests in a row to one target.', width: 'half' });
  const list = h('ol', { class: 'targets', 'aria-label': 'Targets, in order' });
  const options = h('datalist', { id: uid('known') }, known.map((one) => h('option', { value: one })));
  const bad = h('p', { class: 'bad', role: 'alert' });
  const explain = () => {
    strategy.el.querySelector('.hint').textContent = STRATEGIES.find(([key]) => key === strategy.input.value)?.[2] ?? '';
    list.classList.toggle('weighted', strategy.input.value === 'weighted');
  };
  strategy.input.addEventListener('input', explain);

  function target(given = {}) {
    const item = h('li', {},
      h('button', { type: 'button', class: 'ghost square grip', 'aria-label': 'Move this target; arrow keys', title: 'Drag, or use the arrow keys' }, icon('grip')),
      h('input', { class: 'model', 'aria-label': 'Model', list: options.id, placeholder: 'provider/model', value: given.model ?? '', spellcheck: 'false', autocomplete: 'off' }),
      h('select', { class: 'who', 'aria-label': 'Account' }),
      h('input', { class: 'weight', type: 'number', min: '0', step: '1', 'aria-label': 'Weight', value: given.weight ?? 1 }),
      h('button', { type: 'button', class: 'ghost square', 'aria-label': 'Remove this target', onclick: () => { item.remove(); list.querySelector('input')?.focus(); } }, icon('x')));
    const [model_, account] = [item.querySelector('.model'), item.querySelector('.who')];
    const offer = () => {
      const provider = model_.value.split('/')[0];
      const chosen = account.value || given.account || '';
      const labels = [...new Set(accounts.filter((one) => one.provider === provider).map((one) => one.label))];
      if (chosen && !labels.includes(chosen)) labels.push(chosen);
      put(account, h('option', { value: '' }, 'any account'), labels.map((one) => h('option', { value: one }, `@${one}`)));
      account.value = chosen;
    };
    model_.addEventListener('input', () => { bad.textContent = ''; offer(); });
    offer();
    list.append(item);
    return model_;
  }
  (model?.targets ?? [{}]).forEach(target);
  sortable(list, { handle: '.grip', item: 'li', name: (node) => node.querySelector('.model').value || 'The target', moved() {} });
  explain();

  const box = dialog({
    title: model ? `Edit ${model.name}` : 'New virtual model',
    kind: 'modal broad',
    body: form({
      fields: [name, strategy, sticky],
      body: [name.el, h('div', { class: 'two' }, strategy.el, sticky.el), h('fieldset', {}, h('legend', {}, 'Targets'), list, options, bad, h('button', { type: 'button', class: 'small', onclick: () => target().focus() }, icon('plus', 14), 'Add target'))],
      yes: model ? 'Save' : 'Create model',
      cancel: () => box.close(),
      async send(values) {
        const targets = [...list.children].map((item) => ({
          model: item.querySelector('.model').value.trim(),
          account: item.querySelector('.who').value || null,
          weight: Number(item.querySelector('.weight').value || 1),
        })).filter((one) => one.model);
        if (!targets.length) {
          bad.textContent = 'At least one target is needed.';
          list.querySelector('input')?.focus();
          return;
        }
        const body = { name: values.name, strategy: values.strategy, sticky: values.sticky ?? 1, targets };
        try {
          if (model) await call('PUT', `/api/virtual-models/${model.id}`, { body, tag });
          else await call('POST', '/api/virtual-models', { body, once: `${once}-${fingerprint(body)}` });
        } catch (error) {
          if (!error.field?.startsWith('targets')) throw error;
          bad.textContent = error.message;
          return;
        }
        box.close();
        toast(model ? `${values.name} was saved` : `${values.name} can be asked for now`);
        done();
      },
    }),
  });
}
