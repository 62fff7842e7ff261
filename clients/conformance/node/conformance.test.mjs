// Prism under @grpc/grpc-js, and what only a raw HTTP/2 client can ask. These tests need a server:
// clients/conformance/run starts it and says in the environment where it is (PRISM_TARGET, PRISM_PID, PRISM_NAMESPACE).

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import { after, before, test } from 'node:test';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const target = process.env.PRISM_TARGET;
const namespace = process.env.PRISM_NAMESPACE;
assert(target, 'PRISM_TARGET is not set: run clients/conformance/run, which starts the server');

// Enough for a debug build on a busy machine; no test waits for it unless something is wrong.
const PATIENCE_MS = 30_000;
const MESSAGE_BYTES_MAX = 17 << 20;
const PROTO = fileURLToPath(new URL('../../../proto', import.meta.url));
const definitions = loader.loadSync(
  [
    'prism/keyvalue/v1/keyvalue.proto',
    'prism/admin/v1/namespaces.proto',
    'grpc/health/v1/health.proto',
    'grpc/reflection/v1/reflection.proto',
    'google/rpc/status.proto',
    'google/rpc/error_details.proto',
  ],
  { includeDirs: [PROTO], keepCase: true, longs: Number, enums: String, defaults: true },
);
const api = grpc.loadPackageDefinition(definitions);
const options = {
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': -1,
  'grpc.use_local_subchannel_pool': 1,
};

const open = [];
const connect = (Service, more = {}) => {
  const client = new Service(target, grpc.credentials.createInsecure(), { ...options, ...more });
  open.push(client);
  return client;
};
let kv;
let namespaces;
before(() => {
  kv = connect(api.prism.keyvalue.v1.KeyValue);
  namespaces = connect(api.prism.admin.v1.Namespaces);
});
after(() => open.forEach((client) => client.close()));

let ids = 0;
const freshId = () => `node-${process.pid}-${ids++}`;

/** One unary call as a promise. */
const call = (client, method, request, { metadata = new grpc.Metadata(), ...more } = {}) =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + PATIENCE_MS;
    client[method](request, metadata, { deadline, ...more }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
const put = (id, value, where = namespace, client = kv) =>
  call(client, 'Put', { namespace: where, id, items: [{ key: Buffer.from('k'), value: Buffer.from(value) }] });
const get = (id, client = kv) => call(client, 'Get', { namespace, id });
/** Fails unless the id holds exactly one item, with key "k" and this value. */
const mustHold = async (id, value, client = kv) => {
  const { items } = await get(id, client);
  assert.equal(items.length, 1);
  assert.equal(items[0].key.toString(), 'k');
  assert(items[0].value.equals(Buffer.from(value)), `${id} holds another value than was written`);
};
const mustFail = async (promise, ...codes) => {
  const error = await promise.then(
    () => assert.fail('the call succeeded'),
    (error) => error,
  );
  const names = codes.map((code) => grpc.status[code]);
  assert(codes.includes(error.code), `got ${grpc.status[error.code]} (${error.message}), want ${names}`);
  return error;
};
/** Runs the block while the server's process does not: what is sent waits in the kernel. */
const whileFrozen = async (block) => {
  const pid = Number(process.env.PRISM_PID);
  process.kill(pid, 'SIGSTOP');
  try {
    // The signal takes effect a moment after it was sent, thread by thread.
    for (let turn = 0; !isStopped(pid); turn++) {
      assert(turn < 10_000, 'the server does not stop');
      await setTimeout(1);
    }
    return await block();
  } finally {
    process.kill(pid, 'SIGCONT');
  }
};
const isStopped = (pid) =>
  readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
  });
const scratchNamespace = async (t, name) => {
  const yaml = `namespace: ${name}\nteam: conformance\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n`;
  await call(namespaces, 'Create', { yaml });
  t.after(() => call(namespaces, 'Delete', { name }));
  return name;
};
/** The messages in `grpc-status-details-bin`, by their short type name. */
const details = (error) => {
  const [raw] = error.metadata.get('grpc-status-details-bin');
  assert(raw, 'the error carries no grpc-status-details-bin');
  const status = definitions['google.rpc.Status'].deserialize(raw);
  assert.equal(status.code, error.code);
  const found = {};
  for (const any of status.details) {
    // proto-loader has already turned an Any of a type it knows into an object.
    const type = (any['@type'] ?? any.type_url).split('/').pop();
    found[type.split('.').pop()] = any['@type'] ? any : definitions[type].deserialize(any.value);
  }
  return found;
};

test('unary calls', async () => {
  const id = freshId();
  const { result } = await put(id, [0, 255]);
  const durability = process.env.PRISM_DURABILITY ?? 'best-effort';
  assert.equal(result.durability, `DURABILITY_${durability.toUpperCase().replace('-', '_')}`);
  if (durability === 'strong') assert.ok(result.lane > 0 && Number(result.lsn) > 0);
  else assert.equal(result.applied, true);
  await mustHold(id, [0, 255]);

  const swap = { namespace, id, key: Buffer.from('k'), value: Buffer.from([0, 255]), item: { value: Buffer.from('swapped') } };
  assert.equal((await call(kv, 'CompareAndSwap', swap)).swapped, true);
  const refused = await call(kv, 'CompareAndSwap', swap);
  assert.equal(refused.swapped, false);
  assert.equal(refused.current.value.toString(), 'swapped');
  const { value, ...rest } = swap;
  const byVersion = { ...rest, version: refused.current.version, item: { value: Buffer.from('by version') } };
  assert.equal((await call(kv, 'CompareAndSwap', byVersion)).swapped, true);
  assert.equal((await call(kv, 'CompareAndSwap', byVersion)).swapped, false);

  const mutations = [
    { id, delete: {} },
    { id: `${id}-b`, put: { items: [{ key: Buffer.from('k'), value: Buffer.from('v') }] } },
  ];
  const { results } = await call(kv, 'Mutate', { namespace, mutations });
  assert.deepEqual(results.map((each) => each.status?.code ?? 0), [0, 0]);
  await mustHold(`${id}-b`, 'v');
  await call(kv, 'Delete', { namespace, id: `${id}-b` });
  assert.equal((await get(id)).items.length, 0);
  assert.equal((await get(`${id}-b`)).items.length, 0);
});

test('scan streams the whole namespace in pages', async (t) => {
  const name = await scratchNamespace(t, 'node-scan');
  const expected = new Map(Array.from({ length: 200 }, (_, n) => [`id-${n}`, `value ${n}`]));
  await Promise.all([...expected].map(([id, value]) => put(id, value, name)));
  const found = new Map();
  let pages = 0;
  const deadline = Date.now() + PATIENCE_MS;
  for await (const page of kv.Scan({ namespace: name, selection: { item_limit: 20 } }, { deadline })) {
    pages += 1;
    assert(page.entries.length <= 20);
    for (const entry of page.entries) found.set(entry.id, entry.items[0].value.toString());
  }
  assert(pages >= 10, `only ${pages} pages`);
  assert.deepEqual(new Map([...found].sort()), new Map([...expected].sort()));
});

test('deadline exceeded while the server is frozen', async () => {
  const id = freshId();
  await put(id, 'v');
  await whileFrozen(() =>
    mustFail(call(kv, 'Get', { namespace, id }, { deadline: Date.now() + 200 }), grpc.status.DEADLINE_EXCEEDED),
  );
  await mustHold(id, 'v');
});

test('cancel of a unary call', async () => {
  const id = freshId();
  await put(id, 'v');
  let kept;
  await whileFrozen(async () => {
    kept = get(id);
    const cancelled = new Promise((resolve) => {
      const pending = kv.Get({ namespace, id }, { deadline: Date.now() + PATIENCE_MS }, resolve);
      setImmediate().then(() => pending.cancel());
    });
    assert.equal((await cancelled).code, grpc.status.CANCELLED);
  });
  assert.equal((await kept).items.length, 1, 'a cancelled call takes no other along');
  await mustHold(id, 'v');
});

test('cancel in the middle of a scan', async (t) => {
  const name = await scratchNamespace(t, 'node-cancel');
  // No compression shrinks these: the server cannot have sent all of them when the cancel comes.
  for (let n = 0; n < 64; n++) await put(`id-${n}`, randomBytes(65536), name);
  const request = { namespace: name, selection: { item_limit: 1 } };
  for (let round = 0; round < 20; round++) {
    const stream = kv.Scan(request, { deadline: Date.now() + PATIENCE_MS });
    await once(stream, 'data');
    stream.on('data', () => {});
    const ended = once(stream, 'error').catch((error) => [error]);
    stream.cancel();
    const [error] = await ended;
    assert.equal(error.code, grpc.status.CANCELLED);
  }
  let entries = 0;
  for await (const page of kv.Scan(request, { deadline: Date.now() + PATIENCE_MS })) entries += page.entries.length;
  assert.equal(entries, 64, 'the connection outlives its cancelled calls');
});

test('4 MiB both ways', async () => {
  const id = freshId();
  const value = Buffer.alloc(4 << 20, '0123456789abcdef');
  await put(id, value);
  await mustHold(id, value);
});

test('a message beyond the maximum is refused', async () => {
  const id = freshId();
  await mustFail(put(id, Buffer.alloc(MESSAGE_BYTES_MAX)), grpc.status.RESOURCE_EXHAUSTED);
  await put(id, 'small');
  await mustHold(id, 'small');
});

test('metadata is accepted and readable', async () => {
  const metadata = new grpc.Metadata();
  metadata.set('x-request-id', 'abc 123');
  metadata.set('x-trace-bin', Buffer.from(Array.from({ length: 256 }, (_, n) => n)));
  metadata.add('x-twice', '1');
  metadata.add('x-twice', '2');
  const request = { namespace, id: freshId(), items: [{ key: Buffer.from('k'), value: Buffer.from('v') }] };
  const pending = kv.Put(request, metadata, { deadline: Date.now() + PATIENCE_MS }, () => {});
  const [[initial], [status]] = await Promise.all([once(pending, 'metadata'), once(pending, 'status')]);
  assert.equal(status.code, grpc.status.OK);
  assert(initial instanceof grpc.Metadata && status.metadata instanceof grpc.Metadata);
});

test('metadata beyond the maximum is refused', async () => {
  const id = freshId();
  const metadata = new grpc.Metadata();
  metadata.set('x-large', 'h'.repeat(20 << 10));
  await mustFail(
    call(kv, 'Get', { namespace, id }, { metadata }),
    grpc.status.RESOURCE_EXHAUSTED,
    grpc.status.UNKNOWN,
    grpc.status.INTERNAL,
  );
  await put(id, 'v');
  await mustHold(id, 'v');
});

test('gzip requests', async () => {
  const client = connect(api.prism.keyvalue.v1.KeyValue, {
    'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
  });
  const id = freshId();
  const value = Buffer.alloc(200_000, 'compressible ');
  await put(id, value, namespace, client);
  await mustHold(id, value, client);
  await mustHold(id, value);
});

test('1,000 concurrent streams on one channel', async () => {
  const id = freshId();
  await put(id, 'warm');
  let pending;
  await whileFrozen(async () => {
    // None can be answered before the last one is on its way; sending takes some turns of the event loop.
    pending = Array.from({ length: 1000 }, (_, n) => put(`${id}-${n}`, `value ${n}`));
    for (let turn = 0; turn < 50; turn++) await setImmediate();
  });
  await Promise.all(pending);
  await Promise.all(Array.from({ length: 1000 }, (_, n) => mustHold(`${id}-${n}`, `value ${n}`)));
});

test('unknown methods', async () => {
  for (const path of ['/prism.keyvalue.v1.KeyValue/Nope', '/prism.keyvalue.v1.Nope/Put']) {
    const same = (bytes) => bytes;
    const attempt = new Promise((resolve, reject) =>
      kv.makeUnaryRequest(path, same, same, Buffer.alloc(0), { deadline: Date.now() + PATIENCE_MS }, (error, reply) =>
        error ? reject(error) : resolve(reply),
      ),
    );
    await mustFail(attempt, grpc.status.UNIMPLEMENTED);
  }
});

test('unknown namespace', async () => {
  const error = await mustFail(call(kv, 'Get', { namespace: 'no-such-namespace', id: 'x' }), grpc.status.NOT_FOUND);
  const { ErrorInfo } = details(error);
  assert.equal(ErrorInfo.domain, 'prism');
  assert.equal(ErrorInfo.reason, 'NAMESPACE_UNKNOWN');
});

test('an invalid argument names the field', async () => {
  const items = [{ key: Buffer.alloc(1025), value: Buffer.from('v') }];
  const error = await mustFail(call(kv, 'Put', { namespace, id: 'x', items }), grpc.status.INVALID_ARGUMENT);
  const { BadRequest } = details(error);
  assert.deepEqual(BadRequest.field_violations.map(({ field }) => field), ['items[0].key']);
});

test('a token of another call is refused', async () => {
  const id = freshId();
  const now = Date.now();
  const generation_time = { seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1_000_000 };
  const idempotency_token = { generation_time, token: Buffer.from(id) };
  const request = { namespace, id, key: Buffer.from('k'), idempotency_token, absent: {}, item: { value: Buffer.from('1') } };
  assert.equal((await call(kv, 'CompareAndSwap', request)).swapped, true);
  const other = { ...request, item: { value: Buffer.from('2') } };
  const error = await mustFail(call(kv, 'CompareAndSwap', other), grpc.status.INVALID_ARGUMENT);
  assert.equal(details(error).ErrorInfo.reason, 'TOKEN_REUSED');
  assert.equal((await call(kv, 'CompareAndSwap', request)).swapped, true);
  await mustHold(id, '1');
});

test('health', async () => {
  const health = connect(api.grpc.health.v1.Health);
  assert.equal((await call(health, 'Check', { service: 'prism.keyvalue.v1.KeyValue' })).status, 'SERVING');
  await mustFail(call(health, 'Check', { service: 'nope' }), grpc.status.NOT_FOUND);
});

test('server reflection', async () => {
  const reflection = connect(api.grpc.reflection.v1.ServerReflection);
  const stream = reflection.ServerReflectionInfo({ deadline: Date.now() + PATIENCE_MS });
  const replies = stream[Symbol.asyncIterator]();
  stream.write({ list_services: '*' });
  const { service } = (await replies.next()).value.list_services_response;
  const names = service.map(({ name }) => name);
  for (const want of ['prism.keyvalue.v1.KeyValue', 'prism.admin.v1.Namespaces', 'grpc.health.v1.Health']) {
    assert(names.includes(want), `${want} is not among ${names}`);
  }
  stream.write({ file_containing_symbol: 'prism.keyvalue.v1.KeyValue' });
  const files = (await replies.next()).value.file_descriptor_response.file_descriptor_proto;
  stream.end();
  assert.equal((await replies.next()).done, true, 'the server ends the stream when the client has');
  const described = grpc.loadPackageDefinition(loader.loadFileDescriptorSetFromBuffer(descriptorSet(files)));
  assert.deepEqual(
    Object.keys(described.prism.keyvalue.v1.KeyValue.service).sort(),
    ['CompareAndSwap', 'Delete', 'Get', 'Mutate', 'Put', 'Scan'],
  );
});

/** A FileDescriptorSet of serialized files: field 1, each with its length before it. */
const descriptorSet = (files) =>
  Buffer.concat(
    files.flatMap((file) => {
      const length = [];
      let rest = file.length;
      for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
      return [Buffer.from([0x0a, ...length, rest]), file];
    }),
  );

/** One raw HTTP/2 request; resolves to its response headers, trailers and body. */
const raw = async (session, headers, body) => {
  const stream = session.request({ ':method': 'POST', te: 'trailers', ...headers });
  let trailers = {};
  const chunks = [];
  stream.on('trailers', (received) => (trailers = received));
  stream.on('data', (chunk) => chunks.push(chunk));
  stream.setTimeout(PATIENCE_MS, () => stream.close(http2.constants.NGHTTP2_CANCEL));
  const answered = once(stream, 'response');
  stream.end(body);
  const [response] = await answered;
  if (!stream.closed) await once(stream, 'close');
  return { response, trailers, body: Buffer.concat(chunks) };
};
const frame = (message) => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
};

test('raw HTTP/2: content types and deadlines, many in any order on one connection', async (t) => {
  const session = http2.connect(`http://${target}`);
  t.after(() => session.close());
  const path = '/prism.keyvalue.v1.KeyValue/Get';
  const serialize = definitions['prism.keyvalue.v1.KeyValue'].Get.requestSerialize;
  const body = frame(serialize({ namespace, id: 'nothing here' }));
  const attempts = Array.from({ length: 30 }, async (_, n) => {
    if (n % 3 === 0) {
      const wrong = await raw(session, { ':path': path, 'content-type': 'text/html' }, body);
      assert.equal(wrong.response[':status'], 415);
    } else if (n % 3 === 1) {
      const late = await raw(session, { ':path': path, 'content-type': 'application/grpc', 'grpc-timeout': '1n' }, body);
      const status = late.response['grpc-status'] ?? late.trailers['grpc-status'];
      assert.equal(status, '4', 'the server itself says DEADLINE_EXCEEDED');
    } else {
      const fine = await raw(session, { ':path': path, 'content-type': 'application/grpc+proto' }, body);
      assert.equal(fine.response[':status'], 200);
      assert.equal(fine.trailers['grpc-status'], '0');
      assert(fine.body.subarray(0, 5).equals(Buffer.from([0, 0, 0, 0, 0])), 'an empty GetResponse');
    }
  });
  await Promise.all(attempts);
});

test('a body beyond the maximum over HTTP/1.1: the refusal reaches a client that still sends, 20 of 20', async () => {
  const [host, port] = target.split(':');
  const path = '/prism.keyvalue.v1.KeyValue/Put';
  const body = Buffer.alloc(64 << 20, ' ');
  for (let attempt = 0; attempt < 20; attempt++) {
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const request = http.request({ host, port, path, method: 'POST', headers, agent: false, timeout: PATIENCE_MS });
    const answered = once(request, 'response');
    request.end(body);
    const [response] = await answered;
    const chunks = [];
    // What is left of the upload may fail once the answer is there.
    request.on('error', () => {});
    for await (const chunk of response) chunks.push(chunk);
    assert.equal(response.statusCode, 413);
    assert.equal(JSON.parse(Buffer.concat(chunks)).code, 'resource_exhausted');
  }
});

test('an error comes before the client has ended its request', async (t) => {
  const session = http2.connect(`http://${target}`);
  t.after(() => session.close());
  for (const [path, type] of [['/no.such/Path', 'application/grpc'], ['/prism.keyvalue.v1.KeyValue/Put', 'text/html']]) {
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': type, te: 'trailers' });
    stream.setTimeout(PATIENCE_MS, () => stream.close(http2.constants.NGHTTP2_CANCEL));
    const answered = once(stream, 'response');
    stream.write('the beginning');
    const [response] = await answered;
    assert(response['grpc-status'] === '12' || response[':status'] === 415, JSON.stringify(response));
    // Not ended by this side: the server asks to stop, without an error.
    stream.resume();
    await once(stream, 'close');
    assert.equal(stream.rstCode, http2.constants.NGHTTP2_NO_ERROR);
  }
});
