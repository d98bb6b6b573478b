// The way in: open mode on a first start, and a password that is asked for, refused and throttled.

import assert from 'node:assert/strict';
import { Visitor, eventually, orderly } from './lib.mjs';

export async function firstStart(browser, { open, shots }) {
  const visitor = await Visitor.arrive(browser);
  const page = await visitor.open(`${open}/`);
  await page.getByText('Open mode: no password is set.').waitFor();
  await page.getByRole('heading', { name: 'Nothing has passed through yet' }).waitFor();
  await page.screenshot({ path: `${shots}/first-start.png` });
  await orderly(page, 'first start');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.tagName !== 'BODY'), true, 'the keyboard gets somewhere');
  await page.getByRole('button', { name: 'Send it from here' }).click();
  const row = page.getByRole('table', { name: 'Requests in flight and finished' }).locator('tr[data-kind="ended"]');
  await row.first().waitFor();
  assert.match(await row.first().innerText(), /200[\s\S]*demo\/echo[\s\S]*anonymous/);
  await page.getByRole('heading', { name: 'Nothing has passed through yet' }).waitFor({ state: 'detached' });
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
