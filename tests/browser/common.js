// What every test of the page needs: a server of its own, peers, a browser, and patience with a bound.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const HEARTLINE = process.env.HEARTLINE ?? fileURLToPath(new URL('../../target/debug/heartline', import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Generous, since the machine may have other things to do; nothing waits longer than it must. */
const PATIENCE_MS = 30_000;

/** Asks again and again until what it says is true, and returns that. */
export async function until(what, ask) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < deadline, `in vain waited for: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

/** Undone when the test ends, the last thing first: the page goes before its server, and complains of nothing. */
const undo = new WeakMap();
export function atEnd(t, act) {
  if (!undo.has(t)) {
    undo.set(t, []);
    t.after(async () => {
      const failed = [];
      for (const each of undo.get(t).reverse()) {
        try { await each(); } catch (error) { failed.push(error); }
      }
      if (failed.length) throw failed[0];
    });
  }
  undo.get(t).push(act);
}

/** `heartline serve` with its admin endpoint, ended with the test. */
export async function serve(t, args = [], { listen = '127.0.0.1:0', admin = '127.0.0.1:0' } = {}) {
  const child = spawn(HEARTLINE, ['serve', listen, '--admin', admin, '--log-level', 'off', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = once(child, 'exit');
  const server = {
    child,
    gone,
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
  };
  atEnd(t, () => server.kill());
  for await (const line of createInterface({ input: child.stdout })) {
    const [word, address] = line.split(' ');
    if (word === 'listening') server.listening = address;
    if (word === 'admin') {
      server.url = address;
      break;
    }
  }
  assert.ok(server.listening && server.url, 'the server said where it can be reached');
  child.stdout.resume();
  return server;
}

/** A peer that speaks lines, from any loopback address. */
export async function peer(t, server, localAddress = '127.0.0.1') {
  const [host, port] = server.listening.split(':');
  const socket = net.connect({ host, port, localAddress });
  const lines = [];
  let ended = false;
  const input = createInterface({ input: socket }).on('line', line => lines.push(line));
  socket.on('error', () => {});
  socket.on('close', () => { ended = true; });
  atEnd(t, () => socket.destroy());
  await once(socket, 'connect');
  return {
    address: `${localAddress}:${socket.localPort}`,
    lines,
    say: text => socket.write(`${text}\n`),
    answers: (question, answer) => input.on('line', line => { if (line === question) socket.write(`${answer}\n`); }),
    leave: () => socket.end(),
    sleeps: () => socket.pause(),
    gets: text => until(`the peer gets ${text}`, () => lines.includes(text)),
    closed: () => until('the peer is closed', () => ended),
    isOpen: () => !ended,
  };
}

let browser = null;
export async function startBrowser() {
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
}
export const stopBrowser = () => browser?.close();

/** The page in a context of its own. Whatever it complains of fails the test, unless the test says that it is to be expected. */
export async function open(t, url, options = {}, expected = /^$/, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('pageerror', error => complaints.push(error.stack));
  page.on('console', message => { if (message.type() === 'error' && !expected.test(message.text())) complaints.push(message.text()); });
  atEnd(t, async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  await prepare(page);
  await page.goto(url);
  return page;
}

/** Waits until the element says it, and returns what it says. */
export function says(page, selector, pattern) {
  return until(`${selector} says ${pattern}`, async () => {
    const text = (await page.locator(selector).first().textContent()).replaceAll('\u00a0', ' ');
    return pattern.test(text) ? text || true : null;
  });
}

/** Waits until the rows of the table are these, by their addresses; without an order of their own if `sorted` is false. */
export function rows(page, addresses, sorted = true) {
  const want = sorted ? addresses : [...addresses].sort();
  return until(`the rows are ${want}`, async () => {
    const have = await page.locator('#body td.addr').allTextContents();
    return (sorted ? have : have.sort()).join() === want.join();
  });
}

export const row = (page, address) => page.locator('#body tr', { has: page.getByRole('cell', { name: address, exact: true }) });
export const focused = page => page.evaluate(() => {
  const { id, ariaLabel, textContent } = document.activeElement;
  return ariaLabel ?? (id || textContent);
});
