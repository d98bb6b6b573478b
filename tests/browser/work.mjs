// A day of an operator's: accounts, a key, requests seen on another instance's dashboard, a rest that is ended, sums
// that are right. Two instances; the cookie of one is good at the other.

import assert from 'node:assert/strict';
import { Visitor, answered, api, chat, eventually, orderly, shownLines } from './lib.mjs';

const LIVE = 'Requests in flight and finished';
const HOSTILE = '<img src=x onerror=alert(1)>';

export async function login(browser, at, password) {
  const visitor = await Visitor.arrive(browser, { permissions: ['clipboard-read', 'clipboard-write'] });
  visitor.expected = new Set([401]);
  const page = await visitor.open(`${at}/`);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Live', level: 1 }).waitFor();
  visitor.expected.clear();
  return { visitor, page };
}

export async function addAccount(page, { provider, key, url, label }) {
  await page.getByRole('button', { name: 'Add account' }).first().click();
  const form = page.getByRole('dialog', { name: 'Add account' });
  await form.getByLabel('Provider').fill(provider);
  await form.getByLabel('API key').fill(key);
  await form.getByLabel('Base URL').fill(url);
  await form.getByLabel('Label').fill(label);
  await form.getByRole('button', { name: 'Add account' }).click();
  await form.waitFor({ state: 'detached' });
  return page.getByRole('article', { name: `Account ${provider} @${label}` });
}

async function addModel(page, name, targets) {
  await page.getByRole('button', { name: 'New virtual model' }).first().click();
  const form = page.getByRole('dialog', { name: 'New virtual model' });
  await form.getByLabel('Name').fill(name);
  for (const [n, target] of targets.entries()) {
    if (n) await form.getByRole('button', { name: 'Add target' }).click();
    await form.getByLabel('Model', { exact: true }).nth(n).fill(target);
  }
  await form.getByRole('button', { name: 'Create model' }).click();
  await form.waitFor({ state: 'detached' });
}

export async function day(browser, { a, b, good, bad, slow, password, shots }) {
  const { visitor, page } = await login(browser, a, password);

  // Accounts: what is wrong is said at its field, what is right appears.
  await page.goto(`${a}/#/accounts`);
  await page.getByRole('button', { name: 'Add account' }).first().click();
  const form = page.getByRole('dialog', { name: 'Add account' });
  await form.getByRole('button', { name: 'Add account' }).click();
  assert.equal(await form.getByLabel('Provider').getAttribute('aria-invalid'), 'true');
  await orderly(page, 'the form of an account');
  await page.keyboard.press('Escape');
  await form.waitFor({ state: 'detached' });
  const main = await addAccount(page, { provider: 'openai', key: 'sk-good', url: good, label: 'main' });
  await main.getByText('serving').waitFor();
  const groq = await addAccount(page, { provider: 'groq', key: 'sk-bad', url: bad, label: 'tight' });
  await addAccount(page, { provider: 'mistral', key: 'sk-slow', url: slow, label: 'slow' });
  assert(!(await page.content()).includes('sk-good'), 'a credential never comes back');

  // Virtual models: made, moved by keyboard and by pointer, switched off and on.
  await page.goto(`${a}/#/models`);
  await addModel(page, 'fast', ['groq/llama-3.3-70b-versatile', 'openai/gpt-4o-mini']);
  await addModel(page, 'cheap', ['openai/gpt-4o-mini']);
  const order = async () => (await api(page, '/api/virtual-models')).virtual_models.map((one) => one.name).join();
  const grip = (name) => page.getByRole('button', { name: `Move ${name}; arrow keys` });
  await grip('cheap').focus();
  await page.keyboard.press('ArrowUp');
  await eventually('moved by keyboard', async () => (await order()) === 'cheap,fast');
  await eventually('the focus stays', () => grip('cheap').evaluate((node) => node === document.activeElement));
  const [from, to] = [await grip('cheap').boundingBox(), await grip('fast').boundingBox()];
  await page.mouse.move(from.x + 10, from.y + 10);
  await page.mouse.down();
  await page.mouse.move(from.x + 10, to.y + 5, { steps: 4 });
  await page.mouse.move(from.x + 10, to.y + 60, { steps: 4 });
  await page.mouse.up();
  await eventually('moved by pointer', async () => (await order()) === 'fast,cheap');
  const on = page.getByRole('switch', { name: 'cheap is on' });
  await on.click();
  await eventually('switched off', async () => (await api(page, '/api/virtual-models')).virtual_models.find((one) => one.name === 'cheap').enabled === false);
  await page.getByRole('switch', { name: 'cheap is on', checked: false }).click();

  // A key is shown once, can be copied, and is gone from the page afterwards. Its name is a text, whatever it looks like.
  await page.goto(`${a}/#/keys`);
  await page.getByRole('button', { name: 'Create key' }).first().click();
  const keyForm = page.getByRole('dialog', { name: 'Create key' });
  await keyForm.getByLabel('Name').fill(HOSTILE);
  await keyForm.getByLabel('Budget').fill('25');
  await keyForm.getByLabel('Requests per minute').fill('-3');
  await keyForm.getByRole('button', { name: 'Create key' }).click();
  await keyForm.getByRole('alert').filter({ hasText: /greater than or equal/ }).waitFor();
  await keyForm.getByLabel('Requests per minute').fill('6000');
  await keyForm.getByRole('button', { name: 'Create key' }).click();
  const shown = page.getByRole('dialog', { name: 'Your new key' });
  await shown.waitFor();
  await orderly(page, 'a new key');
  const key = await shown.locator('code').first().innerText();
  assert.match(key, /^mrd_\w{40}$/);
  await shown.getByRole('button', { name: 'Copy' }).first().click();
  await shown.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);
  await page.screenshot({ path: `${shots}/new-key.png` });
  await eventually('the lines name a model', async () => (await shownLines(shown)).includes('"cheap"'));
  const lines = await shownLines(shown);
  assert(lines.includes(key) && lines.includes(`${a}/v1/`), lines);
  assert.equal(await answered(lines), 'Hello.');
  await shown.getByRole('button', { name: 'I have stored it' }).click();
  await shown.waitFor({ state: 'detached' });
  await page.getByText(HOSTILE, { exact: true }).waitFor();
  assert(!(await page.content()).includes(key), 'shown once');

  // Sent to one instance, seen at the other: falls over to the second target, and the first one's model is locked.
  const other = await visitor.open(`${b}/#/live`);
  await other.getByText(/^Live/).first().waitFor();
  const table = other.getByRole('table', { name: LIVE });
  assert.equal((await chat(a, key, 'fast')).status, 200);
  const row = table.locator('tr[data-kind="ended"]').filter({ hasText: 'fast' });
  await row.waitFor();
  assert.match(await row.innerText(), /200[\s\S]*2×[\s\S]*fast[\s\S]*openai\/gpt-4o-mini[\s\S]*<img src=x/);
  const leave = new AbortController();
  const waiting = chat(a, key, 'mistral/mistral-large-latest', 'wait', leave.signal).catch(() => null);
  const running = table.locator('tr[data-kind="running"]').filter({ hasText: 'mistral-large' });
  await running.waitFor();
  leave.abort();
  await waiting;
  await running.waitFor({ state: 'detached' });
  await table.locator('tr[data-kind="ended"]').filter({ hasText: 'mistral-large' }).waitFor();

  // Paused, the list stands still; going on, it shows what came.
  await other.getByRole('button', { name: 'Pause' }).click();
  await chat(b, key, 'openai/gpt-4o-mini', 'unseen');
  await other.getByText('1 new since').waitFor();
  assert.equal(await table.locator('tbody tr').filter({ hasText: 'openai/gpt-4o-mini' }).count(), 2, 'only those before, by their target');
  await other.getByRole('button', { name: 'Resume' }).click();
  await eventually('the list goes on', async () => (await table.locator('tbody tr').filter({ hasText: 'openai/gpt-4o-mini' }).count()) === 3);
  await other.getByLabel('Filter requests').fill('mistral');
  await eventually('filtered', async () => (await table.locator('tbody tr').count()) === 1);

  // The rest is shown on both instances; ended on one, it is over on both.
  await page.goto(`${a}/#/accounts`);
  await groq.getByText('partly locked').waitFor();
  await groq.getByText('rate limited by the provider').waitFor();
  assert.match(await groq.locator('.countdown').innerText(), /^[23] m/);
  await other.goto(`${b}/#/accounts`);
  const there = other.getByRole('article', { name: 'Account groq @tight' });
  await there.getByText('partly locked').waitFor();
  await groq.getByRole('button', { name: 'Unlock llama-3.3-70b-versatile' }).click();
  await groq.getByText('serving', { exact: true }).waitFor();
  await there.getByText('serving', { exact: true }).waitFor();
  assert.deepEqual((await api(page, '/api/cooldowns')).cooldowns, []);

  await sums(page, a, b, key);
  await records(page, a, b, key, other);
  visitor.content('in a day');
  return { visitor, page, other, key };
}

/** What was sent is what is counted, and the list has it page by page. */
async function sums(page, a, b, key) {
  const before = (await api(page, '/api/usage')).total;
  const many = 60;
  for (let n = 0; n < many; n += 6) await Promise.all(Array.from({ length: 6 }, (_, k) => chat(k % 2 ? a : b, key, 'openai/gpt-4o-mini', `number ${n + k}`)));
  await eventually('all are counted', async () => (await api(page, '/api/usage')).total.requests >= before.requests + many);
  const { total } = await api(page, '/api/usage');
  assert.equal(total.requests, before.requests + many);
  assert.equal(total.tokens.prompt - before.tokens.prompt, 11 * many);
  assert.equal(total.tokens.completion - before.tokens.completion, 7 * many);
  await page.goto(`${a}/#/usage?by=model`);
  const tile = page.getByRole('region', { name: 'Requests' });
  assert.equal(await tile.locator('strong').innerText(), String(total.requests));
  const line = page.getByRole('table', { name: 'Usage by model' }).locator('tbody tr');
  const cells = await line.evaluateAll((rows) => rows.map((row) => Number(row.querySelector('[data-label="Requests"]').textContent)));
  assert.equal(cells.reduce((x, y) => x + y, 0), total.requests, 'the table adds up');
  const csv = await page.evaluate(async () => (await fetch(document.querySelector('a[download]').href)).text());
  assert.equal(csv.trim().split('\r\n').slice(1).reduce((sum, one) => sum + Number(one.split(',').at(-8)), 0), total.requests, 'the CSV, too');

  await page.goto(`${a}/#/logs`);
  const rows = page.getByRole('table', { name: 'Requests' }).locator('tbody tr');
  await eventually('a page of the log', async () => (await rows.count()) === 50);
  await page.getByRole('button', { name: 'Load older' }).click();
  await eventually('the next page', async () => (await rows.count()) === total.requests);
  await page.getByLabel('Model', { exact: true }).fill('mistral-large-latest');
  await eventually('filtered', async () => (await rows.count()) === 1);
  await rows.first().click();
  const detail = page.getByRole('dialog', { name: 'Request' });
  await detail.getByRole('region', { name: 'Timeline' }).waitFor();
  assert.match(await detail.innerText(), /mistral\/mistral-large-latest[\s\S]*req_/);
  assert.match(page.url(), /#\/logs\/req_/);
  await orderly(page, 'a request');
  await page.keyboard.press('Escape');
  await detail.waitFor({ state: 'detached' });

  // The one that fell over: both attempts, in their order.
  await page.goto(`${a}/#/logs?q=fast`);
  await rows.filter({ hasText: '2×' }).first().waitFor();
  assert.equal(await rows.count(), 1);
  await rows.first().click();
  const attempts = detail.getByRole('region', { name: 'Timeline' }).getByRole('listitem');
  await eventually('two attempts', async () => (await attempts.count()) === 2);
  assert.match(await attempts.nth(0).innerText(), /groq @tight[\s\S]*429/);
  assert.match(await attempts.nth(1).innerText(), /openai @main[\s\S]*200/);
  await page.keyboard.press('Escape');
  await detail.waitFor({ state: 'detached' });
}

async function records(page, a, b, key, other) {
  await page.goto(`${a}/#/audit`);
  for (const words of ['account create', 'key create', 'virtual model reorder', 'cooldown unlock', 'login']) await page.getByText(words, { exact: true }).first().waitFor();
  await page.goto(`${a}/#/cluster`);
  await eventually('both instances', async () => (await page.getByRole('table', { name: 'Instances' }).locator('tbody tr').count()) === 2);
  const lag = page.getByRole('region', { name: 'Event lag' }).locator('strong');
  await eventually('how far behind the other one we are', async () => (await chat(b, key, 'openai/gpt-4o-mini', 'lag')).ok && / (ms|s|µs)$/.test(await lag.innerText()));
  await page.goto(`${a}/#/settings`);
  await page.getByRole('button', { name: 'Create token' }).click();
  const form = page.getByRole('dialog', { name: 'Create token' });
  await form.getByLabel('Name').fill('terraform');
  await form.getByRole('button', { name: 'Create token' }).click();
  const shown = page.getByRole('dialog', { name: 'Your new token' });
  assert.match(await shown.locator('code').first().innerText(), /^mdm_/);
  await shown.getByRole('button', { name: 'I have stored it' }).click();
  await page.getByRole('button', { name: 'Revoke terraform' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Revoke token' }).click();
  await page.getByText('No tokens yet.').waitFor();
  await other.bringToFront();
}

/** A session that is over anywhere leads to the login, and back to where one was. */
export async function ending({ visitor, page }, { a, password }) {
  visitor.expected = new Set([401]);
  await page.goto(`${a}/#/keys`);
  await page.getByRole('heading', { name: 'Keys', level: 1 }).waitFor();
  await visitor.context.clearCookies();
  await page.getByRole('link', { name: 'Audit' }).click();
  await page.getByText('Your session is over.').waitFor();
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Audit', level: 1 }).waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByText('You are logged out.').waitFor();
  visitor.content('at the end');
}
