// The way in: open mode on a first start, and a password that is asked for, refused and throttled.

import assert from 'node:assert/strict';
import { Visitor, answered, eventually, orderly, shownLines } from './lib.mjs';

export async function firstStart(browser, { open, shots }) {
  const visitor = await Visitor.arrive(browser);
  const page = await visitor.open(`${open}/`);
  await page.getByText('Open mode: no password is set.').waitFor();
  const guide = page.getByRole('region', { name: 'Get started' });
  await guide.getByRole('heading', { name: 'Welcome to merido' }).waitFor();
  await page.screenshot({ path: `${shots}/first-start.png` });
  await orderly(page, 'first start');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.tagName !== 'BODY'), true, 'the keyboard gets somewhere');
  await guide.getByRole('button', { name: 'Send a test request' }).click();
  await guide.getByText(/^demo\/echo answered in/).waitFor();
  await guide.getByText('Hello, merido!', { exact: true }).waitFor();
  const row = page.getByRole('table', { name: 'Requests in flight and finished' }).locator('tr[data-kind="ended"]');
  await row.first().waitFor();
  assert.match(await row.first().innerText(), /200[\s\S]*demo\/echo[\s\S]*anonymous/);
  // The lines shown are lines that work, with this gateway's own address.
  assert.equal(await answered(await shownLines(guide)), 'Hello, merido!');
  for (const [way, words] of [['OpenAI SDK', `base_url="${open}/v1"`], ['Claude Code', `ANTHROPIC_BASE_URL=${open}\n`], ['Codex', `base_url = "${open}/v1"`]]) {
    await guide.getByRole('button', { name: way }).click();
    assert((await shownLines(guide)).includes(words), `${way}: ${await shownLines(guide)}`);
  }
  await page.screenshot({ path: `${shots}/first-answer.png`, fullPage: true });
  await orderly(page, 'after the first answer');
  // Each step leads to its form; a guide that was dismissed stays away.
  await guide.getByRole('link', { name: 'Add an account' }).click();
  await page.getByRole('dialog', { name: 'Add account' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('link', { name: 'Live' }).first().click();
  await guide.getByRole('button', { name: 'Dismiss' }).click();
  await guide.waitFor({ state: 'detached' });
  await page.reload();
  await row.first().waitFor();
  assert.equal(await guide.count(), 0, 'dismissed');
  await page.getByRole('link', { name: 'Set a password' }).click();
  await page.getByText('merido hash-password').waitFor();
  visitor.content('at a first start');
  await visitor.context.close();
}

export async function throttled(browser, { locked, shots }) {
  const visitor = await Visitor.arrive(browser);
  visitor.expected = new Set([401, 429]);
  const page = await visitor.open(`${locked}/`);
  await page.getByRole('heading', { name: 'Log in to merido' }).waitFor();
  await page.screenshot({ path: `${shots}/login.png` });
  await orderly(page, 'login');
  const password = page.getByLabel('Password');
  assert.equal(await password.evaluate((node) => node === document.activeElement), true, 'the password has the focus');
  for (let attempt = 0; attempt < 5; attempt += 1) {
    await password.fill(`guess ${attempt}`);
    await password.press('Enter');
    await page.getByRole('alert').filter({ hasText: 'Wrong password.' }).waitFor();
    await page.getByRole('button', { name: 'Log in' }).and(page.locator(':enabled')).waitFor();
  }
  await password.fill('one more');
  await password.press('Enter');
  const button = page.getByRole('button', { name: /Try again in \d+ m/ });
  await button.waitFor();
  assert.equal(await button.isDisabled(), true);
  const before = await button.innerText();
  await eventually('the countdown runs', async () => (await button.innerText()) !== before);
  await page.screenshot({ path: `${shots}/throttled.png` });
  visitor.content('at the door');
  await visitor.context.close();
}
