// The way in: one password. Wrong: said at the field. Too many wrong ones: a countdown to when the next is looked at.

import { call } from '../api.js';
import { h, say } from '../dom.js';
import { span } from '../fmt.js';

/** `done` is called once a session has begun. */
export default function login({ words, done, signal }) {
  const input = h('input', { id: 'password', type: 'password', name: 'password', autocomplete: 'current-password', required: true, 'aria-describedby': 'login-bad' });
  const bad = h('p', { class: 'bad', id: 'login-bad', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary wide' }, 'Log in');
  let until = 0;
  let timer = 0;

  function wait(seconds) {
    until = Date.now() + seconds * 1000;
    button.disabled = true;
    say(`Too many wrong passwords. Try again in ${span(seconds * 1000)}.`);
    tick();
  }
  function tick() {
    clearTimeout(timer);
    if (signal.aborted) return;
    const left = until - Date.now();
    if (left <= 0) {
      button.disabled = false;
      button.textContent = 'Log in';
      bad.textContent = '';
      return;
    }
    bad.textContent = 'Too many wrong passwords.';
    button.textContent = `Try again in ${span(Math.ceil(left / 1000) * 1000)}`;
    timer = setTimeout(tick, 500);
  }

  async function submit(event) {
    event.preventDefault();
    if (button.disabled || !input.value) return input.focus();
    button.disabled = true;
    button.classList.add('busy');
    bad.textContent = '';
    try {
      await call('POST', '/api/login', { body: { password: input.value }, signal });
      input.value = '';
      done();
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 429) return wait(error.retryAfter || 60);
      if (error.status === 409) return done();
      bad.textContent = error.status === 401 ? 'Wrong password.' : error.message;
      input.setAttribute('aria-invalid', 'true');
      input.select();
    } finally {
      button.classList.remove('busy');
      if (until <= Date.now()) button.disabled = false;
    }
  }

  input.addEventListener('input', () => input.removeAttribute('aria-invalid'));
  return h('main', { class: 'alone' },
    h('form', { class: 'login card', novalidate: true, onsubmit: submit },
      h('img', { src: '/ui/icon.svg', width: 44, height: 44, alt: '' }),
      h('h1', {}, 'Log in to merido'),
      words && h('p', { class: 'about', role: 'status' }, words),
      h('div', { class: 'field' }, h('label', { for: 'password' }, 'Password'), input, bad),
      button));
}
