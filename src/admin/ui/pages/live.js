// Live: what all instances are doing right now, in numbers and one by one.

import { get } from '../api.js';
import { lines } from '../chart.js';
import { copyable, failed } from '../dialog.js';
import { h, put, say, text } from '../dom.js';
import { feed } from '../feed.js';
import { dollars, ms, rate, short, tick } from '../fmt.js';
import { segments } from '../form.js';
import { button, card, head } from '../page.js';
import { LiveList } from './live-list.js';

const SPANS = { '1m': [60, 1], '5m': [300, 5], '15m': [900, 15] };
/** What the large numbers are averaged over, seconds. */
const RECENT = 60;

export default function live({ root, signal }) {
  let span = '5m';
  const tiles = [
    tile('Throughput', 'req/s', [{ name: 'Requests', color: 'c1', area: true, of: 'requests' }, { name: 'Errors', color: 'bad', area: true, quiet: true, of: 'errors' }], (n) => `${rate(n)} /s`, tick.number),
    tile('Latency', '', [{ name: 'p95', color: 'c3', of: 'p95' }, { name: 'p50', color: 'c1', area: true, of: 'p50' }], ms, tick.ms),
    tile('Tokens', 'tok/s', [{ name: 'Tokens', color: 'c2', area: true, of: 'tokens' }], (n) => `${short(n)} /s`, tick.number),
    tile('Spend', '$/min', [{ name: 'Spend', color: 'c4', area: true, of: 'dollars' }], (n) => `${dollars(n)} /min`, tick.dollars),
  ];
  const list = new LiveList(signal);
  const welcome = h('div');
  const body = h('div', {}, h('div', { class: 'tiles' }, tiles.map((one) => one.el)), list.el);
  put(root, head('Live', 'Every request on every instance, as it happens.', segments({
    label: 'Time span of the charts', value: span, options: Object.keys(SPANS).map((key) => [key, key]), pick(key) { span = key; draw(); },
  })), welcome, body);

  let greeted = false;
  function draw() {
    const data = feed.series(...SPANS[span]);
    const now = feed.lately(RECENT);
    const errors = now.requests ? ` · ${((100 * now.errors) / now.requests).toFixed(now.errors ? 1 : 0)} % errors` : '';
    tiles[0].show(data, rate(now.requests / RECENT), `${short(now.requests)} in the last minute${errors}`);
    tiles[1].show(data, now.p50 === null ? '–' : ms(now.p50), now.p95 === null ? 'no requests in the last minute' : `p50 · p95 is ${ms(now.p95)}`);
    tiles[2].show(data, short(now.tokens / RECENT), `${short(now.tokens)} in the last minute`);
    tiles[3].show(data, dollars(now.cost), now.requests ? `${dollars(now.cost / now.requests)} a request` : 'in the last minute');
    const quiet = feed.total === 0 && feed.running.size === 0;
    if (quiet && !greeted) {
      greeted = true;
      greet(welcome, signal);
    } else if (!quiet && greeted) {
      greeted = false;
      put(welcome);
    }
  }
  // The first look waits for the log's word on what was before, so that nobody is greeted as new who is not.
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

/** Nothing has ever happened here: how to begin. */
async function greet(place, signal) {
  const body = { model: 'demo/echo', messages: [{ role: 'user', content: 'Hello, merido!' }] };
  let models = [];
  let accounts = [];
  try {
    [{ models }, { accounts }] = await Promise.all([get('/api/models', signal), get('/api/accounts', signal)]);
  } catch {
    return;
  }
  if (signal.aborted || feed.total) return;
  const demo = accounts.some((one) => one.source === 'demo');
  if (!demo && models.length) body.model = (models.find((one) => one.kind === 'virtual') ?? models[0]).id;
  const curl = `curl ${location.origin}/v1/chat/completions \\\n  -H 'content-type: application/json' \\\n${demo ? '' : "  -H 'authorization: Bearer YOUR_KEY' \\\n"}  -d '${JSON.stringify(body)}'`;
  const step = (done, words, href, link) => h('li', { class: done ? 'done' : '' }, h('span', {}, words), !done && href && h('a', { href }, link));
  put(place, card('Nothing has passed through yet',
    h('div', { class: 'greet' },
      h('ol', { class: 'steps' },
        step(accounts.some((one) => one.source !== 'demo'), demo ? 'Add a provider account (until then the built-in demo answers).' : 'Add a provider account.', '#/accounts', 'Add an account'),
        step(false, 'Make a key for your application.', '#/keys', 'Make a key'),
        step(false, 'Send a request; it shows up here at once.')),
      h('div', {}, copyable(curl, { block: true }), demo && button('Send it from here', 'bolt', () => send(body), { kind: 'primary' })))));
}

async function send(body) {
  try {
    const response = await fetch('/v1/chat/completions', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error((await response.json()).error?.message ?? `It was answered with ${response.status}.`);
    say('The request was answered');
  } catch (error) {
    failed(error);
  }
}

