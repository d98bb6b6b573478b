'use strict';
// Draws a comparison from its JSON. Text goes in as text, never as markup: names in a report are data.
const report = JSON.parse(document.getElementById('data').textContent);
const main = document.getElementById('main');
main.replaceChildren();
const SVG = 'http://www.w3.org/2000/svg';

function make(parent, tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  parent.appendChild(node);
  return node;
}
function draw(parent, tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}
function spread(values) {
  const all = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v)).sort((a, b) => a - b);
  if (!all.length) return null;
  const half = all.length / 2;
  const median = all.length % 2 ? all[Math.floor(half)] : (all[half - 1] + all[half]) / 2;
  return { median, least: all[0], most: all[all.length - 1] };
}
const figure = (value, digits) => value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
const color = (index) => `var(--c${index % 8})`;

// ---- plots -------------------------------------------------------------------------------------------------------
const W = 520, H = 300, L = 56, R = 28, T = 12, B = 40;
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return ticks.length > 9 ? ticks.filter((value) => /^1/.test(value.toExponential())) : ticks;
}
function short(value) {
  if (value >= 1e6) return `${value / 1e6} M`;
  if (value >= 1e3) return `${value / 1e3} k`;
  return `${+value.toPrecision(3)}`;
}
function microseconds(value) {
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)} s`;
  if (value >= 1e3) return `${+(value / 1e3).toPrecision(3)} ms`;
  return `${+value.toPrecision(3)} µs`;
}
// x and y: { of: value -> 0..1, ticks: [value], text: value -> string, name }
function plot(parent, title, x, y, lines, marks) {
  const box = make(parent, 'figure');
  make(box, 'h3', title);
  const svg = draw(box, 'svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': title });
  const px = (value) => L + x.of(value) * (W - L - R);
  const py = (value) => H - B - y.of(value) * (H - T - B);
  for (const tick of y.ticks) {
    draw(svg, 'line', { class: 'grid', x1: L, x2: W - R, y1: py(tick), y2: py(tick) });
    draw(svg, 'text', { x: L - 6, y: py(tick) + 4, 'text-anchor': 'end' }, y.text(tick));
  }
  for (const tick of x.ticks) {
    draw(svg, 'line', { class: 'grid', x1: px(tick), x2: px(tick), y1: T, y2: H - B });
    draw(svg, 'text', { x: px(tick), y: H - B + 15, 'text-anchor': 'middle' }, x.text(tick));
  }
  draw(svg, 'line', { class: 'axis', x1: L, x2: W - R, y1: H - B, y2: H - B });
  draw(svg, 'line', { class: 'axis', x1: L, x2: L, y1: T, y2: H - B });
  draw(svg, 'text', { x: (L + W - R) / 2, y: H - 6, 'text-anchor': 'middle' }, `${x.name} / ${y.name}`);
  for (const mark of marks || []) draw(svg, 'line', { class: 'mark', x1: L, x2: W - R, y1: py(mark), y2: py(mark) });
  for (const line of lines) {
    const points = line.points.map((p) => `${px(p.x).toFixed(1)},${py(p.y).toFixed(1)}`).join(' ');
    if (line.joined !== false) draw(svg, 'polyline', { points, fill: 'none', stroke: line.color, 'stroke-width': 2 });
    if (line.dots) {
      for (const p of line.points) {
        const dot = draw(svg, 'circle', { cx: px(p.x), cy: py(p.y), r: 4, fill: p.hollow ? 'none' : line.color, stroke: line.color });
        draw(dot, 'title', {}, `${line.name}: ${x.text(p.x)}, ${y.text(p.y)}`);
      }
    }
  }
}
function logScale(values, name, text) {
  const good = values.filter((v) => v > 0);
  const low = Math.min(...good) / 1.15, high = Math.max(...good) * 1.15;
  const of = (v) => (Math.log(Math.max(v, low)) - Math.log(low)) / (Math.log(high) - Math.log(low));
  return { of, ticks: logTicks(low, high), text, name };
}
function linearScale(values, name, text) {
  const high = Math.max(...values) * 1.08 || 1;
  const step = 10 ** Math.floor(Math.log10(high / 4));
  const nice = [1, 2, 5, 10].map((n) => n * step).find((n) => high / n <= 6);
  const ticks = [];
  for (let tick = 0; tick <= high; tick += nice) ticks.push(tick);
  return { of: (v) => v / high, ticks, text, name };
}
// Percentiles spread out towards the end: each nine takes as much room.
const NINES = { of: (q) => Math.min(1, -Math.log10(Math.max(1 - q, 1e-5)) / 5), ticks: [0, 0.9, 0.99, 0.999, 0.9999, 0.99999],
  text: (q) => `${+(q * 100).toFixed(3)} %`, name: 'percentile' };

// ---- one table ---------------------------------------------------------------------------------------------------
function section(table) {
  const work = table.work;
  make(main, 'h2', `${work.name} · upstream ${table.upstream}`);
  const bases = table.bases.map((basis) => `${basis.name} (${basis.about})`).join('; ');
  make(main, 'p', `${work.about}. Basis: ${bases}. ${work.load.seconds} s a turn.`);
  if (table.held.length) return held(table);
  if (table.steps.length) return ramp(table);
  const of = (peer, get) => table.rounds.filter((r) => r.peer === peer).map(get);
  const pairs = (peer, other, get, both) => {
    const theirs = of(other, get);
    return of(peer, get).map((own, i) => (own === null || theirs[i] === null ? null : both(own, theirs[i])));
  };
  const cpu = (r) => (r.process ? r.process.cpu_us_per_request : null);
  const columns = [
    ['req/s', (p) => of(p, (r) => (r.outcome.answered + r.outcome.abandoned) / r.outcome.seconds), 0],
    ['CPU µs/req', (p) => of(p, cpu), 1],
    [`× ${table.against}`, (p) => (p === table.against || p === 'direct' ? [] : pairs(p, table.against, cpu, (a, b) => a / b)), 2],
    ['p50 µs', (p) => of(p, (r) => r.outcome.latency.p50_us || null), 0],
    ['p99 µs', (p) => of(p, (r) => r.outcome.latency.p99_us || null), 0],
    ['event p99 µs', (p) => of(p, (r) => (r.outcome.event_delay ? r.outcome.event_delay.p99_us : null)), 0],
    ['RSS MiB', (p) => of(p, (r) => (r.process ? r.process.rss_mib : null)), 1],
    ['Redis cmd/req', (p) => of(p, (r) => (r.redis ? r.redis.commands_per_request : null)), 4],
  ];
  grid(table.peers, columns.filter(([, get]) => table.peers.some((p) => spread(get(p)))), table.peers.map((peer) =>
    of(peer, (r) => Object.values(r.outcome.failed).reduce((a, b) => a + b, 0)).reduce((a, b) => a + b, 0)));
  const plots = make(main, 'div', null, { class: 'plots' });
  const curves = table.peers.map((peer, i) => {
    const rounds = of(peer, (r) => r.outcome.curve).filter((curve) => curve.length && curve[0][1] > 0);
    const points = rounds.length ? rounds[0].map(([q], at) => ({ x: q, y: spread(rounds.map((c) => c[at][1])).median })) : [];
    return { name: peer, color: color(i), points };
  }).filter((line) => line.points.length);
  if (curves.length) {
    const y = logScale(curves.flatMap((line) => line.points.map((p) => p.y)), 'latency', microseconds);
    plot(plots, 'Latency by percentile', NINES, y, curves);
  }
  const dots = table.peers.map((peer, i) => ({ name: peer, color: color(i), dots: true, joined: false,
    points: table.rounds.filter((r) => r.peer === peer && r.outcome.latency.count).map((r) => ({ x: r.outcome.per_second, y: r.outcome.latency.p99_us })) }))
    .filter((line) => line.points.length);
  if (dots.length) {
    plot(plots, 'Throughput and p99, a dot a round', linearScale(dots.flatMap((l) => l.points.map((p) => p.x)), 'requests a second', short),
      logScale(dots.flatMap((l) => l.points.map((p) => p.y)), 'p99', microseconds), dots);
  }
  bars(plots, 'CPU per request, µs', table.peers.map((peer) => spread(of(peer, cpu))), table.peers);
  bars(plots, 'Resident memory, MiB', table.peers.map((peer) => spread(of(peer, (r) => (r.process ? r.process.rss_mib : null)))), table.peers);
}
function grid(peers, columns, failed) {
  const node = make(make(main, 'div', null, { class: 'scroll' }), 'table');
  const head = make(make(node, 'thead'), 'tr');
  for (const name of ['', ...columns.map(([name]) => name), ...(failed ? ['failed'] : [])]) make(head, 'th', name);
  const body = make(node, 'tbody');
  peers.forEach((peer, i) => {
    const row = make(body, 'tr');
    const first = make(row, 'td');
    make(first, 'span', null, { class: 'swatch', style: `background:${color(i)}` });
    first.append(peer);
    for (const [, get, digits] of columns) {
      const value = spread(get(peer));
      const cell = make(row, 'td', value ? figure(value.median, digits) : '–');
      if (value && value.least !== value.most) make(cell, 'small', `${figure(value.least, digits)}–${figure(value.most, digits)}`);
    }
    if (failed) make(row, 'td', failed[i], failed[i] ? { class: 'bad' } : {});
  });
}
function bars(parent, title, values, peers) {
  const high = Math.max(...values.map((v) => (v ? v.most : 0)));
  if (!high) return;
  const box = make(parent, 'figure');
  make(box, 'h3', title);
  const row = 26, height = peers.length * row + 6;
  const svg = draw(box, 'svg', { viewBox: `0 0 ${W} ${height}`, role: 'img', 'aria-label': title });
  peers.forEach((peer, i) => {
    const y = i * row + 4, room = W - 250;
    draw(svg, 'text', { x: 150, y: y + 13, 'text-anchor': 'end' }, peer.length > 26 ? `${peer.slice(0, 25)}…` : peer);
    if (!values[i]) return;
    draw(svg, 'rect', { x: 158, y, width: Math.max(1, (values[i].median / high) * room), height: 18, rx: 2, fill: color(i) });
    draw(svg, 'text', { x: 164 + (values[i].median / high) * room, y: y + 13 }, figure(values[i].median, values[i].median < 100 ? 1 : 0));
  });
}
function ramp(table) {
  const best = (peer) => {
    const rounds = [...new Set(table.steps.map((s) => s.round))];
    return rounds.map((round) => Math.max(0, ...table.steps.filter((s) => s.peer === peer && s.round === round && s.held).map((s) => s.rate)));
  };
  const limit = table.work.load.ramp.break_p99_ms;
  grid(table.peers, [[`highest rate with p99 ≤ ${limit} ms`, best, 0]]);
  const plots = make(main, 'div', null, { class: 'plots' });
  const lines = (get) => table.peers.map((peer, i) => {
    const rates = [...new Set(table.steps.filter((s) => s.peer === peer).map((s) => s.rate))].sort((a, b) => a - b);
    const points = rates.map((rate) => {
      const steps = table.steps.filter((s) => s.peer === peer && s.rate === rate);
      return { x: rate, y: spread(steps.map(get)).median, hollow: steps.some((s) => !s.held) };
    });
    return { name: peer, color: color(i), dots: true, points };
  });
  const p99 = lines((s) => s.outcome.latency.p99_us);
  const x = logScale(p99.flatMap((l) => l.points.map((p) => p.x)), 'requests a second due', short);
  const y = logScale([...p99.flatMap((l) => l.points.map((p) => p.y)), limit * 1000], 'p99 from when due', microseconds);
  plot(plots, 'Frontier: rate and p99 (hollow: not carried)', x, y, p99, [limit * 1000]);
  const cpu = lines((s) => s.process.cpu_us_per_request);
  plot(plots, 'CPU per request by rate', x, linearScale(cpu.flatMap((l) => l.points.map((p) => p.y)), 'µs', short), cpu);
}
function held(table) {
  const rows = (peer) => table.held.filter((r) => r.peer === peer && r.round === 0);
  const slope = (peer) => {
    const all = rows(peer);
    const [first, last] = [all[0], all[all.length - 1]];
    return all.length > 1 ? [((last.rss_mib - first.rss_mib) * 1024) / (last.open - first.open)] : [];
  };
  const last = (peer, get) => rows(peer).slice(-1).map(get);
  grid(table.peers, [
    ['streams open', (p) => last(p, (r) => r.open), 0],
    ['RSS MiB', (p) => last(p, (r) => r.rss_mib), 1],
    ['KiB a stream, first to last step', slope, 1],
    ['event p99 µs', (p) => last(p, (r) => r.event_delay.p99_us), 0],
  ], table.peers.map((p) => last(p, (r) => Object.values(r.lost).reduce((a, b) => a + b, 0))[0] || 0));
  const plots = make(main, 'div', null, { class: 'plots' });
  const lines = table.peers.map((peer, i) => ({ name: peer, color: color(i), dots: true,
    points: rows(peer).map((r) => ({ x: r.open, y: r.rss_mib })) }));
  plot(plots, 'Memory by open streams', linearScale(lines.flatMap((l) => l.points.map((p) => p.x)), 'streams open', short),
    linearScale(lines.flatMap((l) => l.points.map((p) => p.y)), 'RSS MiB', short), lines);
}

make(main, 'h1', 'Load test');
const facts = make(main, 'dl');
const fact = (name, value) => { make(facts, 'dt', name); make(facts, 'dd', value); };
fact('Date', new Date(report.unix_time * 1000).toISOString().slice(0, 16).replace('T', ' ') + ' UTC');
fact('Machine', report.machine);
fact('Load average before', report.loadavg);
for (const [peer, version] of Object.entries(report.versions)) fact(peer, version);
if (report.skipped.length) fact('Left out', `${report.skipped.join(', ')}: not on this machine`);
make(make(facts, 'dt', 'Command'), 'span');
make(make(facts, 'dd'), 'code', report.command);
make(main, 'p', 'Medians with least and greatest of all rounds. Sides take turns within each round; a ratio is taken within a round, then its median. '
  + 'Generator, proxy and mock provider share one machine: trust the ratios.');
report.tables.forEach(section);
