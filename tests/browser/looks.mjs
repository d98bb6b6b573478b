// How it looks: every page in light, dark and on a phone, as pictures; and what no picture shows (names, landmarks,
// widths) checked on each.

import { chat, orderly } from './lib.mjs';

const PAGES = ['live', 'logs', 'usage', 'accounts', 'models', 'keys', 'cluster', 'audit', 'settings'];

export async function looks({ visitor, page, key }, { a, b, shots }) {
  for (let n = 0; n < 12; n += 1) await chat(n % 2 ? a : b, key, ['fast', 'openai/gpt-4o', 'openai/gpt-4o-mini'][n % 3], `look ${n}`);
  for (const [name, options, size] of [
    ['light', { colorScheme: 'light' }, { width: 1360, height: 900 }],
    ['dark', { colorScheme: 'dark' }, { width: 1360, height: 900 }],
    ['phone', { colorScheme: 'light' }, { width: 390, height: 844 }],
    ['phone-dark', { colorScheme: 'dark' }, { width: 390, height: 844 }],
  ]) {
    await page.emulateMedia({ ...options, reducedMotion: 'reduce' });
    await page.setViewportSize(size);
    for (const one of PAGES) {
      await page.goto(`${a}/#/${one}`);
      await page.locator(`.page.${one} h1`).waitFor();
      await page.locator('.skeleton').first().waitFor({ state: 'detached' });
      // A second of figures, so that charts are drawn.
      if (one === 'live') await page.waitForFunction(() => document.querySelector('.chart path.line'));
      await page.screenshot({ path: `${shots}/${name}-${one}.png` });
      await orderly(page, `${name} ${one}`);
      if (name !== 'phone') continue;
      await page.setViewportSize({ width: 320, height: 640 });
      await orderly(page, `small ${one}`, { axe: false });
      await page.setViewportSize(size);
    }
  }
  await page.getByRole('button', { name: 'Menu' }).click();
  await page.getByRole('link', { name: 'Logs' }).click();
  await page.getByRole('heading', { name: 'Logs', level: 1 }).waitFor();
  await page.setViewportSize({ width: 1360, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole('button', { name: /^System theme/ }).click();
  await page.getByRole('button', { name: /^Light theme/ }).click();
  if ((await ground()) === light) throw new Error('the dark theme changes nothing');
  await page.reload();
  await page.getByRole('button', { name: /^Dark theme/ }).click();
  visitor.content('while looking');
}
