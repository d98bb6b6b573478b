// What the browser's tests share: one Chromium, pages that must not complain, patience with a bound, raw requests.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

/** For anything a page should show: a debug build on a busy machine. */
export const PATIENCE = 30_000;

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export async function launch() {
  const executablePath = process.env.MERIDO_TEST_CHROMIUM || PLACES.find((path) => existsSync(path));
  assert(executablePath, 'no Chromium: run scripts/test.sh once, it installs one');
  // No sandbox: tests run as root in containers, and the only pages are ours.
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'] });
}

/** Somebody with cookies of their own. All that their pages complain about is kept. */
export class Visitor {
  complaints = [];
  /** Answers with these statuses are part of the test; a browser reports each as an error. */
  expected = new Set();

  static async arrive(browser, options = {}) {
    const visitor = new Visitor();
    visitor.context = await browser.newContext({ viewport: { width: 1360, height: 900 }, locale: 'en-GB', ...options });
    visitor.context.setDefaultTimeout(PATIENCE);
    await visitor.context.exposeFunction('complain', (words) => visitor.complaints.push(words));
    await visitor.context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => globalThis.complain(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
    });
    return visitor;
  }

  async open(url) {
    const page = await this.context.newPage();
    page.on('pageerror', (error) => this.complaints.push(`thrown: ${error.stack}`));
    page.on('console', (message) => {
      if (!['error', 'warning'].includes(message.type())) return;
      const status = /status of (\d+)/.exec(message.text())?.[1];
      if (!this.expected.has(Number(status))) this.complaints.push(`${message.type()}: ${message.text()} ${message.location().url}`);
    });
    const origin = new URL(url).origin;
    page.on('request', (request) => {
      if (!request.url().startsWith(origin)) this.complaints.push(`elsewhere: ${request.url()}`);
    });
    await page.goto(url);
    return page;
  }

  content(where) {
    assert.deepEqual(this.complaints, [], `complaints ${where}`);
  }
}

/** Asks again until it holds. */
export async function eventually(what, holds) {
  const end = Date.now() + PATIENCE;
  let last;
  for (;;) {
    try {
      const value = await holds();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`never happened: ${what} (${last?.message ?? last})`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** One chat request to the data plane. */
export async function chat(url, key, model, words = 'hi', signal = AbortSignal.timeout(PATIENCE)) {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: words }] }),
    signal,
  });
  await response.text();
  return response;
}

/** The lines for a shell or a file that a page shows. */
export const shownLines = async (place) => (await place.locator('.connect pre').allInnerTexts()).join('\n');

/** Runs those lines as somebody would who copied them; what the model said. */
export async function answered(lines) {
  const { stdout } = await promisify(execFile)('sh', ['-c', lines], { timeout: PATIENCE });
  return JSON.parse(stdout).choices[0].message.content;
}

/** What `/api/` says to a page's session. */
export const api = (page, path) => page.evaluate(async (at) => (await fetch(at)).json(), path);

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** axe-core finds nothing serious or critical. What it only doubts (colours over pictures) is not counted. */
export async function accessible(page, name) {
  // By the debugger, not as a script of the page: its policy would rightly refuse one.
  if (!(await page.evaluate('typeof axe'))?.includes('object')) await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    // What is on its way in or out is half transparent and would be measured so.
    await Promise.all(document.getAnimations().filter((one) => one.effect.getTiming().iterations !== Infinity).map((one) => one.finished.catch(() => {})));
    const { violations } = await axe.run(document, { resultTypes: ['violations'] });
    return violations.filter((one) => ['serious', 'critical'].includes(one.impact)).flatMap((one) => one.nodes.slice(0, 3).map((node) => `${one.id}: ${node.html.slice(0, 160)} ${node.failureSummary?.split('\n')[1] ?? ''}`));
  });
  assert.deepEqual(found, [], `axe: ${name}`);
}

/** Every control has a name, every page its landmarks, nothing is wider than the screen. */
export async function orderly(page, name, { axe = true } = {}) {
  const faults = await page.evaluate(() => {
    const out = [];
    const named = (node) => node.getAttribute('aria-label') || node.labels?.[0]?.textContent || (node.getAttribute('aria-labelledby') && document.getElementById(node.getAttribute('aria-labelledby'))?.textContent) || node.textContent?.trim() || node.querySelector('img[alt]')?.alt;
    for (const node of document.querySelectorAll('button, a, input, select, table, dialog')) {
      const words = node.matches('input, select') ? node.getAttribute('aria-label') || node.labels?.[0]?.textContent : named(node);
      if (!words) out.push(`without a name: ${node.outerHTML.slice(0, 120)}`);
    }
    if (document.querySelectorAll('main').length !== 1) out.push('not one main');
    if (document.querySelectorAll('main h1').length !== 1) out.push('not one h1');
    const seen = new Set();
    for (const node of document.querySelectorAll('[id]')) {
      if (seen.has(node.id)) out.push(`id twice: ${node.id}`);
      seen.add(node.id);
    }
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide > 0) {
      const all = [...document.querySelectorAll('main *, .side *')].filter((node) => node.getBoundingClientRect().right > innerWidth + 1);
      out.push(`${wide} px too wide: ${all.slice(0, 4).map((node) => `${node.tagName}.${node.className}`).join(', ')}`);
    }
    return out;
  });
  assert.deepEqual(faults, [], name);
  if (axe) await accessible(page, name);
}
