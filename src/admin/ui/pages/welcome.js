// The way from nothing to a first answered request, on top of the live page: shown while something of it is still to be
// done, gone for good once it is done or dismissed.

import { get } from '../api.js';
import { h, put, say } from '../dom.js';
import { feed } from '../feed.js';
import { icon } from '../icons.js';
import { button } from '../page.js';
import { connect, example, hello } from './connect.js';

const DISMISSED = 'merido.welcomed';

function dismissed(value) {
  try {
    return value === undefined ? localStorage.getItem(DISMISSED) : localStorage.setItem(DISMISSED, value);
  } catch {
    return null;
  }
}

/** Puts it into `place` where it is of use. */
export async function welcome({ place, me, signal }) {
  if (dismissed() || me.scope === 'read') return;
  let all;
  try {
    all = await Promise.all([get('/api/models', signal), get('/api/accounts', signal), get('/api/keys?limit=1', signal), get('/api/logs?limit=1', signal)]);
  } catch {
    return;
  }
  const [{ models }, { accounts }, { keys }, { logs }] = all;
  const demo = accounts.some((one) => one.source === 'demo');
  const done = { account: accounts.some((one) => one.source !== 'demo'), key: keys.length > 0, request: logs.length > 0 || feed.total > 0 };
  if (signal.aborted || (done.account && done.request && (done.key || !me.key_required))) return;
  const open = !me.key_required;
  const model = demo ? 'demo/echo' : example(models);
  const gone = () => {
    dismissed('yes');
    put(place);
    document.getElementById('heading')?.focus({ preventScroll: true });
  };
  const marks = {};
  const step = (name, title, words, ...actions) => {
    const mark = h('span', { class: 'mark' });
    const el = h('li', {}, mark, h('div', {}, h('h3', {}, title), h('p', {}, words), actions.length > 0 && h('div', { class: 'tools' }, actions)));
    marks[name] = (yes) => {
      el.classList.toggle('done', yes);
      put(mark, yes ? [icon('check', 14), h('span', { class: 'sr' }, 'Done: ')] : null);
    };
    marks[name](done[name]);
    return el;
  };
  const answer = h('div', { class: 'answer', role: 'status' });
  const trying = button('Send a test request', 'bolt', async () => {
    trying.disabled = true;
    await send(model, answer);
    trying.disabled = false;
    if (!answer.querySelector('.bad')) marks.request(true);
  }, { kind: 'primary' });
  const steps = [
    open && (demo || models.length > 0) && step('request', 'Send a request', demo ? 'The built-in demo model answers until you add an account; no key is needed on this machine.' : `From this page, to ${model}.`, trying),
    step('account', 'Add a provider account', 'With your own API key, or the address of a server of yours. Requests go out with it.', h('a', { class: 'button', href: '#/accounts/new' }, icon('plus'), 'Add an account')),
    step('key', 'Make a key for your application', open ? 'With limits, a budget and models of its own. Optional on this machine.' : 'With limits, a budget and models of its own. Every request needs one.', h('a', { class: 'button', href: '#/keys/new' }, icon('key'), 'Make a key')),
    (!open || !(demo || models.length)) && step('request', 'Send a request', 'With the lines beside; it shows up below at once.'),
  ];
  put(place, h('section', { class: 'card welcome', 'aria-label': 'Get started' },
    h('header', {}, h('div', {}, h('h2', {}, done.request ? 'Get started' : 'Welcome to merido'), h('p', { class: 'faint' }, 'One address for all your models. Three steps, and everything you see here is yours.')),
      button('', 'x', gone, { kind: 'ghost', label: 'Dismiss' })),
    h('div', { class: 'greet' }, h('ol', { class: 'steps' }, steps), h('div', { class: 'aside' }, answer, h('h3', {}, 'From your own program'), connect({ open })))));
}

/** One request as any client would send it, and what was answered. */
async function send(model, place) {
  put(place, h('p', { class: 'faint' }, 'Asking…'));
  const began = performance.now();
  try {
    const response = await fetch('/v1/chat/completions', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(hello(model)) });
    const told = await response.json().catch(() => null);
    if (!response.ok) throw new Error(told?.error?.message ?? `It was answered with ${response.status}.`);
    put(place, h('p', { class: 'who' }, h('b', {}, model), h('span', { class: 'faint' }, ` answered in ${Math.max(1, Math.round(performance.now() - began))} ms`)), h('p', { class: 'said' }, told?.choices?.[0]?.message?.content ?? 'Nothing.'));
    say('The request was answered');
  } catch (error) {
    put(place, h('p', { class: 'bad' }, error.message));
  }
}
