//! A small KeyValue server over real sockets, made of the codec's own HTTP/2 connection, that
//! misbehaves on demand.
//!
//! One thread per connection over one shared map. It is right by default: last write wins by
//! generation time, one write is atomic. Each `Manner` breaks one promise, to show that the load
//! generator notices.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use prism_codec::{
    h2::{self, Event, Input, StreamId},
    message::{
        common::{StatusOut, TokenView, WriteResultView},
        keyvalue::{
            CompareAndSwapView, DeleteView, ExpectedView, GetResponseWriter, GetView, ItemView, MutateView,
            MutationOperation, PredicateView, PutView, ScanResponseWriter, encode_compare_and_swap_response,
        },
        receipt::{ItemResultsWriter, encode_write_response},
    },
};

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Right,
    /// Every so many Gets, two answers go to each other's streams.
    SwapEvery(u64),
    /// Once, at this request, nothing is read or answered for a while, by any connection.
    StallAt(u64, Duration),
    /// Every so many Gets, the answer is what the key held before its last write.
    StaleEvery(u64),
    /// Every so many Puts are acknowledged and forgotten.
    ForgetEvery(u64),
    /// Every so many Gets, one item of several is missing.
    TearEvery(u64),
    /// Every so many requests are refused with this code.
    RefuseEvery(u64, u8),
    /// Every so many requests are never answered.
    SilentEvery(u64),
    /// Every so many requests, the connection is dropped.
    DropEvery(u64),
}

type Items = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

#[derive(Default)]
struct Store {
    ids: BTreeMap<String, Items>,
    before: HashMap<String, Items>,
    /// Generation time of the last deletion of an id.
    deleted: HashMap<String, u64>,
}

/// A running server. It ends with the process.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Connections that were accepted.
    pub(crate) connections: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Shared {
    manner: Manner,
    store: Arc<Mutex<Store>>,
    requests: Arc<AtomicU64>,
    gets: Arc<AtomicU64>,
    /// Held while all connections stall.
    gate: Arc<Mutex<()>>,
}

impl Server {
    /// Starts a server on a free port of the loopback interface.
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Shared {
            manner,
            store: Arc::default(),
            requests: Arc::default(),
            gets: Arc::default(),
            gate: Arc::default(),
        };
        let connections = Arc::<AtomicU64>::default();
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                thread::spawn(move || serve(socket, &shared));
            }
        });
        Self { address, connections }
    }
}

/// A request that comes in.
#[derive(Default)]
struct Incoming {
    method: u32,
    body: Vec<u8>,
}

fn serve(mut socket: TcpStream, shared: &Shared) {
    socket.set_nodelay(true).expect("a TCP socket");
    let mut h2 = h2::Connection::new(h2::Config::server());
    let mut incoming: HashMap<StreamId, Incoming> = HashMap::new();
    let (mut received, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let mut held: Option<(StreamId, Vec<u8>)> = None;
    loop {
        if socket.write_all(h2.output()).is_err() {
            return;
        }
        h2.output().clear();
        let Ok(count @ 1..) = socket.read(&mut buffer) else {
            return;
        };
        drop(shared.gate.lock().expect("no thread panics with it"));
        received.extend_from_slice(&buffer[..count]);
        let bytes = std::mem::take(&mut received);
        let mut input = Input::new(&bytes);
        loop {
            let whole = match h2.poll_event(&mut input) {
                Ok(None) => break,
                Err(_) => return,
                Ok(Some(Event::Headers { stream, headers, .. })) => {
                    let method = method_of(headers.get(b":path").unwrap_or_default());
                    incoming.insert(
                        stream,
                        Incoming {
                            method,
                            body: Vec::new(),
                        },
                    );
                    None
                }
                Ok(Some(Event::Data {
                    stream,
                    data,
                    end_stream,
                })) => {
                    let whole = incoming
                        .get_mut(&stream)
                        .map(|request| request.body.extend_from_slice(data));
                    whole.and_then(|()| end_stream.then_some(stream))
                }
                Ok(Some(Event::Reset { stream, .. })) => {
                    incoming.remove(&stream);
                    None
                }
                Ok(Some(_)) => None,
            };
            let Some(stream) = whole else { continue };
            let Some(request) = incoming.remove(&stream) else {
                continue;
            };
            if !answer(&mut h2, stream, &request, shared, &mut held) {
                return;
            }
        }
        if let Some((stream, reply)) = held.take() {
            // Nobody came to swap with.
            let _ = h2.send_grpc_reply(stream, |out| out.extend_from_slice(&reply));
        }
        received = bytes[input.consumed()..].to_vec();
    }
}

const METHODS: [&str; 6] = ["Put", "Get", "Delete", "Scan", "Mutate", "CompareAndSwap"];

fn method_of(path: &[u8]) -> u32 {
    let path = String::from_utf8_lossy(path);
    let name = path
        .strip_prefix("/prism.keyvalue.v1.KeyValue/")
        .unwrap_or_default();
    METHODS
        .iter()
        .position(|known| *known == name)
        .map_or(99, |index| index as u32)
}

/// Answers one request; false: drop the connection.
fn answer(
    h2: &mut h2::Connection,
    stream: StreamId,
    request: &Incoming,
    shared: &Shared,
    held: &mut Option<(StreamId, Vec<u8>)>,
) -> bool {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let every = |n: u64| number.is_multiple_of(n);
    match shared.manner {
        Manner::StallAt(at, time) if at == number => {
            // The one sleep of these tests: a server that stalls is what is tested.
            let _gate = shared.gate.lock().expect("no thread panics with it");
            thread::sleep(time);
        }
        Manner::RefuseEvery(n, code) if every(n) => {
            let _ = h2.send_grpc_error(stream, code, "refused on purpose", None);
            return true;
        }
        Manner::SilentEvery(n) if every(n) => return true,
        Manner::DropEvery(n) if every(n) => return false,
        _ => {}
    }
    let Some(message) = request.body.get(5..) else {
        return false;
    };
    let mut reply = Vec::new();
    match handle(request.method, message, shared, &mut reply) {
        None => {
            let _ = h2.send_grpc_error(stream, 13, "can not be decoded", None);
        }
        // A second Get in the same batch: both answers go to the wrong streams.
        Some(true) => match held.take() {
            None => *held = Some((stream, reply)),
            Some((other, other_reply)) => {
                let _ = h2.send_grpc_reply(stream, |out| out.extend_from_slice(&other_reply));
                let _ = h2.send_grpc_reply(other, |out| out.extend_from_slice(&reply));
            }
        },
        Some(false) => {
            let _ = h2.send_grpc_reply(stream, |out| out.extend_from_slice(&reply));
        }
    }
    true
}

/// Writes the reply; gives whether it is to be swapped.
fn handle(method: u32, message: &[u8], shared: &Shared, reply: &mut Vec<u8>) -> Option<bool> {
    let mut store = shared.store.lock().expect("no thread panics with it");
    let store = &mut *store;
    let done = WriteResultView {
        durability: 1,
        lane: 2,
        lsn: 3,
        applied: true,
    };
    match method {
        0 => {
            let put = PutView::decode(message).ok()?;
            let number = shared.requests.load(Ordering::Relaxed);
            if !matches!(shared.manner, Manner::ForgetEvery(n) if number.is_multiple_of(n)) {
                write(store, put.id, time_of(put.token), put.items.iter());
            }
            encode_write_response(reply, &done, &[]);
        }
        1 => return get(store, &GetView::decode(message).ok()?, shared, reply),
        2 => {
            let delete = DeleteView::decode(message).ok()?;
            let time = time_of(delete.token);
            if let Some(items) = store.ids.get_mut(delete.id) {
                items.retain(|_, (written, _)| *written > time);
            }
            let deleted = store.deleted.entry(delete.id.to_owned()).or_default();
            *deleted = time.max(*deleted);
            encode_write_response(reply, &done, &[]);
        }
        3 => {
            let mut writer = ScanResponseWriter::new(reply);
            for (id, items) in store.ids.iter().take(100) {
                writer.entry(id);
                items
                    .iter()
                    .for_each(|(key, (_, value))| writer.item(&item(key, value)));
            }
            writer.finish(b"");
        }
        4 => {
            let mutate = MutateView::decode(message).ok()?;
            let mut writer = ItemResultsWriter::new(reply);
            for mutation in mutate.mutations.iter() {
                let Ok(MutationOperation::Put(items)) = mutation.operation else {
                    return None;
                };
                write(store, mutation.id, time_of(mutate.token), items.iter());
                writer.result(Some(&StatusOut::default()), Some(&done), &[]);
            }
        }
        5 => swap(store, &CompareAndSwapView::decode(message).ok()?, &done, reply),
        _ => return None,
    }
    Some(false)
}

fn get(store: &Store, get: &GetView<'_>, shared: &Shared, reply: &mut Vec<u8>) -> Option<bool> {
    let number = shared.gets.fetch_add(1, Ordering::Relaxed) + 1;
    let empty = Items::new();
    let items = match shared.manner {
        Manner::StaleEvery(n) if number.is_multiple_of(n) => store.before.get(get.id),
        _ => store.ids.get(get.id),
    };
    let limit = get.selection.item_limit_effective();
    let torn = matches!(shared.manner, Manner::TearEvery(n) if number.is_multiple_of(n));
    let mut writer = GetResponseWriter::new(reply);
    let wanted = |key: &[u8]| match &get.predicate {
        PredicateView::All => true,
        PredicateView::Keys(keys) => keys.iter().any(|wanted| wanted == key),
        PredicateView::Range { start, end } => *start <= key && (end.is_empty() || key < *end),
    };
    let found = items
        .unwrap_or(&empty)
        .iter()
        .filter(|(key, _)| wanted(key))
        .skip(usize::from(torn))
        .take(limit);
    found.for_each(|(key, (_, value))| writer.item(&item(key, value)));
    writer.finish(b"");
    Some(matches!(shared.manner, Manner::SwapEvery(n) if number % n < 2))
}

fn swap(store: &mut Store, swap: &CompareAndSwapView<'_>, done: &WriteResultView, reply: &mut Vec<u8>) {
    let current = store
        .ids
        .get(swap.id)
        .and_then(|items| items.get(swap.key))
        .map(|(_, value)| value.clone());
    let expected = match swap.expected {
        ExpectedView::Absent => None,
        ExpectedView::Value(value) => Some(value.to_vec()),
        ExpectedView::Version(_) => panic!("the load generator swaps by value"),
    };
    let swapped = current == expected;
    if swapped {
        write(store, swap.id, time_of(swap.token), swap.item.into_iter());
    }
    let shown = current
        .as_deref()
        .filter(|_| !swapped)
        .map(|value| item(swap.key, value));
    encode_compare_and_swap_response(reply, swapped, shown.as_ref(), swapped.then_some(done));
}

fn item<'a>(key: &'a [u8], value: &'a [u8]) -> ItemView<'a> {
    ItemView {
        key,
        value,
        ttl: None,
        compression: 0,
        version: b"",
    }
}

fn write<'a>(store: &mut Store, id: &str, time: u64, new: impl Iterator<Item = ItemView<'a>>) {
    if store.deleted.get(id).is_some_and(|&deleted| deleted > time) {
        return;
    }
    let items = store.ids.entry(id.to_owned()).or_default();
    store.before.insert(id.to_owned(), items.clone());
    for item in new {
        let slot = items.entry(item.key.to_vec()).or_default();
        if slot.0 <= time {
            *slot = (time, item.value.to_vec());
        }
    }
}

fn time_of(token: Option<TokenView<'_>>) -> u64 {
    let time = token
        .and_then(|token| token.generation_time)
        .and_then(|time| time.as_unix_nanos());
    time.map_or_else(prism_loadgen::worker::unix_ns, |time| time as u64)
}
