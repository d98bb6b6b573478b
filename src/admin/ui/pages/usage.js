// Usage: exact totals by day, key, model, provider or account; as chart, table and CSV. What is chosen is in the address.

import { query } from '../api.js';
import { bars, meter } from '../chart.js';
import { h, put } from '../dom.js';
import { count, day, dollars, now, percent, short, tick } from '../fmt.js';
import { segments } from '../form.js';
import { icon } from '../icons.js';
import { card, empty, head, load, table } from '../page.js';

const GROUPS = [['day', 'Day'], ['model', 'Model'], ['key', 'Key'], ['provider', 'Provider'], ['account', 'Account']];
const RANGES = [['1', 'Today'], ['7', '7 days'], ['30', '30 days'], ['90', '90 days']];
const MEASURES = [['cost', 'Spend'], ['requests', 'Requests'], ['tokens', 'Tokens']];
/** Groups with a colour of their own in the chart; the rest is one more. */
const COLOURS = 6;

const VALUE = {
  cost: (row) => row.cost_usd,
  requests: (row) => row.requests,
  tokens: (row) => row.tokens.prompt + row.tokens.completion,
};
const FORMAT = { cost: dollars, requests: short, tokens: short };
const AXIS = { cost: tick.dollars, requests: tick.number, tokens: tick.number };

export default function usage({ root, signal, query: given }) {
  const pick = (name, options, usual) => (options.some(([key]) => key === given.get(name)) ? given.get(name) : usual);
  const chosen = { by: pick('by', GROUPS, 'day'), range: pick('range', RANGES, '7'), measure: pick('measure', MEASURES, 'cost') };
  const place = h('div');
  const csv = h('a', { class: 'button', download: 'usage.csv' }, icon('download'), 'CSV');
  const control = (name, label, options) => segments({ label, options, value: chosen[name], pick(key) { chosen[name] = key; changed(); } });
  put(root, head('Usage', 'Exact totals of every request, cached and failed ones included.', csv),
    h('div', { class: 'bar-tools' }, control('by', 'Grouped by', GROUPS), h('span', { class: 'grow' }), control('measure', 'Shown in the chart', MEASURES), control('range', 'Time range', RANGES)), place);

  const from = () => {
    const today = new Date(now());
    return new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), today.getUTCDate() - Number(chosen.range) + 1)).toISOString();
  };
  const fine = () => (chosen.by === 'day' ? 'day,model' : `day,${chosen.by}`);
  const again = load({ signal }, place, [() => `/api/usage${query({ by: chosen.by, since: from() })}`, () => `/api/usage${query({ by: fine(), since: from() })}`], (sums, days) => render(sums, days, chosen), { every: 15_000 });
  function changed() {
    history.replaceState(null, '', `#/usage${query(chosen)}`);
    csv.href = `/api/usage${query({ by: chosen.by === 'day' ? 'day' : `day,${chosen.by}`, since: from(), format: 'csv' })}`;
    again();
  }
  csv.href = `/api/usage${query({ by: chosen.by === 'day' ? 'day' : `day,${chosen.by}`, since: from(), format: 'csv' })}`;
}

/** A row's group, as a name. */
function named(by, row) {
  if (by === 'day') return row.day;
  if (by === 'key') return row.key_name ?? (row.key_id ? row.key_id : 'anonymous');
  if (by === 'account') return row.account ? `${row.account_provider} @${row.account}` : row.account_id ?? 'none';
  if (by === 'model' && row.model === '-') return 'reached no model';
  return row[by] || 'none';
}

function render(sums, days, chosen) {
  const { total } = sums;
  if (!total.requests) return card('', empty('bars', 'No usage in this time', 'Whatever passes through is counted here within seconds.'));
  const by = chosen.by;
  return [
    h('div', { class: 'tiles four' },
      figure('Spend', dollars(total.cost_usd), `${dollars(total.cost_usd / total.requests)} a request`),
      figure('Requests', count(total.requests), `${percent(total.requests - total.errors, total.requests)} succeeded`),
      figure('Tokens in', short(total.tokens.prompt), total.tokens.cache_read ? `${short(total.tokens.cache_read)} read from providers' caches` : 'prompts'),
      figure('Tokens out', short(total.tokens.completion), total.tokens.reasoning ? `${short(total.tokens.reasoning)} of reasoning` : 'completions')),
    card(`${MEASURES.find(([key]) => key === chosen.measure)[1]} by day and ${by === 'day' ? 'model' : by}`, chart(days.usage, by === 'day' ? 'model' : by, chosen)),
    h('section', { class: 'card flush' }, rows(sums, by, chosen.measure), !sums.complete && h('p', { class: 'quiet' }, 'There are more groups than are shown; choose a shorter time.')),
  ];
}

const figure = (title, value, words) => h('section', { class: 'card tile', 'aria-label': title }, h('h2', {}, title), h('div', { class: 'big' }, h('strong', {}, value)), h('p', {}, words));

function chart(data, by, chosen) {
  const value = VALUE[chosen.measure];
  const dates = [];
  const today = Math.floor(now() / 86_400_000);
  for (let n = Number(chosen.range) - 1; n >= 0; n -= 1) dates.push(new Date((today - n) * 86_400_000).toISOString().slice(0, 10));
  const at = new Map(dates.map((date, n) => [date, n]));
  const groups = new Map();
  for (const row of data) {
    const name = named(by, row);
    const column = at.get(row.day);
    if (column === undefined) continue;
    if (!groups.has(name)) groups.set(name, dates.map(() => 0));
    groups.get(name)[column] += value(row);
  }
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const sorted = [...groups].filter(([, values]) => sum(values) > 0).sort((a, b) => sum(b[1]) - sum(a[1]));
  const stacks = sorted.slice(0, COLOURS).map(([name, values], n) => ({ name, values, color: `c${n + 1}` }));
  const rest = sorted.slice(COLOURS);
  if (rest.length) stacks.push({ name: `${rest.length} more`, color: 'c7', values: dates.map((_, n) => sum(rest.map(([, values]) => values[n]))) });
  return bars({ label: `Usage by day and ${by}; the table below has the numbers`, columns: dates.map((date) => ({ name: day(date), title: day(date) })), stacks, format: FORMAT[chosen.measure], axis: AXIS[chosen.measure] });
}

function rows(sums, by, measure) {
  const value = VALUE[measure];
  const all = sums.usage.slice().sort((a, b) => (by === 'day' ? b.day.localeCompare(a.day) : value(b) - value(a)));
  const total = value(sums.total) || 1;
  return table({
    label: `Usage by ${by}`,
    rows: all,
    cols: [
      { head: GROUPS.find(([key]) => key === by)[1], cls: 'main', cell: (row) => h('b', {}, by === 'day' ? day(row.day) : named(by, row)) },
      { head: 'Share', cell: (row) => h('span', { class: 'share' }, percent(value(row), total), meter(value(row) / total, { label: 'Share' })), hide: true },
      { head: 'Requests', num: true, cell: (row) => count(row.requests) },
      { head: 'Errors', num: true, cell: (row) => (row.errors ? h('span', { class: 'bad' }, count(row.errors)) : '0') },
      { head: 'Tokens in', num: true, cell: (row) => count(row.tokens.prompt) },
      { head: 'Tokens out', num: true, cell: (row) => count(row.tokens.completion) },
      { head: 'Spend', num: true, cell: (row) => dollars(row.cost_usd) },
    ],
  });
}
