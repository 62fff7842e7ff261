// Prism under connect-es, with each of its transports and both HTTP versions, streaming included; `buf curl` with each of
// its protocols; and what fetch can ask by hand. These tests need a server: clients/conformance/run starts it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import {
  Http2SessionManager,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from '@connectrpc/connect-node';
import { Health } from './gen/grpc/health/v1/health_pb.js';
import { Namespaces } from './gen/prism/admin/v1/namespaces_pb.js';
import { KeyValue, ScanRequestSchema, ScanResponseSchema } from './gen/prism/keyvalue/v1/keyvalue_pb.js';
import { PubSub, Start } from './gen/prism/pubsub/v1/pubsub_pb.js';

const target = process.env.PRISM_TARGET;
const namespace = process.env.PRISM_NAMESPACE;
assert(target, 'PRISM_TARGET is not set: run clients/conformance/run, which starts the server');

const PATIENCE_MS = 30_000;
const baseUrl = `http://${target}`;
const bytes = (text) => new TextEncoder().encode(text);
const b64 = (text) => Buffer.from(text).toString('base64');
const within = () => ({ signal: AbortSignal.timeout(PATIENCE_MS) });
let ids = 0;
const freshId = () => `connect-${process.pid}-${ids++}`;

const transports = [];
// Left alone it would keep its connection, and so this process, for a quarter of an hour.
const sessionManager = new Http2SessionManager(baseUrl);
for (const useBinaryFormat of [true, false]) {
  const form = useBinaryFormat ? 'protobuf' : 'JSON';
  transports.push([`gRPC, ${form}`, createGrpcTransport({ baseUrl, useBinaryFormat, sessionManager })]);
  for (const httpVersion of ['1.1', '2']) {
    const options = { baseUrl, useBinaryFormat, httpVersion, ...(httpVersion === '2' && { sessionManager }) };
    transports.push([`Connect, ${form}, HTTP/${httpVersion}`, createConnectTransport({ ...options, useHttpGet: true })]);
    transports.push([`gRPC-Web, ${form}, HTTP/${httpVersion}`, createGrpcWebTransport(options)]);
  }
}

/** A namespace with 40 values that compress well, made once. */
const streamed = `connect-${process.pid}`;
const messages = `${streamed}-messages`;
const ENTRIES = 40;
const VALUE = 'value '.repeat(200);
test.before(async () => {
  const transport = createConnectTransport({ baseUrl, httpVersion: '1.1' });
  const yaml = `namespace: ${streamed}\nteam: t\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n`;
  await createClient(Namespaces, transport).create({ yaml }, within());
  const pubsub = `namespace: ${messages}\nteam: t\nclient_api: pubsub\nneeds:\n  durability: best-effort\n  ordered: true\n`;
  await createClient(Namespaces, transport).create({ yaml: pubsub }, within());
  const kv = createClient(KeyValue, transport);
  for (let n = 0; n < ENTRIES; n++) {
    await kv.put({ namespace: streamed, id: `id-${n}`, items: [{ key: bytes('k'), value: bytes(VALUE) }] }, within());
  }
});
test.after(async () => {
  sessionManager.abort();
  const transport = createConnectTransport({ baseUrl, httpVersion: '1.1' });
  for (const name of [streamed, messages]) await createClient(Namespaces, transport).delete({ name }, within());
});

const refusal = async (promise) => {
  const error = await promise.then(
    () => assert.fail('the call succeeded'),
    (error) => error,
  );
  assert(error instanceof ConnectError, `${error}`);
  return error;
};

for (const [name, transport] of transports) {
  test(name, async (t) => {
    const kv = createClient(KeyValue, transport);

    await t.test('unary calls, small and large', async () => {
      const id = freshId();
      // The large one comes back compressed, where the transport says that it accepts that.
      for (const value of ['v', 'large '.repeat(20_000)]) {
        await kv.put({ namespace, id, items: [{ key: bytes('k'), value: bytes(value) }] }, within());
        const { items } = await kv.get({ namespace, id }, within());
        assert.equal(Buffer.from(items[0].value).toString(), value);
      }
    });

    await t.test('an error has its code and its details', async () => {
      const calls = [() => kv.get({ namespace: 'nope', id: 'x' }, within()), () => first(kv.scan({ namespace: 'nope' }, within()))];
      for (const call of calls) {
        const error = await refusal(call());
        assert.equal(error.code, Code.NotFound);
        assert.match(error.rawMessage, /"nope" does not exist/);
        assert.deepEqual(error.details.map(({ type }) => type), ['google.rpc.ErrorInfo', 'google.rpc.RequestInfo']);
      }
      const tooLong = { namespace, id: 'x', items: [{ key: new Uint8Array(1025) }] };
      assert.equal((await refusal(kv.put(tooLong, within()))).code, Code.InvalidArgument);
    });

    await t.test('a stream of pages, to its end', async () => {
      const found = new Set();
      let pages = 0;
      for await (const page of kv.scan({ namespace: streamed, selection: { itemLimit: 5 } }, within())) {
        pages += 1;
        for (const { id, items } of page.entries) {
          found.add(id);
          assert.equal(Buffer.from(items[0].value).toString(), VALUE);
        }
      }
      assert.equal(found.size, ENTRIES);
      assert(pages >= ENTRIES / 5, `${pages} pages`);
    });

    await t.test('a stream that is left in the middle, and one that stays open', async () => {
      for (let round = 0; round < 3; round++) {
        const page = await first(kv.scan({ namespace: streamed, selection: { itemLimit: 1 } }, within()));
        assert.equal(page.entries.length, 1);
      }
      const health = createClient(Health, transport);
      assert.equal((await first(health.watch({}, within()))).status, 1);
      const { statuses } = await health.list({}, within());
      assert.equal(statuses['prism.keyvalue.v1.KeyValue'].status, 1);
    });
  });
}

for (const [name, transport] of transports.filter(([name]) => name.startsWith('Connect'))) {
  test(`a subscription by ${name}`, async () => {
    const pubsub = createClient(PubSub, transport);
    const topic = freshId();
    const publish = (text) =>
      pubsub.publish({ namespace: messages, message: { topic, payload: bytes(text), orderingKey: 'k', attributes: { n: text } } }, within());
    const texts = (answer) => answer.messages.map(({ message }) => Buffer.from(message.payload).toString());
    /** A subscription, as an iterator that is left by `leave`. */
    const begin = (start) => {
      const left = new AbortController();
      const signal = AbortSignal.any([left.signal, within().signal]);
      const answers = pubsub.subscribe({ namespace: messages, topics: [topic], start: { place: start } }, { signal });
      const stream = answers[Symbol.asyncIterator]();
      return { next: () => stream.next(), leave: () => left.abort() };
    };
    /** Reads until so many messages have come: their texts, and the position after them. */
    const read = async (stream, count) => {
      const found = [];
      for (;;) {
        const { value: answer, done } = await stream.next();
        assert(!done, `the stream ended after ${found}`);
        found.push(...texts(answer));
        if (found.length >= count) return [found, answer.position];
      }
    };
    const live = begin({ case: 'start', value: Start.LATEST });
    const { value: first } = await live.next();
    assert.equal(first.messages.length, 0);
    assert(first.position.length > 0);
    await publish('one');
    await publish('two');
    const [found, position] = await read(live, 2);
    assert.deepEqual(found, ['one', 'two']);
    live.leave();
    await publish('three');
    const rest = begin({ case: 'position', value: position });
    assert.deepEqual((await read(rest, 1))[0], ['three']);
    rest.leave();
    const refused = begin({ case: 'position', value: bytes('not a position') });
    const error = await refusal(refused.next());
    assert.equal(error.code, Code.InvalidArgument);
    assert.match(error.rawMessage, /start\.position/);
  });
}

/** The first message of a stream, which is then left. */
const first = async (stream) => {
  for await (const message of stream) return message;
  return assert.fail('the stream is empty');
};

const buf = fileURLToPath(new URL('node_modules/.bin/buf', import.meta.url));
const proto = fileURLToPath(new URL('../../../proto', import.meta.url));
const bufCurl = async (...args) => {
  const { stdout } = await promisify(execFile)(buf, ['curl', ...args], { timeout: PATIENCE_MS });
  return stdout;
};

for (const protocol of ['connect', 'grpc', 'grpcweb']) {
  test(`buf curl --protocol ${protocol}`, async () => {
    const url = `${baseUrl}/prism.keyvalue.v1.KeyValue`;
    const id = freshId();
    const put = JSON.stringify({ namespace, id, items: [{ key: b64('k'), value: b64('v') }] });
    const get = JSON.stringify({ namespace, id });
    const scan = JSON.stringify({ namespace: streamed, selection: { itemLimit: 30 } });
    // By reflection, which is HTTP/2 and a stream both ways in the same protocol.
    await bufCurl('--protocol', protocol, '--data', put, `${url}/Put`);
    const [{ version, ...item }] = JSON.parse(await bufCurl('--protocol', protocol, '--data', get, `${url}/Get`)).items;
    assert.deepEqual(item, { key: b64('k'), value: b64('v') });
    assert.ok(version);
    const services = await bufCurl('--protocol', protocol, '--list-services', baseUrl);
    assert.match(services, /prism\.keyvalue\.v1\.KeyValue/);
    const schema = protocol === 'grpc' ? ['--http2-prior-knowledge'] : [];
    const pages = await bufCurl('--protocol', protocol, '--schema', proto, ...schema, '--data', scan, `${url}/Scan`);
    assert.equal(pages.match(/"id": "id-\d+"/g).length, ENTRIES);
  });
}

/** A stream by fetch: its text. */
const streamText = async (accept, init = {}, query = '') => {
  const response = await fetch(`${baseUrl}/prism.keyvalue.v1.KeyValue/Scan${query}`, {
    method: 'POST',
    body: query ? undefined : JSON.stringify({ namespace: streamed, selection: { itemLimit: 15 } }),
    ...init,
    headers: { 'content-type': 'application/json', accept, ...init.headers },
    ...within(),
  });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), accept);
  return response.text();
};
const entriesOf = (pages) => pages.flatMap(({ entries = [] }) => entries.map(({ id }) => id));

test('newline-delimited JSON', async () => {
  const lines = (await streamText('application/x-ndjson')).trimEnd().split('\n');
  assert(lines.length >= 3, `${lines.length} lines`);
  assert.equal(new Set(entriesOf(lines.map((line) => JSON.parse(line)))).size, ENTRIES);
});

test('server-sent events, and where they go on after a break', async () => {
  const events = (text) =>
    text.split('\n\n').filter(Boolean).map((event) => {
      const fields = event.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(': ') + 2)]);
      return Object.fromEntries(fields);
    });
  const all = events(await streamText('text/event-stream'));
  assert.deepEqual(all.shift(), { retry: '1000' });
  assert.deepEqual(all.pop(), { event: 'end', data: '{}' });
  const seen = entriesOf(all.map(({ data }) => JSON.parse(data)));
  assert.equal(new Set(seen).size, ENTRIES);

  // As an EventSource does it: by GET, with the id of the last event that came.
  const query = `?encoding=json&message=${encodeURIComponent(JSON.stringify({ namespace: streamed, selection: { itemLimit: 15 } }))}`;
  const again = await streamText('text/event-stream', { method: 'GET', headers: { 'last-event-id': all[0].id } }, query);
  const rest = events(again).filter(({ data, event }) => data && !event);
  const firstPage = entriesOf([JSON.parse(all[0].data)]);
  assert.deepEqual([...firstPage, ...entriesOf(rest.map(({ data }) => JSON.parse(data)))], seen);

  const failed = events(await streamText('text/event-stream', { body: '{"namespace":"nope"}' })).pop();
  assert.equal(failed.event, 'error');
  assert.equal(JSON.parse(failed.data).code, 'not_found');
});

test('gRPC-Web in base64, with a stream', async () => {
  const message = toBinary(ScanRequestSchema, create(ScanRequestSchema, { namespace: streamed, selection: { itemLimit: 15 } }));
  const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
  const response = await fetch(`${baseUrl}/prism.keyvalue.v1.KeyValue/Scan`, {
    method: 'POST',
    headers: { 'content-type': 'application/grpc-web-text', accept: 'application/grpc-web-text' },
    body: frame.toString('base64'),
    ...within(),
  });
  assert.equal(response.headers.get('content-type'), 'application/grpc-web-text+proto');
  // Each part may have its own padding.
  const parts = (await response.text()).match(/[^=]+=*/g);
  const body = Buffer.concat(parts.map((part) => Buffer.from(part, 'base64')));
  const frames = [];
  for (let at = 0; at < body.length; at += 5 + body.readUInt32BE(at + 1)) {
    frames.push([body[at], body.subarray(at + 5, at + 5 + body.readUInt32BE(at + 1))]);
  }
  const [flags, trailers] = frames.pop();
  assert.equal(flags, 0x80, 'the trailers');
  assert.match(trailers.toString(), /^grpc-status: 0\r\n/);
  assert(frames.length >= 3 && frames.every(([flags]) => flags === 0), `${frames.length} messages`);
  const pages = frames.map(([, message]) => fromBinary(ScanResponseSchema, message));
  assert.equal(new Set(entriesOf(pages)).size, ENTRIES);
});

test('gRPC-Web in base64', async () => {
  const message = Buffer.from('0a04' + Buffer.from('nope').toString('hex') + '120178', 'hex');
  const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
  const response = await fetch(`${baseUrl}/prism.keyvalue.v1.KeyValue/Get`, {
    method: 'POST',
    headers: { 'content-type': 'application/grpc-web-text' },
    body: frame.toString('base64'),
    ...within(),
  });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'application/grpc-web-text+proto');
  const body = Buffer.from(await response.text(), 'base64');
  assert.equal(body[0], 0x80, 'the trailers');
  assert.match(body.subarray(5).toString(), /^grpc-status: 5\r\ngrpc-message: .*nope/);
});
