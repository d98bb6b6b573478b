// Cluster: which instances serve, whether they agree, how Redis is, how far events lag.

import { h, put } from '../dom.js';
import { feed } from '../feed.js';
import { count, ms, now, rate, span } from '../fmt.js';
import { badge, head, load, since, table } from '../page.js';

/** What an instance's rate is taken over, seconds: few enough that all its requests are still in the feed. */
const RECENT = 10;

export default function cluster({ root, signal }) {
  const place = h('div');
  put(root, head('Cluster', 'Instances that share one store, and Redis between them.'), place);
  load({ signal }, place, ['/api/cluster', '/healthz'], (all, health) => {
    const own = all.instances[0].catalog;
    const versions = new Set(all.instances.map((one) => one.version)).size;
    const { redis } = all;
    const loads = feed.loads(RECENT);
    const load = (row) => loads.get(row.id) ?? { running: 0, ended: 0 };
    return [
      h('div', { class: 'tiles four' },
        fact('Instances', count(all.instances.length), versions > 1 ? `${versions} different versions` : `version ${all.instances[0].version}`),
        fact('Redis', badge(redis.state, { ok: 'ok', down: 'bad', off: '' }[redis.state]), redisWords(redis)),
        fact('Store', badge(health.store, health.store === 'ok' ? 'ok' : 'bad'), health.store === 'ok' ? 'answers; catalog is fresh' : 'not read for seconds; requests go on from memory'),
        fact('Event lag', all.event_lag_ms === null ? '–' : ms(all.event_lag_ms), all.event_lag_ms === null ? 'nothing from others yet' : 'from other instances to here')),
      redis.state === 'down' && h('p', { class: 'callout bad' }, `Redis is down${redis.reason ? `: ${redis.reason}` : ''}. Requests go on; limits follow the policy for that.`),
      h('section', { class: 'card flush' }, table({
        label: 'Instances',
        rows: all.instances,
        cols: [
          { head: 'Instance', cls: 'main', cell: (row) => h('span', { class: 'chips' }, h('code', {}, row.id), row.self && badge('this one', 'info')) },
          { head: 'State', cell: (row) => (row.self || row.last_seen_ms < 5000 ? badge('serving', 'ok') : badge(`silent for ${span(row.last_seen_ms)}`, 'warn')) },
          { head: 'Version', cell: (row) => row.version },
          { head: 'Catalog', cell: (row) => h('span', {}, h('code', { title: `version ${row.catalog_version} here` }, row.catalog.slice(0, 8)), ' ', row.catalog !== own && badge('differs', 'warn', 'It serves by other keys, accounts or models than this one; news is on its way')) },
          { head: 'In flight', num: true, cell: (row) => count(load(row).running) },
          { head: 'Requests', num: true, cell: (row) => `${rate(load(row).ended / RECENT)} /s` },
          { head: 'Up for', cell: (row) => span(now() - new Date(row.started_at).getTime()) },
          { head: 'Started', cell: (row) => since(row.started_at), hide: true },
        ],
      })),
      h('section', { class: 'card' }, h('h2', {}, 'Shared state'), h('dl', { class: 'pairs' },
        pair('Deployment', h('code', {}, all.deployment)),
        pair('Redis round trip', redis.rtt_p50_us === null ? '–' : `p50 ${ms(redis.rtt_p50_us / 1000)}, p99 ${ms((redis.rtt_p99_us ?? 0) / 1000)}`),
        pair('Waiting for Redis', count(redis.queue)),
        pair('Leases held', `${count(all.leases.requests)} requests for ${count(all.leases.subjects)} keys, ${count(all.leases.slots)} parallel slots`),
        pair('Dropped on the way out', count(all.outbox_dropped)))),
    ];
  }, { every: 2000 });
}

function redisWords(redis) {
  if (redis.state === 'off') return 'not set up: this instance is on its own';
  const trip = redis.rtt_p50_us === null ? '' : `, ${ms(redis.rtt_p50_us / 1000)} a round trip`;
  return redis.since ? `for ${span(now() - new Date(redis.since).getTime())}${trip}` : `connected${trip}`;
}

const pair = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
const fact = (title, value, words) => h('section', { class: 'card tile', 'aria-label': title }, h('h2', {}, title), h('div', { class: 'big' }, h('strong', {}, value)), h('p', {}, words));
