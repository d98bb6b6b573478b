// The shell: who is here, which page, the frame around it. Pages are modules of their own, loaded when first asked for;
// each gets a signal that aborts when it is left, so nothing of an old page ever writes into a new one.

import { get, onLost, call } from './api.js';
import { failed } from './dialog.js';
import { h, put, say } from './dom.js';
import { feed } from './feed.js';
import { icon } from './icons.js';
import { broken } from './page.js';

const PAGES = [
  ['live', 'Live', 'pulse', () => import('./pages/live.js')],
  ['logs', 'Logs', 'list', () => import('./pages/logs.js')],
  ['usage', 'Usage', 'bars', () => import('./pages/usage.js')],
  null,
  ['accounts', 'Accounts', 'plug', () => import('./pages/accounts.js')],
  ['models', 'Models', 'layers', () => import('./pages/models.js')],
  ['keys', 'Keys', 'key', () => import('./pages/keys.js')],
  null,
  ['cluster', 'Cluster', 'server', () => import('./pages/cluster.js')],
  ['audit', 'Audit', 'history', () => import('./pages/audit.js')],
  ['settings', 'Settings', 'gear', () => import('./pages/settings.js')],
];
const THEMES = [['auto', 'System theme'], ['sun', 'Light theme'], ['moon', 'Dark theme']];

const app = document.getElementById('app');
let me = null;
let leaving = new AbortController();
let shell = null;

onLost(() => {
  if (!me) return;
  me = null;
  feed.stop();
  showLogin('Your session is over. Log in again to go on.');
});
addEventListener('hashchange', route);
dispatchEvent(new Event('merido:up'));
boot();

async function boot() {
  leaving.abort();
  leaving = new AbortController();
  try {
    me = await get('/api/me', leaving.signal);
  } catch (error) {
    if (leaving.signal.aborted) return;
    if (error.status === 401) return showLogin('');
    put(app, h('main', { class: 'alone' }, broken(error, boot)));
    return;
  }
  feed.start();
  frame();
  route();
}

async function showLogin(words) {
  leaving.abort();
  leaving = new AbortController();
  shell = null;
  document.querySelectorAll('dialog[open]').forEach((one) => one.close());
  document.title = 'Log in · merido';
  const { default: login } = await import('./pages/login.js');
  put(app, login({ words, done: boot, signal: leaving.signal }));
  app.querySelector('input')?.focus();
}

function frame() {
  const links = new Map();
  const nav = h('nav', { 'aria-label': 'Pages', id: 'nav' }, PAGES.map((one) => {
    if (!one) return h('hr');
    const link = h('a', { href: `#/${one[0]}` }, icon(one[2], 18), h('span', {}, one[1]));
    links.set(one[0], link);
    return link;
  }));
  const status = h('p', { class: 'status' });
  const toggle = h('button', {
    type: 'button', class: 'ghost square menu', 'aria-label': 'Menu', 'aria-expanded': 'false', 'aria-controls': 'side',
    onclick: () => open(side.dataset.open !== 'true'),
  }, icon('menu', 20));
  const side = h('header', { class: 'side', id: 'side' },
    h('div', { class: 'brand' }, h('a', { href: '#/live', 'aria-label': 'merido, to the live page' }, mark(), h('b', {}, 'merido')), toggle),
    nav,
    h('div', { class: 'foot' }, status, h('div', { class: 'row' }, themeButton(), me.kind === 'session' && h('button', { type: 'button', class: 'ghost', onclick: logout }, icon('out'), 'Log out'))));
  const main = h('main', { id: 'main', tabindex: '-1' });
  const skip = h('a', { class: 'skip', href: '#main', onclick: (event) => { event.preventDefault(); main.focus(); } }, 'Skip to content');
  put(app, skip, h('div', { class: 'shell' }, side, h('div', { class: 'content' }, banner(), main)));
  function open(yes) {
    side.dataset.open = String(yes);
    toggle.setAttribute('aria-expanded', String(yes));
  }
  open(false);
  side.addEventListener('keydown', (event) => { if (event.key === 'Escape') { open(false); toggle.focus(); } });
  shell = { main, links, open };
  const life = new AbortController();
  feed.watch(() => {
    if (!status.isConnected) return life.abort();
    showStatus(status);
  }, life.signal);
  showStatus(status);
  watchRests(links.get('accounts'), life.signal);
}

/** Beside "Accounts", how many rest: whoever looks at another page should know. */
async function watchRests(link, signal) {
  const mark = h('span', { class: 'count', hidden: true });
  link.append(mark);
  for (;;) {
    if (!link.isConnected || signal.aborted) return;
    if (!document.hidden) {
      const told = await get('/api/cooldowns', signal).catch(() => null);
      const many = new Set(told?.cooldowns.map((one) => one.account)).size;
      if (told) {
        mark.hidden = many === 0;
        put(mark, String(many), h('span', { class: 'sr' }, many === 1 ? ' has a rest' : ' have a rest'));
      }
    }
    await new Promise((done) => { setTimeout(done, 10_000); });
  }
}

function showStatus(place) {
  const words = { live: 'Live', connecting: 'Connecting', offline: 'Reconnecting', paused: 'Paused' }[feed.state];
  const kind = { live: 'ok', connecting: 'warn', offline: 'bad', paused: '' }[feed.state];
  const running = feed.running.size;
  const more = feed.state === 'live' && running ? ` · ${running} in flight` : '';
  if (place.dataset.words === words + more) return;
  if (place.dataset.state && place.dataset.state !== feed.state && feed.state === 'offline') say('Live updates are interrupted; reconnecting');
  place.dataset.words = words + more;
  place.dataset.state = feed.state;
  put(place, h('i', { class: `light ${kind}` }), words + more);
}

function banner() {
  if (me.password_set) return null;
  return h('aside', { class: 'banner', 'aria-label': 'No password' }, icon('warn'),
    h('p', {}, h('b', {}, 'Open mode: no password is set.'), ' Anybody on this machine can change everything here. ', h('a', { href: '#/settings' }, 'Set a password'), '.'));
}

const mark = () => h('img', { src: '/ui/icon.svg', width: 24, height: 24, alt: '' });

function themeButton() {
  const chosen = () => ({ light: 1, dark: 2 })[document.documentElement.dataset.theme] ?? 0;
  const button = h('button', { type: 'button', class: 'ghost square', onclick: () => set((chosen() + 1) % 3) });
  function set(n) {
    const theme = ['', 'light', 'dark'][n];
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem('merido.theme', theme);
    } catch { /* then it lasts as long as the tab */ }
    show(n);
    say(THEMES[n][1]);
  }
  function show(n) {
    const words = `${THEMES[n][1]}; switch to ${THEMES[(n + 1) % 3][1].toLowerCase()}`;
    button.setAttribute('aria-label', words);
    button.title = words;
    put(button, icon(THEMES[n][0]));
  }
  show(chosen());
  return button;
}

async function logout() {
  try {
    await call('POST', '/api/logout');
  } catch (error) {
    if (error.status !== 401) return failed(error);
  }
  me = null;
  feed.stop();
  showLogin('You are logged out.');
}

async function route() {
  if (!me || !shell) return;
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [name, ...rest] = path.split('/');
  const page = PAGES.find((one) => one && one[0] === name) ?? PAGES[0];
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  document.querySelectorAll('dialog[open]').forEach((one) => one.close());
  for (const [key, link] of shell.links) {
    if (key === page[0]) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  shell.open(false);
  document.title = `${page[1]} · merido`;
  const module = await page[3]().catch(() => null);
  if (signal.aborted) return;
  const root = h('div', { class: `page ${page[0]}` });
  put(shell.main, root);
  scrollTo(0, 0);
  if (!module) return put(root, broken({ message: 'A part of the dashboard could not be fetched. It may have been updated.' }, () => location.reload()));
  module.default({ root, me, signal, rest: rest.map(decodeURIComponent), query: new URLSearchParams(search), again: boot });
  if (document.activeElement === document.body || shell.links.get(page[0]) === document.activeElement) {
    root.querySelector('h1')?.focus({ preventScroll: true });
  }
  say(page[1]);
}
