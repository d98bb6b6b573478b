// What all pages share: a head, loading that never flashes, a table that becomes cards on a phone, live countdowns.

import { get } from './api.js';
import { h, keepFocus, put } from './dom.js';
import { ago, now, span } from './fmt.js';
import { icon } from './icons.js';

/** A page's head: title, one line about it, what can be done. */
export function head(title, about, ...actions) {
  return h('div', { class: 'head' }, h('div', {}, h('h1', { id: 'heading', tabindex: '-1' }, title), about && h('p', {}, about)), actions.length > 0 && h('div', { class: 'tools' }, actions));
}

/** A box with a title. */
export function card(title, ...kids) {
  return h('section', { class: 'card', 'aria-label': title || null }, title && h('h2', {}, title), kids);
}

/** Nothing there (yet), and what to do about it. */
export function empty(name, title, words, ...actions) {
  return h('div', { class: 'empty' }, h('span', { class: 'badge-icon' }, icon(name, 22)), h('h2', {}, title), h('p', {}, words), actions.length > 0 && h('div', { class: 'tools' }, actions));
}

/** A small word of a state, never by colour alone. */
export const badge = (words, kind = '', title) => h('span', { class: `badge ${kind}`, title }, words);

/** A button. */
export function button(words, name, onclick, { kind = '', label, focus, disabled } = {}) {
  return h('button', { type: 'button', class: `${kind} ${words ? '' : 'square'}`, 'aria-label': label, title: words ? null : label, onclick, disabled, data: focus ? { focus } : null }, name && icon(name), words);
}

/**
 * Loads `paths` and renders their answers into `root`; again every `every` ms while the tab is seen. What did not change
 * is not rendered anew. Answers a function that loads at once.
 */
export function load(ctx, root, paths, render, { every = 0 } = {}) {
  let before = '';
  let shown = false;
  let timer = 0;
  let wave = 0;
  put(root, skeleton());
  const old = h('p', { class: 'callout warn', role: 'status', hidden: true }, icon('warn'), h('span', {}, 'This is not up to date: the gateway does not answer. Trying again…'));
  root.before(old);
  async function again() {
    clearTimeout(timer);
    const mine = ++wave;
    try {
      const answers = await Promise.all(paths.map((path) => get(typeof path === 'function' ? path() : path, ctx.signal)));
      if (ctx.signal.aborted || mine !== wave) return;
      root.classList.remove('stale');
      old.hidden = true;
      const text = JSON.stringify(answers);
      if (text !== before || !shown) {
        before = text;
        shown = true;
        keepFocus(root, () => put(root, render(...answers)));
      }
    } catch (error) {
      if (ctx.signal.aborted || mine !== wave || error.status === 401) return;
      before = '';
      if (shown) {
        root.classList.add('stale');
        old.hidden = false;
      } else put(root, broken(error, () => { put(root, skeleton()); again(); }));
    }
    if (every && !ctx.signal.aborted) timer = setTimeout(() => (document.hidden ? later() : again()), every);
  }
  function later() {
    document.addEventListener('visibilitychange', again, { once: true, signal: ctx.signal });
  }
  ctx.signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  again();
  return again;
}

/** Stands where something is on its way. */
export function skeleton() {
  return h('div', { class: 'skeleton', 'aria-busy': 'true' }, h('span', { class: 'sr' }, 'Loading'), [1, 2, 3, 4].map(() => h('i')));
}

/** It could not be loaded. */
export function broken(error, retry) {
  return h('div', { class: 'empty', role: 'alert' }, h('span', { class: 'badge-icon bad' }, icon('warn', 22)), h('h2', {}, 'This could not be loaded'), h('p', {}, error.message), retry && button('Try again', 'rotate', retry));
}

/** A table. `cols`: `{head, cell(row), num, wide, hide}`. On a phone each row is a card with the heads as labels. */
export function table({ label, cols, rows, none, row: dress, kind }) {
  if (!rows.length && none) return none;
  const headRow = h('tr', { role: 'row' }, cols.map((col) => h('th', { scope: 'col', role: 'columnheader', class: classes(col) }, col.head || h('span', { class: 'sr' }, col.sr ?? 'Actions'))));
  const body = rows.map((row) => {
    const tr = h('tr', { role: 'row' }, cols.map((col) => h('td', { role: 'cell', class: classes(col), data: { label: col.head ?? '' } }, col.cell(row))));
    dress?.(tr, row);
    return tr;
  });
  return h('div', { class: 'scroll' }, h('table', { role: 'table', 'aria-label': label, class: kind }, h('thead', { role: 'rowgroup' }, headRow), h('tbody', { role: 'rowgroup' }, body)));
}

const classes = (col) => [col.num && 'num', col.cls, col.hide && 'hide-phone'].filter(Boolean).join(' ') || null;

/** A moment as "3 m ago", its exact form on hover, kept up to date. */
export function since(at) {
  if (!at) return h('span', { class: 'faint' }, '–');
  return h('time', { datetime: at, title: new Date(at).toLocaleString(), data: { ago: at } }, ago(at));
}

/** How long until then, counted down. `ms`: from now, by the server's word. */
export function countdown(ms) {
  return h('time', { class: 'countdown', data: { until: String(now() + ms) } }, span(ms));
}

setInterval(() => {
  if (document.hidden) return;
  for (const node of document.querySelectorAll('[data-until]')) {
    const left = Number(node.dataset.until) - now();
    const words = left > 0 ? span(Math.ceil(left / 1000) * 1000) : 'now';
    if (node.textContent !== words) node.textContent = words;
  }
  for (const node of document.querySelectorAll('[data-ago]')) {
    const words = ago(node.dataset.ago);
    if (node.textContent !== words) node.textContent = words;
  }
}, 1000);
