// Prism called by a page in Chromium: connect-es for browsers, streams, EventSource; from an origin that is allowed, and
// from one that is not. The gateway must allow the origin in PRISM_PAGE_ORIGIN: clients/conformance/run starts it so.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const baseUrl = `http://${process.env.PRISM_TARGET}`;
const origin = process.env.PRISM_PAGE_ORIGIN;
assert(origin, 'PRISM_PAGE_ORIGIN is not set: run clients/conformance/run, which starts the server');
const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
assert(CHROMIUM, 'there is no Chromium: run stack/setup');

const HERE = new URL('./', import.meta.url);
const PATIENCE_MS = 60_000;

/** Where a page finds the modules of a package: the `import` conditions of its `exports`. */
const importsOf = async (name) => {
  const { exports } = JSON.parse(await readFile(new URL(`node_modules/${name}/package.json`, HERE)));
  const target = (entry) => (typeof entry === 'string' ? entry : target(entry.import ?? entry.default));
  const paths = Object.entries(exports).filter(([path]) => path !== './package.json' && !path.includes('*'));
  return paths.map(([path, entry]) => [
    `${name}${path.slice(1)}`,
    `/node_modules/${name}/${target(entry).replace(/^\.\//, '')}`,
  ]);
};

const packages = ['@bufbuild/protobuf', '@connectrpc/connect', '@connectrpc/connect-web'];
const imports = Object.fromEntries((await Promise.all(packages.map(importsOf))).flat());
const page = `<!doctype html><title>test</title><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports })}</script><script type="module" src="/page.mjs"></script>`;

const files = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, origin);
  if (pathname === '/') return response.setHeader('content-type', 'text/html').end(page);
  const path = fileURLToPath(new URL(`.${pathname}`, HERE));
  const found = path.startsWith(fileURLToPath(HERE)) && (await readFile(path).catch(() => null));
  response.writeHead(found ? 200 : 404, { 'content-type': 'text/javascript' }).end(found || 'not here');
});
let browser;
before(async () => {
  const { hostname, port } = new URL(origin);
  await once(files.listen(Number(port), hostname), 'listening');
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server'],
    timeout: PATIENCE_MS,
  });
});
after(async () => {
  await browser?.close();
  files.close();
});

const opened = async (url) => {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(PATIENCE_MS);
  tab.on('pageerror', (error) => console.error('page:', error));
  tab.on('requestfailed', (request) => console.error('page:', request.url(), request.failure()?.errorText));
  await tab.goto(url);
  await tab.waitForFunction(() => globalThis.prism !== undefined);
  return tab;
};
const scratchNamespace = async (t, name) => {
  const call = (method, message) =>
    fetch(`${baseUrl}/prism.admin.v1.Namespaces/${method}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(message),
    });
  const yaml = `namespace: ${name}\nteam: t\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n`;
  assert.equal((await call('Create', { yaml })).status, 200);
  t.after(() => call('Delete', { name }));
  return name;
};

test('a page of an allowed origin', { timeout: 2 * PATIENCE_MS }, async (t) => {
  const namespace = await scratchNamespace(t, 'browser');
  const tab = await opened(origin);
  const results = await tab.evaluate(([url, name]) => globalThis.prism.calls(url, name), [baseUrl, namespace]);
  const error = ['NotFound', true, ['google.rpc.ErrorInfo', 'google.rpc.RequestInfo']];
  for (const transport of ['Connect, protobuf', 'Connect, JSON', 'gRPC-Web, protobuf', 'gRPC-Web, JSON']) {
    const { pages, ...rest } = results[transport];
    assert.deepEqual(rest, { value: true, scanned: ['a', 'b', 'c'], errors: [error, error] }, transport);
    assert(pages >= 3, `${transport}: ${pages} pages`);
  }
  assert.deepEqual(await tab.evaluate(([url, name]) => globalThis.prism.events(url, name), [baseUrl, namespace]), ['a', 'b', 'c']);
});

test('a page of another origin reads nothing and changes nothing', { timeout: 2 * PATIENCE_MS }, async (t) => {
  const name = await scratchNamespace(t, 'browser-foreign');
  // The same page by another name is of another origin.
  const { port } = new URL(origin);
  const tab = await opened(`http://localhost:${port}`);
  const attempt = (path, init) => tab.evaluate(([url, init]) => globalThis.prism.attempt(url, init), [baseUrl + path, init]);
  const remove = (type) => ({ method: 'POST', headers: { 'content-type': type }, body: JSON.stringify({ name }) });
  assert.equal(await attempt('/prism.admin.v1.Namespaces/Delete', remove('application/json')), 'blocked');
  assert.equal(await attempt('/prism.admin.v1.Namespaces/Delete', remove('text/plain')), 'blocked');
  assert.equal(await attempt('/metrics', {}), 'blocked');
  const kept = await fetch(`${baseUrl}/prism.admin.v1.Namespaces/Get`, { ...remove('application/json') });
  assert.equal(kept.status, 200);
});
