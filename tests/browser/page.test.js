// The operator's page, in a browser, on the real binary, with real peers.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { atEnd, focused, open, peer, row, rows, says, serve, startBrowser, stopBrowser, until } from './common.js';

before(startBrowser);
after(stopBrowser);

const OPEN = '#chart-open dd';
const message = page => page.getByRole('textbox', { name: 'Message' });
const state = page => page.locator('#strip').getAttribute('data-state');
const becomes = (page, wanted) => until(`the page is ${wanted}`, async () => await state(page) === wanted);

test('what peers do is seen as they do it', async t => {
  const server = await serve(t);
  const page = await open(t, server.url);
  await says(page, OPEN, /^0/);
  await says(page, '#lines-empty', new RegExp(`nc 127\\.0\\.0\\.1 ${server.listening.split(':')[1]}`));
  await says(page, '#closed-empty', /No connection has been closed yet/);

  const [a, b] = [await peer(t, server), await peer(t, server)];
  await says(page, OPEN, /^2/);
  await rows(page, [a.address, b.address], false);
  await says(page, '#version', /^\d+\.\d+\.\d+$/);
  assert.match(await page.title(), /^2 connections/);

  // Until the page has seen it: a rate is of the last second only.
  await until('messages are seen', async () => {
    a.say('hello');
    return await page.locator('#chart-messages dd').first().textContent() !== '0/s' && /[1-9]/.test(await page.locator('#chart-messages dd').last().textContent());
  });
  await until('the row counts its bytes', async () => /[1-9].*B.*[1-9].*B/.test(await row(page, a.address).locator('.pair').textContent()));

  b.leave();
  await says(page, OPEN, /^1/);
  await says(page, '#closed li', new RegExp(`${b.address}peer-closed`));
  await says(page, '#reasons-closed .grown', /peer-closed1/);
  await rows(page, [a.address]);
});

test('what has ended before the page was opened is shown as well', async t => {
  const server = await serve(t);
  const gone = await peer(t, server);
  gone.leave();
  await until('the server knows', async () => (await (await fetch(`${server.url}/closed`)).json()).closed.length === 1);
  const page = await open(t, server.url);
  await says(page, '#chart-closes .head', /last 5 min/);
  await says(page, '#chart-closes dl', /peer1/);
  await says(page, '#chart-closes .plot p', /^$/);
});

test('on a narrow screen nothing is cut off without a sign of it', async t => {
  const server = await serve(t);
  await peer(t, server);
  const page = await open(t, server.url, { viewport: { width: 400, height: 900 } });
  await page.locator('#lines').scrollIntoViewIfNeeded();
  await until('the row is there', async () => await page.locator('#body tr').count() === 1);
  const cut = await page.evaluate(() => {
    document.querySelector('#body td:nth-child(2)').append('0123456789'.repeat(5));
    return [...document.querySelectorAll('#body td')]
      .filter(td => td.scrollWidth > td.clientWidth)
      .map(td => [getComputedStyle(td).display, getComputedStyle(td).textOverflow]);
  });
  assert.ok(cut.length > 0);
  for (const style of cut) assert.deepEqual(style, ['block', 'ellipsis']);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
});

test('pings to a quiet peer become round trips', async t => {
  const server = await serve(t, ['--heartbeat', '200ms', '--missed', '50']);
  const quiet = await peer(t, server);
  quiet.answers('ping', 'pong');
  const page = await open(t, server.url);
  await says(page, '#heartbeat', /^0\.2 s, dead after 10\.2 s$/);
  await says(page, '#chart-rtt dd', /ms$/);
  await says(page, '#body .trip', /ms$/);
});

test('the table sorts by its headers and searches by address', async t => {
  const server = await serve(t, ['--app', 'sink']);
  const a = await peer(t, server, '127.0.0.1'), b = await peer(t, server, '127.0.0.2'), c = await peer(t, server, '127.0.0.3');
  a.say('x'.repeat(100));
  b.say('x'.repeat(3000));
  c.say('x'.repeat(500));
  const page = await open(t, server.url);
  await rows(page, [a.address, b.address, c.address], false);
  const header = name => page.getByRole('columnheader', { name });
  assert.equal(await header('Silence').getAttribute('aria-sort'), 'descending');

  await header('In and out').getByRole('button').click();
  await rows(page, [b.address, c.address, a.address]);
  assert.equal(await header('In and out').getAttribute('aria-sort'), 'descending');
  assert.equal(await header('Silence').getAttribute('aria-sort'), null);
  await header('In and out').getByRole('button').click();
  await rows(page, [a.address, c.address, b.address]);
  assert.equal(await header('In and out').getAttribute('aria-sort'), 'ascending');

  await page.getByLabel('Address begins with').fill('127.0.0.2');
  await rows(page, [b.address]);
  await says(page, '#range', /^1–1 of 1$/);
  await page.getByLabel('Address begins with').fill('10.&limit=0');
  await rows(page, []);
  await page.getByText('No name or address of an open connection begins with “10.&limit=0”.').waitFor();
  await page.getByLabel('Address begins with').fill('');
  await rows(page, [a.address, c.address, b.address]);
});

test('only one page of the connections is asked for and shown', async t => {
  const server = await serve(t);
  const peers = [];
  for (let i = 0; i < 120; i++) peers.push(await peer(t, server));
  const limits = new Set();
  const page = await open(t, server.url, {}, undefined, page => page.on('request', request => {
    const { pathname, searchParams } = new URL(request.url());
    if (pathname === '/connections') limits.add(searchParams.get('limit'));
  }));
  const turn = (name, range) => page.getByRole('button', { name }).click().then(() => says(page, '#range', range));
  await says(page, '#range', /^1–50 of 120$/);
  assert.equal(await page.locator('#body tr').count(), 50);
  assert.ok(await page.getByRole('button', { name: 'Previous page' }).isDisabled());
  await turn('Next page', /^51–100 of 120$/);
  await turn('Last page', /^101–120 of 120$/);
  assert.equal(await page.locator('#body tr').count(), 20);
  assert.equal(await focused(page), 'lines', 'the button can do no more, so the focus is with the table');

  // The page looked at has gone with its lines: the last one there is takes its place.
  for (const each of peers.splice(90)) each.leave();
  await says(page, '#range', /^51–90 of 90$/);
  await turn('First page', /^1–50 of 90$/);
  assert.deepEqual([...limits], ['50']);
});

test('connections are fetched only while they are visible', async t => {
  const server = await serve(t);
  await peer(t, server);
  let fetched = 0;
  const page = await open(t, server.url, { viewport: { width: 390, height: 600 } }, undefined,
    page => page.on('request', request => { if (request.url().includes('/connections')) fetched++; }));
  await says(page, OPEN, /^1/);
  await says(page, '#detail', /up [3-9] s/);
  assert.equal(fetched, 0);
  await page.locator('#body').scrollIntoViewIfNeeded();
  await until('connections are fetched again and again', () => fetched >= 2);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, 'a phone need not scroll sideways');
});

test('a broadcast reaches all, a message to one reaches one', async t => {
  const server = await serve(t, ['--app', 'sink']);
  const a = await peer(t, server), b = await peer(t, server);
  const page = await open(t, server.url, {}, /422/);
  await rows(page, [a.address, b.address], false);

  await page.getByRole('button', { name: 'Broadcast…' }).click();
  await says(page, '#send-about', /Every open connection gets it: 2 now/);
  await message(page).fill('to äll');
  await says(page, '#send-size', /^7 B$/);
  await page.getByRole('button', { name: 'Send to all' }).click();
  await says(page, '#toast', /^Sent to 2 connections\.$/);
  await a.gets('to äll');
  await b.gets('to äll');

  await page.getByRole('button', { name: `Send to ${b.address}` }).click();
  await message(page).fill('two\nlines');
  await page.getByRole('button', { name: 'Send', exact: true }).click();
  await says(page, '#send-dialog .error', /\w/);
  assert.ok(await page.locator('#send-dialog').isVisible(), 'what was refused can be mended');
  await message(page).fill('to one');
  await message(page).press('Control+Enter');
  await says(page, '#toast', /^Queued for /);
  await b.gets('to one');
  assert.deepEqual(a.lines, ['to äll']);
  assert.deepEqual(b.lines, ['to äll', 'to one']);

  // What was begun for one is for nobody else, and still there for the same.
  const begin = async button => {
    await page.getByRole('button', { name: button }).click();
    return await message(page).inputValue();
  };
  assert.equal(await begin(`Send to ${b.address}`), '', 'what was sent has been sent');
  await message(page).fill('a secret');
  await page.keyboard.press('Escape');
  assert.equal(await begin(`Send to ${b.address}`), 'a secret');
  await page.keyboard.press('Escape');
  assert.equal(await begin('Broadcast…'), '');
  await says(page, '#send-size', /^0 B$/);
  await page.keyboard.press('Escape');
  assert.equal(await begin(`Send to ${b.address}`), '');
});

test('a kick closes a connection once it is confirmed', async t => {
  const server = await serve(t);
  const a = await peer(t, server), b = await peer(t, server);
  const page = await open(t, server.url);
  const deletes = [];
  page.on('request', request => { if (request.method() === 'DELETE') deletes.push(request.url()); });
  await rows(page, [a.address, b.address], false);
  const kick = page.getByRole('button', { name: `Kick ${a.address}` }), dialog = page.getByRole('dialog', { name: 'Close this connection?' });

  for (const cancel of [() => dialog.getByRole('button', { name: 'Cancel' }).click(), () => page.keyboard.press('Escape')]) {
    await kick.click();
    await says(page, '#kick-address', new RegExp(`^${a.address}$`));
    await cancel();
    await dialog.waitFor({ state: 'hidden' });
    assert.equal(await focused(page), `Kick ${a.address}`);
  }
  assert.deepEqual(deletes, []);
  assert.ok(a.isOpen());

  await kick.click();
  await dialog.getByRole('button', { name: 'Kick' }).click();
  await a.closed();
  await says(page, '#toast', new RegExp(`^Kicked ${a.address}`));
  await says(page, '#closed li', new RegExp(`${a.address}requested`));
  await rows(page, [b.address]);
  assert.equal(deletes.length, 1);

  await page.getByRole('button', { name: `Kick ${b.address}` }).click();
  await dialog.getByLabel('At once').check();
  await dialog.getByRole('button', { name: 'Kick' }).click();
  await b.closed();
  await rows(page, []);
  assert.ok(await page.getByText('No peer is connected').isVisible());
  assert.match(deletes[1], /\?now=true$/);
});

test('a connection that is flushing can be closed at once', async t => {
  const server = await serve(t, ['--app', 'sink']);
  const a = await peer(t, server);
  a.sleeps();
  const page = await open(t, server.url);
  const [{ id }] = (await (await fetch(`${server.url}/connections`)).json()).connections;
  await until('what is sent stays in the queue', async () => {
    await fetch(`${server.url}/connections/${id}/send`, { method: 'POST', body: 'x'.repeat(60_000) });
    return (await (await fetch(`${server.url}/connections/${id}`)).json()).queued > 100_000;
  });
  await until('the page knows', async () => /KiB/.test(await row(page, a.address).locator('.queued').textContent()));
  await page.getByRole('button', { name: `Kick ${a.address}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Kick' }).click();
  await says(page, '#toast', new RegExp(`^${a.address} goes when`));
  await until('it is closing', async () => /Kick now/.test(await row(page, a.address).textContent()));
  await page.getByRole('button', { name: `Kick ${a.address}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Kick' }).click();
  await says(page, '#toast', new RegExp(`^Kicked ${a.address}`));
  await rows(page, []);
});

test('what is confirmed after the server was replaced is for nobody of the new one', async t => {
  const server = await serve(t);
  const a = await peer(t, server);
  const page = await open(t, server.url, {}, /404|ERR_/);
  await page.getByRole('button', { name: `Kick ${a.address}` }).click();
  await server.kill();
  const again = await serve(t, [], { listen: server.listening, admin: new URL(server.url).host });
  const b = await peer(t, again);
  await becomes(page, 'lost');
  await becomes(page, 'live');
  await page.getByRole('dialog').getByRole('button', { name: 'Kick' }).click();
  await says(page, '#kick-dialog .error', /no such connection/);
  assert.ok(b.isOpen());
});

test('a page that nobody sees leaves its connection to others, and knows all the same', async t => {
  const server = await serve(t);
  const page = await open(t, server.url);
  await becomes(page, 'live');
  const hide = hidden => page.evaluate(value => {
    Object.defineProperty(document, 'hidden', { value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  const streams = [];
  page.on('request', request => { if (request.url().endsWith('/events')) streams.push(request); });
  const ended = page.waitForEvent('requestfailed', request => request.url().endsWith('/events'));
  await hide(true);
  await ended;
  const a = await peer(t, server), b = await peer(t, server);
  await until('the title says so', async () => /^2 connections/.test(await page.title()));
  b.leave();
  await until('the title says so', async () => /^1 connection /.test(await page.title()));
  assert.equal(streams.length, 0);
  await hide(false);
  await says(page, '#closed li', new RegExp(`${b.address}peer-closed`));
  await rows(page, [a.address]);
  assert.equal(streams.length, 1);
});

test('a dialog survives the close of its connection', async t => {
  const server = await serve(t);
  const a = await peer(t, server);
  const page = await open(t, server.url, {}, /404/);
  const kick = page.getByRole('button', { name: `Kick ${a.address}` });
  await kick.click();
  a.leave();
  await rows(page, []);
  await page.getByRole('dialog').getByRole('button', { name: 'Kick' }).click();
  await says(page, '#kick-dialog .error', /\w/);
  await page.keyboard.press('Escape');
  await until('the focus is with the table', async () => await focused(page) === 'lines');

  // And one that goes while its button has the focus, which holds the table: the dialog's end makes it look again.
  const b = await peer(t, server);
  await rows(page, [b.address]);
  await page.getByRole('button', { name: `Kick ${b.address}` }).click();
  await page.keyboard.press('Escape');
  await until('the focus is back', async () => await focused(page) === `Kick ${b.address}`);
  b.leave();
  await says(page, OPEN, /^0/);
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  await rows(page, []);
  await until('the focus is with the table', async () => await focused(page) === 'lines');
});

test('rows do not move under a hand that reaches for one', async t => {
  const server = await serve(t);
  const a = await peer(t, server);
  const page = await open(t, server.url);
  await rows(page, [a.address]);
  await page.getByRole('button', { name: `Kick ${a.address}` }).hover();
  await says(page, '#lines-note', /^Held while a row is in use/);
  const b = await peer(t, server);
  await says(page, OPEN, /^2/);
  await says(page, '#lines-note', /^Held/);
  assert.deepEqual(await page.locator('#body td.addr').allTextContents(), [a.address]);
  await page.locator('h1').hover();
  await rows(page, [a.address, b.address], false);

  await page.getByRole('button', { name: 'Pause' }).click();
  await says(page, '#lines-note', /^Paused/);
  b.leave();
  await says(page, OPEN, /^1/);
  assert.equal(await page.locator('#body tr').count(), 2);
  await page.getByRole('button', { name: 'Resume' }).click();
  await rows(page, [a.address]);
});

test('everything can be done from the keyboard', async t => {
  const server = await serve(t, ['--app', 'sink']);
  const a = await peer(t, server);
  const page = await open(t, server.url);
  await rows(page, [a.address]);
  const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
  const tabTo = async name => {
    for (let i = 0; i < 40 && await focused(page) !== name; i++) await press('Tab');
    assert.equal(await focused(page), name);
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none', `the focus on ${name} can be seen`);
  };

  await press('Tab');
  assert.equal(await focused(page), 'Skip to the connections');
  await press('Enter');
  await until('the table has the focus', async () => await focused(page) === 'lines');
  await tabTo('Age');
  await press('Enter');
  await until('it is sorted by age', async () => await page.getByRole('columnheader', { name: 'Age' }).getAttribute('aria-sort') === 'descending');
  await tabTo(`Send to ${a.address}`);
  await press('Enter');
  await until('the message has the focus', async () => await focused(page) === 'send-text');
  await page.keyboard.type('by hand');
  await press('Control+Enter');
  await a.gets('by hand');
  await until('the focus is back', async () => await focused(page) === `Send to ${a.address}`);
  await tabTo(`Kick ${a.address}`);
  await press('Enter');
  await until('the safe button has the focus', async () => await focused(page) === 'Cancel');
  await tabTo('Kick');
  await press('Enter');
  await a.closed();
  await until('the table has the focus', async () => await focused(page) === 'lines');

  const chart = page.getByRole('slider', { name: 'Connections: look back' });
  await chart.focus();
  await press('ArrowLeft', 'ArrowLeft');
  assert.match((await chart.getAttribute('aria-valuetext')).replaceAll('\u00a0', ' '), /^2 s ago: open \d/);
  assert.equal(await chart.getAttribute('aria-valuenow'), '-2');
  await press('Escape');
  assert.equal(await chart.getAttribute('aria-valuetext'), 'now');
});

test('light and dark: as the system says, or as was chosen, also after a reload', async t => {
  const server = await serve(t);
  const page = await open(t, server.url, { colorScheme: 'dark' });
  const light = () => page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
    canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data[0] > 128;
  });
  assert.equal(await light(), false);
  await page.emulateMedia({ colorScheme: 'light' });
  assert.equal(await light(), true);

  const toggle = page.getByRole('button', { name: /^Theme/ });
  await toggle.click();
  await toggle.click();
  await says(page, '#theme', /^Theme: dark$/);
  assert.equal(await light(), false);
  await page.reload();
  await says(page, '#theme', /^Theme: dark$/);
  assert.equal(await light(), false);
  await toggle.click();
  assert.equal(await light(), true, 'as the system says again');
});

test('draining is confirmed, shown, and survived; so is a server that dies', async t => {
  const server = await serve(t);
  const peers = [await peer(t, server), await peer(t, server), await peer(t, server)];
  const page = await open(t, server.url, {}, /ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY/);
  await becomes(page, 'live');
  await says(page, OPEN, /^3/);
  await page.getByRole('button', { name: 'Drain…' }).click();
  await says(page, '#drain-about', /3 connections/);
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Drain…' }).click();
  await page.getByLabel('Over how many seconds').fill('600');
  await page.locator('#drain-go').click();
  await becomes(page, 'draining');
  await says(page, '#detail', /connections? left|New ones are refused/);
  await page.getByRole('button', { name: 'End sooner…' }).click();
  await page.getByLabel('Over how many seconds').fill('0.5');
  await page.locator('#drain-go').click();
  for (const each of peers) await each.closed();
  assert.deepEqual(await server.gone, [0, null]);
  await becomes(page, 'lost');
  await says(page, '#state', /^Gone$/);
  assert.ok(await page.getByRole('button', { name: 'Broadcast…' }).isDisabled());

  const again = { listen: server.listening, admin: new URL(server.url).host };
  const second = await serve(t, [], again);
  await becomes(page, 'live');
  await second.kill();
  await says(page, '#state', /^Connection lost$/);
  const third = await serve(t, [], again);
  await becomes(page, 'live');
  await says(page, OPEN, /^0/);

  // With nobody there it ends at once.
  await page.getByRole('button', { name: 'Drain…' }).click();
  await page.locator('#drain-go').click();
  assert.deepEqual(await third.gone, [0, null]);
  await says(page, '#state', /^Gone$/);
});

test('a server that stands still is noticed though its connection stays', async t => {
  const server = await serve(t);
  const page = await open(t, server.url, {}, /ERR_/);
  await becomes(page, 'live');
  server.child.kill('SIGSTOP');
  await says(page, '#state', /^Connection lost$/);
  server.child.kill('SIGCONT');
  await becomes(page, 'live');
});

test('with a token, the browser logs in by itself', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'heartline-'));
  atEnd(t, () => rm(folder, { recursive: true }));
  const token = 'correct-horse-battery-staple', file = join(folder, 'token');
  await writeFile(file, `${token}\n`, { mode: 0o600 });
  const server = await serve(t, ['--app', 'sink', '--admin-token-file', file]);
  assert.equal((await fetch(server.url)).status, 401);

  const a = await peer(t, server);
  const page = await open(t, server.url, { httpCredentials: { username: 'operator', password: token } });
  await becomes(page, 'live');
  await rows(page, [a.address]);
  await page.getByRole('button', { name: 'Broadcast…' }).click();
  await message(page).fill('hello');
  await page.getByRole('button', { name: 'Send to all' }).click();
  await a.gets('hello');

  // Typed into the address, which fetch would refuse to start from.
  const typed = new URL(server.url);
  typed.username = 'operator';
  typed.password = token;
  await rows(await open(t, typed.href), [a.address]);
});

test('hostile strings stay text, and nothing else may be loaded', async t => {
  const server = await serve(t);
  const evil = '<img src=x onerror="document.title=\'pwned\'"><script>document.title="pwned"</script>"\'>';
  const status = await (await fetch(`${server.url}/status`)).json();
  const hostile = { ...status, version: evil, app: evil, framing: evil, listening: [evil], closed: { [evil]: 1, ...status.closed }, refused: { [evil]: 1 } };
  const connection = { id: evil, address: evil, age_s: 1, silence_s: 1, round_trip_ms: null, bytes_in: 1, bytes_out: 1, queued: 0, unfinished: 0, pings_unanswered: 0, closing: false };
  const closed = [{ id: evil, address: evil, at: evil, reason: evil, origin: evil, age_s: 1, silence_s: 1, pings_unanswered: 0, bytes_in: 1, bytes_out: 1, unsent: 0, unfinished: 0, unacknowledged_s: 0 }];
  const asked = [];
  const page = await open(t, server.url, {}, /Content Security Policy|violates|ERR_|404/, async page => {
    const answer = (path, body, contentType = 'application/json', status = 200) => page.route(path, route => {
      asked.push(`${route.request().method()} ${route.request().url()}`);
      return route.fulfill({ status, contentType, body });
    });
    // A stream that can be faked ends at once, so it is faked one floor higher: the first thing said is not even JSON.
    await page.addInitScript(([status, closed]) => {
      window.EventSource = class extends EventTarget {
        constructor() {
          super();
          const say = (name, data) => this.dispatchEvent(new MessageEvent(name, { data }));
          setTimeout(() => { say('status', '{not json'); say('status', status); say('closed', closed); });
          setInterval(() => say('status', status), 1_000);
        }
        close() {}
      };
    }, [JSON.stringify(hostile), JSON.stringify({ closed, more: 0 })]);
    await answer('**/connections?*', JSON.stringify({ open: 1, matched: 1, offset: 0, limit: 50, sort: 'silence', order: 'desc', connections: [connection] }));
    await answer('**/closed?*', JSON.stringify({ closed }));
    await answer('**/connections/**', JSON.stringify({ error: evil }), 'application/json', 404);
  });
  const literally = async selector => until(`${selector} holds it as text`, async () => (await page.locator(selector).allTextContents()).some(text => text.includes(evil)));
  for (const selector of ['#version', '#app', '#listening', '#reasons-closed dt', '#reasons-refused dt', '#closed .addr', '#closed b', '#closed time', '#body .addr', '#body .id']) await literally(selector);
  await page.locator('#body .danger').click();
  await literally('#kick-address');
  await page.locator('#kick-dialog [type=submit]').click();
  await literally('#kick-dialog .error');
  assert.ok(asked.includes(`DELETE ${server.url}/connections/${encodeURIComponent(evil)}`), 'an id is one segment of the path, whatever it holds');
  assert.equal(await page.locator('img, body script:not([type=module])').count(), 0);
  assert.doesNotMatch(await page.title(), /pwned/);

  // Were something to get in all the same, it could call nobody.
  const stopped = await page.evaluate(() => new Promise(resolve => {
    addEventListener('securitypolicyviolation', event => resolve(event.effectiveDirective));
    fetch('http://127.0.0.1:1/').catch(() => {});
  }));
  assert.equal(stopped, 'connect-src');
});
