// Adding an account, and changing one. A credential goes in here and never comes back out.

import { call, get, onceName, send } from '../api.js';
import { dialog, failed, toast } from '../dialog.js';
import { h } from '../dom.js';
import { field, form } from '../form.js';

const DIALECTS = [['openai', 'OpenAI-compatible'], ['anthropic', 'Anthropic'], ['gemini', 'Gemini']];

/** Opens the form; `account` null adds one. */
export async function accountForm({ account, signal, done }) {
  try {
    if (account) await change(account, signal, done);
    else await create(signal, done);
  } catch (error) {
    failed(error);
  }
}

async function create(signal, done) {
  const { providers } = await get('/api/providers', signal);
  const known = new Map(providers.map((one) => [one.name, one]));
  const provider = field({ name: 'provider', label: 'Provider', required: true, list: providers.map((one) => one.name), placeholder: 'openai, anthropic, groq, …', hint: 'One of the catalogue, or a new name for a server of your own.', autofocus: true });
  const key = field({ name: 'api_key', label: 'API key', kind: 'password', required: true, autocomplete: 'new-password', hint: 'Stored sealed; it is never shown again.' });
  const label = field({ name: 'label', label: 'Label', placeholder: 'main', hint: 'Tells several accounts of one provider apart.', width: 'half' });
  const weight = field({ name: 'weight', label: 'Weight', kind: 'number', value: 1, min: 0, step: 1, hint: 'Its share where targets are weighted.', width: 'half' });
  const url = field({ name: 'base_url', label: 'Base URL', placeholder: 'https://…', hint: "What the provider's own SDK calls its base URL." });
  const dialect = field({ name: 'dialect', label: 'Dialect', kind: 'select', options: DIALECTS, hint: 'What that server speaks.' });
  const show = () => {
    const one = known.get(provider.get() ?? '');
    dialect.el.hidden = Boolean(one) || !provider.get();
    url.input.placeholder = one?.base_url ?? 'https://…';
    url.el.querySelector('.hint').textContent = one?.base_url ? 'Only where it is not the usual one.' : "What the provider's own SDK calls its base URL.";
  };
  provider.input.addEventListener('input', show);
  show();
  const once = onceName();
  const fields = [provider, key, url, dialect, label, weight];
  const open = dialog({
    title: 'Add account',
    body: form({
      fields,
      body: [provider.el, dialect.el, key.el, url.el, h('div', { class: 'two' }, label.el, weight.el)],
      yes: 'Add account',
      cancel: () => open.close(),
      async send(values) {
        const own = !known.has(values.provider);
        const body = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== null && (name !== 'dialect' || own)));
        const made = await call('POST', '/api/accounts', { body, once: `${once}-${fingerprint(body)}` });
        open.close();
        toast(`${made.provider} @${made.label} was added`);
        done();
      },
    }),
  });
}

async function change(account, signal, done) {
  const { value: now, tag } = await send('GET', `/api/accounts/${account.id}`, { signal });
  const label = field({ name: 'label', label: 'Label', required: true, value: now.label, width: 'half' });
  const weight = field({ name: 'weight', label: 'Weight', kind: 'number', value: now.weight, min: 0, step: 1, width: 'half' });
  const url = field({ name: 'base_url', label: 'Base URL', value: now.base_url, placeholder: now.effective_base_url, hint: 'Empty: the usual one of the provider.' });
  const key = field({ name: 'api_key', label: 'New API key', kind: 'password', autocomplete: 'new-password', hint: 'Empty: the stored one stays.' });
  const open = dialog({
    title: `Edit ${now.provider} @${now.label}`,
    body: form({
      fields: [label, weight, url, key],
      body: [h('div', { class: 'two' }, label.el, weight.el), url.el, key.el],
      yes: 'Save',
      cancel: () => open.close(),
      async send(values) {
        const body = { label: values.label, weight: values.weight ?? 1 };
        if (values.base_url !== now.base_url) body.base_url = values.base_url;
        if (values.api_key !== null) body.api_key = values.api_key;
        await call('PATCH', `/api/accounts/${account.id}`, { body, tag });
        open.close();
        toast('The account was saved');
        done();
      },
    }),
  });
}

/** A corrected form is another request: the same name for it would be refused. */
export function fingerprint(body) {
  let sum = 5381;
  for (const char of JSON.stringify(body)) sum = ((sum * 33) ^ char.codePointAt(0)) >>> 0;
  return sum.toString(36);
}
