// Forms: labelled fields, what is wrong said at the field itself (the server names it), one submission at a time.

import { failed } from './dialog.js';
import { h, uid } from './dom.js';

/** One field. Kinds: text, password, number, select, list (comma-separated), check. Empty text and number: `null`. */
export function field({ name, label, kind = 'text', value, hint, options, suffix, required, placeholder, min, max, step, autofocus, autocomplete = 'off', width, list }) {
  const id = uid(name);
  const tell = { id, name, 'aria-describedby': `${id}-hint ${id}-bad`, required, placeholder, autofocus };
  let input;
  if (kind === 'select') {
    input = h('select', tell, options.map(([key, words]) => h('option', { value: key, selected: key === value }, words)));
    if (value !== undefined && value !== null) input.value = value;
  } else if (kind === 'check') {
    input = h('input', { ...tell, type: 'checkbox', checked: value });
  } else {
    const type = kind === 'number' ? 'number' : kind === 'password' ? 'password' : 'text';
    input = h('input', { ...tell, type, min, max, step, autocomplete, spellcheck: 'false', value: Array.isArray(value) ? value.join(', ') : value ?? '' });
    if (list?.length) input.setAttribute('list', `${id}-list`);
  }
  const bad = h('p', { class: 'bad', id: `${id}-bad`, role: 'alert' });
  const control = suffix ? h('span', { class: 'suffixed' }, input, h('span', { 'aria-hidden': 'true' }, suffix)) : input;
  const el = h('div', { class: `field ${kind} ${width ?? ''}` },
    h('label', { for: id }, label, required && h('span', { class: 'sr' }, ' (required)')),
    control,
    list?.length && h('datalist', { id: `${id}-list` }, list.map((one) => h('option', { value: one }))),
    h('p', { class: 'hint', id: `${id}-hint` }, hint ?? ''), bad);
  input.addEventListener('input', () => wrong(''));
  function wrong(words) {
    bad.textContent = words;
    if (words) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  }
  return {
    name, el, input, wrong,
    get() {
      if (kind === 'check') return input.checked;
      if (kind === 'list') {
        const all = input.value.split(',').map((one) => one.trim()).filter(Boolean);
        return all.length ? all : null;
      }
      if (kind === 'number') return input.value === '' ? null : Number(input.value);
      return input.value.trim() === '' ? null : kind === 'password' ? input.value : input.value.trim();
    },
  };
}

/** A form of `fields` (and whatever else stands between). `send` gets the values by name; it throws what is wrong. */
export function form({ body, fields, yes, send, cancel }) {
  const button = h('button', { type: 'submit', class: 'primary' }, yes);
  const general = h('p', { class: 'bad', role: 'alert' });
  const el = h('form', {
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      if (button.disabled) return;
      general.textContent = '';
      fields.forEach((one) => one.wrong(''));
      const missing = fields.filter((one) => one.input.required && one.get() === null);
      missing.forEach((one) => one.wrong('Please fill this in.'));
      const invalid = fields.filter((one) => !one.input.validity.valid && !missing.includes(one));
      invalid.forEach((one) => one.wrong(one.input.validationMessage));
      const first = fields.find((one) => missing.includes(one) || invalid.includes(one));
      if (first) return first.input.focus();
      button.disabled = true;
      button.classList.add('busy');
      try {
        await send(Object.fromEntries(fields.map((one) => [one.name, one.get()])));
      } catch (error) {
        const place = fields.find((one) => one.name === error.field);
        if (place) {
          place.wrong(error.message);
          place.input.focus();
        } else if (error.status === undefined) failed(error);
        else general.textContent = error.field ? `${error.field}: ${error.message}` : error.message;
      } finally {
        button.disabled = false;
        button.classList.remove('busy');
      }
    },
  }, body ?? fields.map((one) => one.el), general, h('div', { class: 'actions' }, cancel && h('button', { type: 'button', onclick: cancel }, 'Cancel'), button));
  return el;
}

/** A row of choices of which one is pressed. */
export function segments({ label, options, value, pick }) {
  const el = h('div', { class: 'segments', role: 'group', 'aria-label': label });
  const buttons = options.map(([key, words]) => h('button', {
    type: 'button',
    'aria-pressed': String(key === value),
    onclick: (event) => {
      buttons.forEach((one) => one.setAttribute('aria-pressed', String(one === event.currentTarget)));
      pick(key);
    },
  }, words));
  el.append(...buttons);
  return el;
}

/** A switch. `change` may throw: then it goes back. */
export function toggle({ label, on, change, focus }) {
  const el = h('button', {
    type: 'button',
    class: 'switch',
    role: 'switch',
    'aria-checked': String(on),
    'aria-label': label,
    data: focus ? { focus } : null,
    onclick: async () => {
      const wanted = el.getAttribute('aria-checked') !== 'true';
      el.setAttribute('aria-checked', String(wanted));
      try {
        await change(wanted);
      } catch (error) {
        el.setAttribute('aria-checked', String(!wanted));
        failed(error);
      }
    },
  }, h('span'));
  return el;
}
