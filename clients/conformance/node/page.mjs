// What browser.test.mjs runs in a page: connect-es with its two transports for browsers, fetch and EventSource.

import { Code, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { KeyValue } from './gen/prism/keyvalue/v1/keyvalue_pb.js';

const bytes = (text) => new TextEncoder().encode(text);
const text = (raw) => new TextDecoder().decode(raw);

/** Calls through every transport; returns what came of each. */
const calls = async (baseUrl, namespace) => {
  const results = {};
  for (const useBinaryFormat of [true, false]) {
    const options = { baseUrl, useBinaryFormat };
    const form = useBinaryFormat ? 'protobuf' : 'JSON';
    results[`Connect, ${form}`] = await through(createConnectTransport({ ...options, useHttpGet: true }), namespace);
    results[`gRPC-Web, ${form}`] = await through(createGrpcWebTransport(options), namespace);
  }
  return results;
};

const through = async (transport, namespace) => {
  const kv = createClient(KeyValue, transport);
  const value = 'large enough to be compressed '.repeat(2_000);
  for (const id of ['a', 'b', 'c']) {
    await kv.put({ namespace, id, items: [{ key: bytes('k'), value: bytes(value) }] });
  }
  const { items } = await kv.get({ namespace, id: 'b' });
  const scanned = new Set();
  let pages = 0;
  for await (const page of kv.scan({ namespace, selection: { itemLimit: 1 } })) {
    pages += 1;
    page.entries.forEach(({ id }) => scanned.add(id));
  }
  const error = await kv.get({ namespace: 'nope', id: 'x' }).catch((error) => error);
  const streamError = await (async () => {
    for await (const _ of kv.scan({ namespace: 'nope' }));
  })().catch((error) => error);
  return {
    value: text(items[0].value) === value,
    scanned: [...scanned].sort(),
    pages,
    errors: [error, streamError].map(({ code, rawMessage, details }) => [
      Code[code],
      /"nope" does not exist/.test(rawMessage),
      details.map(({ type }) => type),
    ]),
  };
};

/** The events of a stream, by an EventSource. */
const events = (baseUrl, namespace) =>
  new Promise((resolve, reject) => {
    const message = encodeURIComponent(JSON.stringify({ namespace, selection: { itemLimit: 1 } }));
    const source = new EventSource(`${baseUrl}/prism.keyvalue.v1.KeyValue/Scan?encoding=json&message=${message}`);
    const ids = [];
    source.onmessage = ({ data }) => JSON.parse(data).entries?.forEach(({ id }) => ids.push(id));
    source.addEventListener('end', () => {
      source.close();
      resolve([...new Set(ids)].sort());
    });
    source.onerror = () => {
      source.close();
      reject(new Error(`the stream broke off after ${ids}`));
    };
  });

/** What a page may do by fetch that is no part of a call: the status, or the word "blocked". */
const attempt = (url, init) => fetch(url, init).then(({ status }) => status, () => 'blocked');

globalThis.prism = { calls, events, attempt };
