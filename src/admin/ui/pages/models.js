// Models: virtual ones, which lead somewhere (in order, switched on and off), and all that can be asked for.

import { call } from '../api.js';
import { ask, failed, toast } from '../dialog.js';
import { h, put, say } from '../dom.js';
import { count, percent, short } from '../fmt.js';
import { toggle } from '../form.js';
import { icon } from '../icons.js';
import { badge, button, card, empty, head, load, table } from '../page.js';
import { modelForm, STRATEGIES } from './model-form.js';
import { sortable } from './sortable.js';

export default function models({ root, signal }) {
  const virtual = h('div');
  const offered = h('div');
  const open = (model) => modelForm({ model, signal, done: () => again() });
  put(root, head('Models', 'Virtual models are names of yours that lead to one or more real ones.', button('New virtual model', 'plus', () => open(null), { kind: 'primary' })), virtual, offered);
  const again = load({ signal }, virtual, ['/api/virtual-models'], ({ virtual_models: all }) => {
    if (!all.length) return card('', empty('layers', 'No virtual models yet', 'One name for your applications, several targets behind it: failover, weights, lowest cost or lowest latency.', button('New virtual model', 'plus', () => open(null), { kind: 'primary' })));
    const list = h('ol', { class: 'vmodels' }, all.map((one) => shown(one, open, () => again())));
    sortable(list, {
      handle: '.grip',
      item: '[data-id]',
      name: (node) => node.dataset.name,
      async moved(nodes) {
        try {
          await call('PUT', '/api/virtual-models/reorder', { body: { ids: nodes.map((node) => node.dataset.id) } });
        } catch (error) {
          failed(error);
        }
        again();
      },
    });
    return [list];
  }, { every: 10_000 });
  load({ signal }, offered, ['/api/models'], ({ models: all }) => catalogue(all), { every: 15_000 });
}

function shown(model, open, again) {
  const own = model.source === 'store';
  const strategy = STRATEGIES.find(([key]) => key === model.strategy)?.[1] ?? model.strategy;
  const weighted = model.strategy === 'weighted';
  return h('li', { class: `card vmodel ${model.enabled ? '' : 'off'}`, data: own ? { id: model.id, name: model.name } : {} },
    own ? h('button', { type: 'button', class: 'ghost square grip', 'aria-label': `Move ${model.name}; arrow keys`, title: 'Drag, or use the arrow keys', data: { focus: `grip-${model.id}` } }, icon('grip')) : h('span', { class: 'square' }),
    h('div', { class: 'what' },
      h('header', {}, h('h2', {}, model.name), badge(strategy), model.sticky > 1 && badge(`sticky ${model.sticky}`), !own && badge('from the settings', '', 'It cannot be changed here'), !model.enabled && badge('off', 'warn')),
      h('ol', { class: `route ${model.strategy === 'failover' ? 'ordered' : ''}`, 'aria-label': `Targets of ${model.name}` }, model.targets.map((target) => h('li', {}, h('code', {}, target.model, target.account && h('span', { class: 'faint' }, `@${target.account}`)), weighted && h('small', { title: `weight ${target.weight}` }, percent(target.weight, model.targets.reduce((sum, one) => sum + one.weight, 0))))))),
    own && h('div', { class: 'tools' },
      toggle({
        label: `${model.name} is on`, on: model.enabled, focus: `on-${model.id}`,
        async change(enabled) {
          await call('POST', `/api/virtual-models/${model.id}/toggle`, { body: { enabled } });
          say(`${model.name} is ${enabled ? 'on' : 'off'}`);
          again();
        },
      }),
      button('Edit', 'edit', () => open(model), { label: `Edit ${model.name}`, focus: `edit-${model.id}` }),
      button('', 'trash', () => remove(model, again), { kind: 'ghost', label: `Remove ${model.name}`, focus: `rm-${model.id}` })));
}

async function remove(model, again) {
  if (!(await ask({ title: `Remove ${model.name}?`, text: 'Requests for this name are answered with 404 from then on.', yes: 'Remove model' }))) return;
  try {
    await call('DELETE', `/api/virtual-models/${model.id}`);
    toast(`${model.name} was removed`);
  } catch (error) {
    failed(error);
  }
  again();
}

let words = '';

function catalogue(all) {
  const real = all.filter((one) => one.kind === 'provider');
  const place = h('div');
  const price = (value) => (value === undefined || value === null ? '–' : `$${Number(value.toFixed(2)) === value ? value.toFixed(2) : Number(value.toFixed(4))}`);
  const show = () => {
    const rows = real.filter((one) => one.id.toLowerCase().includes(words));
    put(place, table({
      label: 'Models that accounts offer',
      rows: rows.slice(0, 200),
      none: h('p', { class: 'quiet' }, real.length ? 'No model matches.' : 'No account offers a known model yet. Models need not be listed here to be used.'),
      cols: [
        { head: 'Model', cls: 'main', cell: (row) => h('code', {}, row.id) },
        { head: 'Accounts', num: true, cell: (row) => (row.resting ? h('span', {}, `${row.accounts - row.resting} of ${row.accounts} `, badge('resting', 'warn')) : count(row.accounts)) },
        { head: 'Context', num: true, cell: (row) => short(row.context) },
        { head: 'Max output', num: true, cell: (row) => short(row.max_output), hide: true },
        { head: 'Input /M', num: true, cell: (row) => price(row.price?.input) },
        { head: 'Output /M', num: true, cell: (row) => price(row.price?.output) },
        { head: 'Cached /M', num: true, cell: (row) => price(row.price?.cache_read), hide: true },
      ],
    }), rows.length > 200 && h('p', { class: 'quiet' }, `${rows.length - 200} more; type to narrow them down.`));
  };
  const search = h('input', { type: 'search', id: 'model-search', placeholder: 'Search models', 'aria-label': 'Search models', value: words, oninput: (event) => { words = event.target.value.trim().toLowerCase(); show(); } });
  show();
  return h('section', { class: 'card flush', 'aria-label': 'Offered models' }, h('div', { class: 'filters' }, h('h2', {}, 'Offered by your accounts'), h('span', { class: 'grow' }), h('span', { class: 'search' }, icon('search'), search)), place);
}
