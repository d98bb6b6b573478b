// Charts as SVG: colours come from the stylesheet, so they follow the theme. Each says in words what it shows; exact
// numbers are under the pointer, and in the tables beside the charts.

import { h, put, s } from './dom.js';
import { minute } from './fmt.js';

const PAD = { top: 8, right: 8, bottom: 18, left: 40 };

/** A little more than the largest, at a number people like. */
function ceiling(most) {
  if (!(most > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * size).find((step) => step >= most * 1.05) ?? most;
}

/** A frame that redraws when its width changes. */
function frame(label, height, draw) {
  const svg = s('svg', { class: 'chart', role: 'img', 'aria-label': label, height });
  const tip = h('div', { class: 'tip', 'aria-hidden': 'true', hidden: true });
  const el = h('div', { class: 'plot' }, svg, tip);
  let width = 0;
  new ResizeObserver(([entry]) => {
    const next = Math.round(entry.contentRect.width);
    if (next && next !== width) {
      width = next;
      svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
      draw();
    }
  }).observe(el);
  return { el, svg, tip, width: () => width };
}

function grid(width, height, top, format) {
  const out = [];
  // Where nothing happened, a scale would say nothing.
  for (const part of top ? [0, 0.5, 1] : [0]) {
    const y = PAD.top + (1 - part) * (height - PAD.top - PAD.bottom);
    out.push(s('line', { class: part ? 'grid' : 'grid axis', x1: PAD.left, x2: width - PAD.right, y1: y, y2: y }));
    out.push(s('text', { class: 'tick', x: PAD.left - 6, y: y + 3.5, 'text-anchor': 'end' }, format(top * part)));
  }
  return out;
}

function showTip(tip, width, x, title, lines) {
  put(tip, h('b', {}, title), lines.map(([name, value, color]) => h('span', {}, h('i', { css: { background: color } }), name, h('em', {}, value))));
  tip.hidden = false;
  const left = x > width / 2 ? x - tip.offsetWidth - 12 : x + 12;
  tip.style.transform = `translate(${Math.max(0, left)}px, 0)`;
}

/** Lines over time. `series`: `{name, color, area, quiet}` (quiet: not drawn while it is all zero); `update({times, values: [[…], …]}, words)`. `null`: nothing known. */
export function lines({ label, series, format, axis = format, height = 132 }) {
  let data = { times: [], values: series.map(() => []) };
  let top = 1;
  const place = frame(label, height, draw);
  const { svg, tip, el } = place;
  const marks = s('g');
  svg.append(marks);
  const x = (n) => PAD.left + (n * (place.width() - PAD.left - PAD.right)) / Math.max(1, data.times.length - 1);
  const y = (value) => PAD.top + (1 - value / top) * (height - PAD.top - PAD.bottom);

  function draw() {
    if (!place.width()) return;
    const most = Math.max(0, ...data.values.flat().filter((v) => v !== null));
    const parts = grid(place.width(), height, most && ceiling(most), axis);
    top = ceiling(most);
    const last = data.times.length - 1;
    for (const [n, anchor] of [[0, 'start'], [Math.round(last / 2), 'middle'], [last, 'end']]) {
      if (last > 1) parts.push(s('text', { class: 'tick', x: x(n), y: height - 3, 'text-anchor': anchor }, minute(data.times[n])));
    }
    series.forEach((one, n) => {
      const points = data.values[n].map((value, i) => (value === null ? null : [x(i), y(value)])).filter(Boolean);
      if (!points.length || (one.quiet && !data.values[n].some(Boolean))) return;
      const path = points.map(([px, py], i) => `${i ? 'L' : 'M'}${px.toFixed(1)} ${py.toFixed(1)}`).join('');
      const [from, to] = [points[0][0].toFixed(1), points.at(-1)[0].toFixed(1)];
      if (one.area) parts.push(s('path', { class: `area ${one.color}`, d: `${path}L${to} ${y(0)}L${from} ${y(0)}Z` }));
      parts.push(s('path', { class: `line ${one.color}`, d: path }));
      if (points.length === 1) parts.push(s('circle', { class: `dot ${one.color}`, cx: points[0][0], cy: points[0][1], r: 2 }));
    });
    marks.replaceChildren(...parts);
  }

  const cross = s('line', { class: 'cross', y1: PAD.top, y2: height - PAD.bottom, visibility: 'hidden' });
  svg.append(cross);
  el.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const last = data.times.length - 1;
    if (last < 1) return;
    const n = Math.max(0, Math.min(last, Math.round(((event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right)) * last)));
    cross.setAttribute('x1', x(n));
    cross.setAttribute('x2', x(n));
    cross.setAttribute('visibility', 'visible');
    showTip(tip, place.width(), x(n), minute(data.times[n]) + new Date(data.times[n]).toLocaleTimeString('en-GB').slice(5), series.map((one, i) => [one.name, data.values[i][n] === null ? '–' : format(data.values[i][n]), `var(--${one.color})`]));
  });
  el.addEventListener('pointerleave', () => {
    cross.setAttribute('visibility', 'hidden');
    tip.hidden = true;
  });
  return {
    el,
    update(next, words) {
      data = next;
      draw();
      if (words) svg.setAttribute('aria-label', words);
    },
  };
}

/** Stacked bars. `columns`: `{name, title}`; `stacks`: `{name, color, values}`. */
export function bars({ label, columns, stacks, format, axis = format, height = 220 }) {
  const sums = columns.map((_, n) => stacks.reduce((sum, one) => sum + one.values[n], 0));
  const top = ceiling(Math.max(0, ...sums));
  const place = frame(label, height, draw);
  const { svg, tip, el } = place;
  function draw() {
    const width = place.width();
    const inner = width - PAD.left - PAD.right - 8;
    const step = inner / columns.length;
    const thick = Math.max(2, Math.min(44, step * 0.68));
    const tall = height - PAD.top - PAD.bottom;
    const parts = grid(width, height, top, axis);
    const every = Math.ceil(columns.length / Math.max(2, Math.floor(inner / 64)));
    columns.forEach((column, n) => {
      const middle = PAD.left + 8 + (n + 0.5) * step;
      let at = PAD.top + tall;
      for (const one of stacks) {
        const size = (one.values[n] / top) * tall;
        if (size <= 0) continue;
        at -= size;
        parts.push(s('rect', { class: `bar ${one.color}`, x: middle - thick / 2, y: at, width: thick, height: Math.max(0.5, size - (size > 3 ? 1 : 0)), rx: Math.min(2, size / 2) }));
      }
      if (n % every === 0) parts.push(s('text', { class: 'tick', x: middle, y: height - 3, 'text-anchor': 'middle' }, column.name));
      const hit = s('rect', { class: 'hit', x: middle - step / 2, y: PAD.top, width: step, height: tall });
      hit.addEventListener('pointerenter', () => showTip(tip, width, middle, column.title ?? column.name, [
        ...stacks.filter((one) => one.values[n] > 0).map((one) => [one.name, format(one.values[n]), `var(--${one.color})`]),
        ['Total', format(sums[n]), 'transparent'],
      ]));
      parts.push(hit);
    });
    svg.replaceChildren(...parts);
  }
  el.addEventListener('pointerleave', () => { tip.hidden = true; });
  const legend = h('ul', { class: 'legend' }, stacks.map((one) => h('li', {}, h('i', { class: one.color }), one.name)));
  return h('div', {}, el, stacks.length > 1 && legend);
}

/** A share as a bar. */
export function meter(part, { label, kind = '' } = {}) {
  const share = Math.max(0, Math.min(1, part || 0));
  return h('span', { class: `meter ${kind}`, role: 'meter', 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': Math.round(100 * share) }, h('span', { css: { width: `${(100 * share).toFixed(1)}%` } }));
}
