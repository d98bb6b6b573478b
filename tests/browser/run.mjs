// Runs them all in one browser, one after the other. What it talks to stands in MERIDO_TEST_DESK, as JSON.

import { launch } from './lib.mjs';
import { firstStart, throttled } from './door.mjs';
import { looks } from './looks.mjs';
import { day, ending } from './work.mjs';

const world = JSON.parse(process.env.MERIDO_TEST_DESK);
const browser = await launch();
let state;
const steps = {
  'first start': () => firstStart(browser, world),
  throttled: () => throttled(browser, world),
  day: async () => { state = await day(browser, world); },
  looks: () => looks(state, world),
  ending: () => ending(state, world),
};
try {
  for (const [name, step] of Object.entries(steps)) {
    const began = Date.now();
    try {
      await step();
    } catch (error) {
      for (const context of browser.contexts()) for (const [n, page] of context.pages().entries()) await page.screenshot({ path: `${world.shots}/failed-${name.replace(' ', '-')}-${n}.png` }).catch(() => {});
      console.error(`${name}: ${error.stack}`);
      process.exitCode = 1;
      break;
    }
    console.log(`${name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
} finally {
  await browser.close();
}
