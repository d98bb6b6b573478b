// How a program gets its answers from here: the lines for the usual clients, with this gateway's own address, the key at
// hand and a model that there is. Whoever copies them has a first answer.

import { get } from '../api.js';
import { copyable } from '../dialog.js';
import { h, put } from '../dom.js';
import { segments } from '../form.js';

const WAYS = [['curl', 'curl'], ['python', 'OpenAI SDK'], ['claude', 'Claude Code'], ['codex', 'Codex'], ['other', 'Others']];
const HELLO = 'Hello, merido!';

/** A model to show: a virtual one first, for that is what applications should ask for. */
export function example(models, allowed) {
  const may = (id) => !allowed?.length || allowed.includes(id) || allowed.includes(`${id.split('/')[0]}/*`);
  const mine = models.filter((one) => may(one.id));
  return (mine.find((one) => one.kind === 'virtual') ?? mine.find((one) => one.price) ?? mine[0])?.id ?? 'provider/model';
}

/** `key`: the secret, where it is at hand; `open`: none is needed; `allowed`: the models it may use. */
export function connect({ key, open = false, allowed }) {
  const place = h('div', { class: 'lines' });
  const secret = key ?? (open ? '' : 'YOUR_KEY');
  let model = 'provider/model';
  let way = WAYS[0][0];
  const show = () => put(place, LINES[way](location.origin, secret, model).map(([words, lines]) => [words && h('p', { class: 'faint' }, words), copyable(lines, { block: true })]));
  show();
  get('/api/models').then(({ models }) => { model = example(models, allowed); show(); }).catch(() => {});
  return h('section', { class: 'connect', 'aria-label': 'How to connect' },
    segments({ label: 'Client', options: WAYS, value: way, pick(next) { way = next; show(); } }), place);
}

/** The body of a first request. */
export const hello = (model) => ({ model, messages: [{ role: 'user', content: HELLO }] });

const LINES = {
  curl: (at, key, model) => [['', [
    `curl ${at}/v1/chat/completions \\`,
    "  -H 'content-type: application/json' \\",
    ...(key ? [`  -H 'authorization: Bearer ${key}' \\`] : []),
    `  -d '${JSON.stringify(hello(model))}'`,
  ].join('\n')]],
  python: (at, key, model) => [['pip install openai', [
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url="${at}/v1", api_key="${key || 'none'}")`,
    'answer = client.chat.completions.create(',
    `    model="${model}",`,
    `    messages=[{"role": "user", "content": "${HELLO}"}],`,
    ')',
    'print(answer.choices[0].message.content)',
  ].join('\n')]],
  claude: (at, key, model) => [['', [
    `export ANTHROPIC_BASE_URL=${at}`,
    `export ANTHROPIC_AUTH_TOKEN=${key || 'none'}`,
    ...(model.includes('claude') ? [] : [`export ANTHROPIC_MODEL=${model}`, `export ANTHROPIC_DEFAULT_HAIKU_MODEL=${model}`]),
    'claude',
  ].join('\n')]],
  codex: (at, key, model) => [
    ['In ~/.codex/config.toml', [
      `model = "${model}"`,
      'model_provider = "merido"',
      '',
      '[model_providers.merido]',
      'name = "merido"',
      `base_url = "${at}/v1"`,
      'env_key = "GATEWAY_KEY"',
      'wire_api = "responses"',
    ].join('\n')],
    ['In the shell', `export GATEWAY_KEY=${key || 'none'}\ncodex`],
  ],
  other: (at, key) => [
    ['What speaks OpenAI', `export OPENAI_BASE_URL=${at}/v1\nexport OPENAI_API_KEY=${key || 'none'}`],
    ['What speaks Anthropic', `export ANTHROPIC_BASE_URL=${at}\nexport ANTHROPIC_API_KEY=${key || 'none'}`],
    ['What speaks Gemini', `export GOOGLE_GEMINI_BASE_URL=${at}\nexport GEMINI_API_KEY=${key || 'none'}`],
  ],
};
