// Live: what all instances are doing right now, in numbers and one by one.

import { lines } from '../chart.js';
import { h, put, text } from '../dom.js';
import { feed } from '../feed.js';
import { dollars, ms, rate, short, tick } from '../fmt.js';
import { segments } from '../form.js';
import { head } from '../page.js';
import { LiveList } from './live-list.js';
import { welcome } from './welcome.js';

const SPANS = { '1m': [60, 1], '5m': [300, 5], '15m': [900, 15] };
/** What the large numbers are averaged over, seconds. */
const RECENT = 60;

export default function live({ root, me, signal }) {
  let span = '5m';
  const tiles = [
    tile('Throughput', 'req/s', [{ name: 'Requests', color: 'c1', area: true, of: 'requests' }, { name: 'Errors', color: 'bad', area: true, quiet: true, of: 'errors' }], (n) => `${rate(n)} /s`, tick.number),
    tile('Latency', '', [{ name: 'p95', color: 'c3', of: 'p95' }, { name: 'p50', color: 'c1', area: true, of: 'p50' }], ms, tick.ms),
    tile('Tokens', 'tok/s', [{ name: 'Tokens', color: 'c2', area: true, of: 'tokens' }], (n) => `${short(n)} /s`, tick.number),
    tile('Spend', '$/min', [{ name: 'Spend', color: 'c4', area: true, of: 'dollars' }], (n) => `${dollars(n)} /min`, tick.dollars),
  ];
  const list = new LiveList(signal);
  const greeting = h('div');
  const figures = h('div', { class: 'tiles', role: 'group', 'aria-label': 'Figures' }, tiles.map((one) => one.el));
  // On a phone they are wiped through, which must go by keys as well.
  const narrow = matchMedia('(max-width: 560px)');
  const reach = () => (narrow.matches ? figures.setAttribute('tabindex', '0') : figures.removeAttribute('tabindex'));
  narrow.addEventListener('change', reach, { signal });
  reach();
  const body = h('div', {}, figures, list.el);
  put(root, head('Live', 'Every request on every instance, as it happens.', segments({
    label: 'Time span of the charts', value: span, options: Object.keys(SPANS).map((key) => [key, key]), pick(key) { span = key; draw(); },
  })), greeting, body);

  function draw() {
    const data = feed.series(...SPANS[span]);
    const now = feed.lately(RECENT);
    const errors = now.requests ? ` · ${((100 * now.errors) / now.requests).toFixed(now.errors ? 1 : 0)} % errors` : '';
    tiles[0].show(data, rate(now.requests / RECENT), `${short(now.requests)} in the last minute${errors}`);
    tiles[1].show(data, now.p50 === null ? '–' : ms(now.p50), now.p95 === null ? 'no requests in the last minute' : `p50 · p95 is ${ms(now.p95)}`);
    tiles[2].show(data, short(now.tokens / RECENT), `${short(now.tokens)} in the last minute`);
    tiles[3].show(data, dollars(now.cost), now.requests ? `${dollars(now.cost / now.requests)} a request` : 'in the last minute');
  }
  welcome({ place: greeting, me, signal });
  const first = setTimeout(draw, 400);
  const timer = setInterval(() => { if (!document.hidden) draw(); }, 1000);
  signal.addEventListener('abort', () => { clearInterval(timer); clearTimeout(first); }, { once: true });
  feed.watch(list.changed, signal);
  list.changed();
}

function tile(title, unit, series, format, axis) {
  const big = h('strong', {}, '–');
  const small = h('p', {}, '\u00a0');
  const chart = lines({ label: title, series, format, axis, height: 118 });
  return {
    el: h('section', { class: 'card tile', 'aria-label': title }, h('header', {}, h('h2', {}, title), series.length > 1 && h('ul', { class: 'legend' }, series.map((one) => h('li', {}, h('i', { class: one.color }), one.name)))), h('div', { class: 'big' }, big, unit && h('span', {}, unit)), small, chart.el),
    show(data, value, words) {
      text(big, value);
      text(small, words);
      chart.update({ times: data.times, values: series.map((one) => data[one.of]) }, `${title}: ${value} ${unit}, ${words}`);
    },
  };
}
