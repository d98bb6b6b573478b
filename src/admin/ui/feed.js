// All that happens, kept for as long as the tab lives: requests in flight, those that ended (capped), and seconds of
// figures for the charts. Fed by `/api/events` of all instances; what happened before is read once from the log.

import { get } from './api.js';
import { throttled } from './dom.js';
import { failing, now } from './fmt.js';
import { Stream } from './sse.js';

/** Ended requests kept. */
const CAP = 500;
/** Seconds of figures kept. */
const SECONDS = 1200;
/** Latencies kept a second: quantiles of more would look the same. */
const SAMPLES = 200;
/** Whatever "runs" longer was lost with its instance. */
const LOST = 30 * 60_000;
/** A hidden tab is left alone for so long before it hangs up. */
const HIDDEN = 60_000;

export const feed = {
  state: 'connecting',
  running: new Map(),
  ended: [],
  instances: new Map(),
  missed: 0,
  total: 0,
  start,
  stop,
  watch,
  series,
  lately,
  loads,
};

const seen = new Set();
const seconds = new Map();
const watchers = new Set();
const tell = throttled(200, () => watchers.forEach((watcher) => watcher()));
let hiding = 0;

const stream = new Stream('/api/events', {
  state(state) {
    if (feed.state === state) return;
    feed.state = state;
    tell();
  },
  event(kind, data) {
    if (kind === 'started') began(data);
    else if (kind === 'completed') ended(data);
    else if (kind === 'gap') feed.missed += data.missed ?? 0;
    tell();
  },
});

let started = false;

function start() {
  if (started) return;
  started = true;
  stream.open();
  seed();
  document.addEventListener('visibilitychange', visible);
}

function stop() {
  if (!started) return;
  started = false;
  stream.close();
  document.removeEventListener('visibilitychange', visible);
  clearTimeout(hiding);
  feed.running.clear();
  feed.ended.length = 0;
  feed.total = 0;
  seen.clear();
  seconds.clear();
}

function visible() {
  clearTimeout(hiding);
  // A browser opens six connections to a host, and each tab's stream is one of them.
  if (document.hidden) hiding = setTimeout(() => stream.close(), HIDDEN);
  else stream.open();
}

/** Calls `watcher` after changes, at most five times a second, until `signal` aborts. */
function watch(watcher, signal) {
  watchers.add(watcher);
  signal?.addEventListener('abort', () => watchers.delete(watcher), { once: true });
}

function met(name) {
  if (name) feed.instances.set(name, now());
}

function began(event) {
  met(event.instance);
  if (seen.has(event.request_id)) return;
  feed.running.set(event.request_id, { ...event, begun: Date.parse(event.time) });
  for (const [id, one] of feed.running) {
    if (now() - one.begun < LOST) break;
    feed.running.delete(id);
  }
}

function ended(event) {
  met(event.instance);
  feed.running.delete(event.request_id);
  if (seen.has(event.request_id)) return;
  const at = Date.parse(event.time);
  keep({ ...event, begun: at - (event.latency_ms ?? 0), at });
  figure(at, 1, event);
}

function keep(row) {
  seen.add(row.request_id);
  feed.total += 1;
  let place = feed.ended.findIndex((one) => one.at <= row.at);
  if (place < 0) place = feed.ended.length;
  feed.ended.splice(place, 0, row);
  // Ids are remembered twice as long as rows: a resumed stream may repeat some.
  if (feed.ended.length > CAP) feed.ended.pop();
  if (seen.size > 4 * CAP) seen.delete(seen.values().next().value);
}

function figure(at, weight, row) {
  const second = Math.floor(at / 1000);
  let slot = seconds.get(second);
  if (!slot) {
    slot = { requests: 0, errors: 0, tokens: 0, cost: 0, latencies: [] };
    seconds.set(second, slot);
    if (seconds.size > SECONDS) for (const key of seconds.keys()) if (key < second - SECONDS) seconds.delete(key);
  }
  slot.requests += weight;
  if (failing(row.status)) slot.errors += weight;
  slot.tokens += weight * ((row.tokens?.prompt ?? 0) + (row.tokens?.completion ?? 0));
  slot.cost += weight * (row.cost_usd ?? 0);
  if (slot.latencies.length < SAMPLES) slot.latencies.push(row.latency_ms ?? 0);
  else slot.latencies[Math.floor(Math.random() * SAMPLES)] = row.latency_ms ?? 0;
}

/** What the log knows of the last minutes. Without it the page only begins empty. */
async function seed() {
  const page = await get('/api/logs?since=15m&limit=500').catch(() => null);
  for (const row of page?.logs ?? []) {
    if (seen.has(row.request_id)) continue;
    const begun = Date.parse(row.time);
    const at = begun + row.latency_ms;
    keep({ ...row, instance: row.request_id.slice(4, 16), begun, at });
    figure(at, row.sampled || 1, row);
  }
  tell();
}

/** The figures of the last `span` seconds in `step`-second buckets: per second, and quantiles in milliseconds. */
function series(span, step) {
  const end = now() / 1000;
  const first = Math.floor(end / step) * step - span + step;
  const out = { times: [], requests: [], errors: [], tokens: [], dollars: [], p50: [], p95: [] };
  for (let from = first; from <= end; from += step) {
    // The bucket that runs now is as long as it has run; at its very beginning it says nothing yet.
    const lasted = Math.min(step, end - from);
    if (lasted < Math.min(1, step / 2)) break;
    const sum = added(from, from + step);
    out.times.push(from * 1000);
    out.requests.push(sum.requests / lasted);
    out.errors.push(sum.errors / lasted);
    out.tokens.push(sum.tokens / lasted);
    out.dollars.push((60 * sum.cost) / lasted);
    out.p50.push(sum.latencies.length ? quantile(sum.latencies, 0.5) : null);
    out.p95.push(sum.latencies.length ? quantile(sum.latencies, 0.95) : null);
  }
  return out;
}

/** One sum over the last `span` seconds. */
function lately(span) {
  const end = Math.ceil(now() / 1000);
  const sum = added(end - span, end + 1);
  const some = sum.latencies.length > 0;
  return { ...sum, p50: some ? quantile(sum.latencies, 0.5) : null, p95: some ? quantile(sum.latencies, 0.95) : null };
}

/** By instance: requests in flight, and ended ones a second over the last `span` seconds (of those that are kept). */
function loads(span) {
  const all = new Map();
  const of = (name) => all.get(name) ?? all.set(name, { running: 0, ended: 0 }).get(name);
  for (const one of feed.running.values()) of(one.instance).running += 1;
  const from = now() - span * 1000;
  for (const row of feed.ended) if (row.at >= from) of(row.instance).ended += 1;
  return all;
}

function added(from, to) {
  const sum = { requests: 0, errors: 0, tokens: 0, cost: 0, latencies: [] };
  for (let second = Math.floor(from); second < to; second += 1) {
    const slot = seconds.get(second);
    if (!slot) continue;
    for (const name of ['requests', 'errors', 'tokens', 'cost']) sum[name] += slot[name];
    sum.latencies.push(...slot.latencies);
  }
  return sum;
}

function quantile(values, q) {
  const sorted = values.slice().sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}
