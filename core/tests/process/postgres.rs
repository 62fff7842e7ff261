//! The gateway and the PostgreSQL after its log are killed in turn while clients write: nothing
//! acknowledged is lost, and nothing is done twice, of items and of messages. `PRISM_TEST_ROUNDS`
//! sets how often, three times otherwise.

use std::{
    fs,
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prism_codec::proto::prism::{
    admin::v1::{CreateRequest, CreateResponse},
    common::v1::IdempotencyToken,
    keyvalue::v1::{
        CompareAndSwapRequest, CompareAndSwapResponse, GetRequest, GetResponse, Item, PutRequest,
        PutResponse, compare_and_swap_request::Expected,
    },
    pubsub::v1::{
        Message, PublishRequest, PublishResponse, Start, StartAt, SubscribeRequest, SubscribeResponse,
        start_at::Place,
    },
};
use prism_core::client::{Client, ClientError};

use super::{
    shared_catalog::server::Server,
    support::{Gateway, PATIENCE, Setup},
};

const NAMESPACE: &str = "kept";
const EVENTS: &str = "events";
/// How many count together, by swaps.
const COUNTERS: usize = 2;

/// State that the clients share: the gateway moves when it is started again.
struct Load {
    address: Mutex<String>,
    stop: AtomicBool,
    puts: AtomicU64,
    steps: AtomicU64,
    messages: AtomicU64,
}

impl Load {
    /// Makes a call until it has a definite answer: by the same token, it is one call.
    fn until_answered<T: Default + prost::Message>(&self, method: &str, request: &impl prost::Message) -> T {
        self.until_answered_by("keyvalue.v1.KeyValue", method, request)
    }

    fn until_answered_by<T: Default + prost::Message>(
        &self,
        service: &str,
        method: &str,
        request: &impl prost::Message,
    ) -> T {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let address = self.address.lock().expect("the address").clone();
            let answer = Client::connect(&address, PATIENCE)
                .and_then(|mut client| client.unary::<T>(&format!("/prism.{service}/{method}"), request));
            match answer {
                Ok(answer) => return answer,
                // Anything that may pass: nobody listens, the connection broke, UNAVAILABLE …
                Err(ClientError::Status(status)) if !matches!(status.code, 2 | 4 | 8 | 14) => {
                    panic!("{method}: {status:?}")
                }
                Err(cause) => assert!(Instant::now() < deadline, "{method}: {cause}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn put(&self, writer: usize) -> Vec<String> {
        let mut done = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let id = format!("{writer}-{}", done.len());
            let request = PutRequest {
                namespace: NAMESPACE.to_owned(),
                id: id.clone(),
                idempotency_token: Some(token(&id)),
                items: vec![item(&id)],
            };
            self.until_answered::<PutResponse>("Put", &request);
            self.puts.fetch_add(1, Ordering::SeqCst);
            done.push(id);
        }
        done
    }

    /// Publishes under two keys in turn. Returns how many messages.
    fn publish(&self) -> u64 {
        let mut count = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let text = format!("{count:06}");
            let request = PublishRequest {
                namespace: EVENTS.to_owned(),
                idempotency_token: Some(token(&text)),
                message: Some(Message {
                    ordering_key: (count % 2).to_string(),
                    payload: text.into(),
                    ..Message::default()
                }),
            };
            self.until_answered_by::<PublishResponse>("pubsub.v1.PubSub", "Publish", &request);
            self.messages.fetch_add(1, Ordering::SeqCst);
            count += 1;
        }
        count
    }

    /// The payloads of all messages, once this many are there.
    fn payloads(&self, count: usize) -> Vec<String> {
        let request = SubscribeRequest {
            namespace: EVENTS.to_owned(),
            start: Some(StartAt {
                place: Some(Place::Start(Start::Earliest.into())),
            }),
            ..SubscribeRequest::default()
        };
        let address = self.address.lock().expect("the address").clone();
        let mut client = Client::connect(&address, 2 * PATIENCE).expect("the gateway takes connections");
        let mut payloads = Vec::new();
        let take = |answer: SubscribeResponse| {
            assert_eq!(answer.gap, None, "nothing has expired");
            let messages = answer.messages.into_iter();
            payloads.extend(messages.map(|one| {
                let payload = one.message.expect("a message").payload;
                String::from_utf8(payload).expect("a text")
            }));
            match payloads.len() < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        client
            .server_streaming("/prism.pubsub.v1.PubSub/Subscribe", &request, take)
            .expect("all messages");
        payloads
    }

    fn value(&self, id: &str) -> Option<String> {
        let request = GetRequest {
            namespace: NAMESPACE.to_owned(),
            id: id.to_owned(),
            ..GetRequest::default()
        };
        let mut answer: GetResponse = self.until_answered("Get", &request);
        let item = answer.items.pop()?;
        Some(String::from_utf8(item.value).expect("a text"))
    }

    /// Counts one up by swaps that others contend for; how often it succeeded.
    fn count(&self, writer: usize) -> u64 {
        let (mut steps, mut calls) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            let before = self.value("counter");
            let number: u64 = before
                .as_deref()
                .map_or(0, |text| text.parse().expect("a number"));
            calls += 1;
            let request = CompareAndSwapRequest {
                namespace: NAMESPACE.to_owned(),
                id: "counter".to_owned(),
                key: b"k".to_vec(),
                idempotency_token: Some(token(&format!("count-{writer}-{calls}"))),
                expected: Some(match before {
                    None => Expected::Absent(Default::default()),
                    Some(text) => Expected::Value(text.into_bytes()),
                }),
                item: Some(item(&(number + 1).to_string())),
            };
            let answer: CompareAndSwapResponse = self.until_answered("CompareAndSwap", &request);
            if answer.swapped {
                steps += 1;
                self.steps.fetch_add(1, Ordering::SeqCst);
            }
        }
        steps
    }

    /// Waits until the clients have done more of everything.
    fn go_on(&self) {
        let counts = [&self.puts, &self.steps, &self.messages];
        let done = || counts.map(|count| count.load(Ordering::SeqCst));
        let (before, deadline) = (done(), Instant::now() + 2 * PATIENCE);
        while done().iter().zip(before).any(|(now, before)| *now < before + 20) {
            assert!(
                Instant::now() < deadline,
                "the clients do not go on: {:?} after {before:?}",
                done()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn token(text: &str) -> IdempotencyToken {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    IdempotencyToken {
        generation_time: Some(prost_types::Timestamp {
            seconds: time.as_secs().cast_signed(),
            nanos: time.subsec_nanos().cast_signed(),
        }),
        token: text.as_bytes().to_vec(),
    }
}

fn item(value: &str) -> Item {
    Item {
        key: b"k".to_vec(),
        value: value.as_bytes().to_vec(),
        ..Item::default()
    }
}

fn start(setup: Setup, url: &str, shards: usize) -> Gateway {
    let file = setup.file("gateway.yaml");
    fs::write(
        &file,
        format!("stores:\n  orders:\n    kind: postgres\n    url: {url}\n    pool_max: 4\n"),
    )
    .expect("a file");
    let shards = shards.to_string();
    let file = file.to_str().expect("a plain path");
    let args = ["--config", file, "--embedded", "memory", "--shards", &shards];
    setup.args(&args).start()
}

#[test]
fn kills_of_gateway_and_server_lose_nothing_and_do_nothing_twice() {
    let rounds =
        std::env::var("PRISM_TEST_ROUNDS").map_or(3, |text| text.parse().expect("a number of rounds"));
    let mut server = Server::start(&[]);
    let url = server.url("postgres");
    let mut gateway = start(Setup::new(), &url, 2);
    gateway
        .create_namespace(NAMESPACE, "strong")
        .expect("a namespace");
    let yaml = format!(
        "namespace: {EVENTS}\nteam: tests\nclient_api: pubsub\nneeds: {{durability: strong, ordered: true}}\n"
    );
    let _: CreateResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
        .expect("a namespace of topics");
    let load = Load {
        address: Mutex::new(gateway.address().to_string()),
        stop: AtomicBool::new(false),
        puts: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        messages: AtomicU64::new(0),
    };
    let (_gateway, ids, steps, messages) = thread::scope(|scope| {
        let putting = scope.spawn(|| load.put(0));
        let publishing = scope.spawn(|| load.publish());
        let counting: Vec<_> = (0..COUNTERS)
            .map(|writer| {
                scope.spawn({
                    let load = &load;
                    move || load.count(writer)
                })
            })
            .collect();
        for round in 0..rounds {
            load.go_on();
            // The server goes first, or last, or with the gateway: what the log holds then differs.
            if round % 3 != 1 {
                server.kill();
                thread::sleep(Duration::from_millis(50));
            }
            let directory = gateway.kill();
            if round % 3 == 2 {
                server.resume();
            }
            gateway = start(Setup::on(directory), &url, 2);
            *load.address.lock().expect("the address") = gateway.address().to_string();
            match round % 3 {
                0 => server.resume(),
                1 => {
                    server.kill();
                    thread::sleep(Duration::from_millis(50));
                    server.resume();
                }
                _ => {}
            }
        }
        load.go_on();
        load.stop.store(true, Ordering::SeqCst);
        let ids = putting.join().expect("the puts");
        let steps = counting.into_iter().map(|one| one.join().expect("the swaps"));
        let steps: u64 = steps.sum();
        let messages = publishing.join().expect("the messages");
        (gateway, ids, steps, messages)
    });
    for id in &ids {
        assert_eq!(load.value(id).as_deref(), Some(id.as_str()), "{id} is lost");
    }
    let counted = load.value("counter").expect("a number");
    assert_eq!(
        counted,
        steps.to_string(),
        "each swap that was acknowledged counts once"
    );
    let payloads = load.payloads(messages as usize);
    for key in 0..2 {
        let own = payloads
            .iter()
            .map(|payload| payload.parse::<u64>().expect("a number"));
        let own: Vec<_> = own.filter(|number| number % 2 == key).collect();
        let published: Vec<_> = (0..messages).filter(|number| number % 2 == key).collect();
        assert_eq!(own, published, "each message of a key once, in order");
    }
    println!(
        "{rounds} rounds: {} puts, {steps} swaps and {messages} messages, none lost, none twice",
        ids.len()
    );
}
