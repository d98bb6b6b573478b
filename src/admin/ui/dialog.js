// What comes on top: dialogs (the browser's own: focus stays inside, Escape closes), questions, notes, the clipboard.

import { h, put, say, uid } from './dom.js';
import { icon } from './icons.js';

/** Opens a dialog. `body`: nodes. Closing, however it happens, calls `closed`. Answers `{el, close}`. */
export function dialog({ title, body, foot, kind = 'modal', closed }) {
  const name = uid('title');
  const close = () => el.close();
  const from = document.activeElement;
  const el = h('dialog', { class: kind, 'aria-labelledby': name },
    h('div', { class: 'sheet' },
      h('header', {}, h('h2', { id: name }, title), h('button', { class: 'ghost square', type: 'button', 'aria-label': 'Close', onclick: close }, icon('x'))),
      h('div', { class: 'body' }, body),
      foot && h('footer', {}, foot)));
  // A click beside the sheet lands on the dialog itself.
  el.addEventListener('mousedown', (event) => { if (event.target === el && kind === 'drawer') el.close(); });
  el.addEventListener('close', () => {
    el.remove();
    closed?.();
    if (!from?.isConnected) back(from?.dataset.focus);
  }, { once: true });
  document.body.append(el);
  el.showModal();
  return { el, close };
}

/** Whoever opened it was rendered anew meanwhile: the focus goes to its successor, or to the page's head. */
function back(name) {
  const again = name && [...document.querySelectorAll('[data-focus]')].find((one) => one.dataset.focus === name);
  (again || document.getElementById('heading'))?.focus({ preventScroll: true });
}

/** Asks before something that cannot be taken back. */
export function ask({ title, text, yes, danger = true }) {
  return new Promise((answer) => {
    let said = false;
    const act = h('button', { type: 'button', class: danger ? 'danger' : 'primary', onclick: () => { said = true; open.close(); } }, yes);
    const no = h('button', { type: 'button', onclick: () => open.close(), autofocus: true }, 'Cancel');
    const open = dialog({ title, body: h('p', {}, text), foot: [no, act], closed: () => answer(said) });
  });
}

/** A note at the edge that goes by itself; failures stay longer. */
export function toast(words, kind = 'ok') {
  const place = document.getElementById('toasts');
  // A modal dialog makes all else inert: the note goes where it can be seen and heard.
  const top = [...document.querySelectorAll('dialog[open]')].pop();
  const gone = () => note.remove();
  const note = h('div', { class: `toast ${kind}`, role: 'status' }, icon(kind === 'ok' ? 'check' : 'warn'), h('span', {}, words),
    h('button', { class: 'ghost square', type: 'button', 'aria-label': 'Dismiss', onclick: gone }, icon('x', 14)));
  (top ?? place).append(note);
  setTimeout(gone, kind === 'ok' ? 4000 : 9000);
}

/** Says a failure; an aborted request is none. */
export function failed(error) {
  if (error?.name === 'AbortError' || error?.status === 401) return;
  toast(error?.message ?? String(error), 'bad');
}

/** Copies; where the browser does not let us (plain HTTP), selects the text instead. */
export async function copy(words, source) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    if (source) {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
    return false;
  }
}

/** A text with a button that copies it. */
export function copyable(words, { label = 'Copy', block = false } = {}) {
  const code = h(block ? 'pre' : 'code', { tabindex: block ? '0' : null }, words);
  const words_ = h('span', {}, label);
  const button = h('button', {
    type: 'button',
    class: 'small',
    onclick: async () => {
      const done = await copy(words, code);
      put(words_, done ? 'Copied' : 'Press Ctrl+C');
      say(done ? 'Copied' : 'Selected; press Control C to copy');
      setTimeout(() => put(words_, label), 1800);
    },
  }, icon('copy', 14), words_);
  return h('div', { class: block ? 'copyable block' : 'copyable' }, code, button);
}

/** Shows what is shown once: a new secret. Closing asks for nothing, but says what it means. */
export function secret({ title, words, value, more, kind = 'modal' }) {
  const done = h('button', { type: 'button', class: 'primary', onclick: () => open.close() }, 'I have stored it');
  const open = dialog({
    title,
    kind,
    body: [h('p', {}, words), copyable(value, { label: 'Copy' }), h('p', { class: 'callout warn' }, icon('warn'), h('span', {}, 'This is the only time it is shown. Only a hash of it is kept.')), more],
    foot: done,
  });
  return open;
}
