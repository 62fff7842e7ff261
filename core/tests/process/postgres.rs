//! The gateway and the PostgreSQL after its log are killed in turn while clients write: nothing
//! acknowledged is lost, and nothing is done twice. `PRISM_TEST_ROUNDS` sets how often, three times
//! otherwise.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prism_codec::proto::prism::{
    common::v1::IdempotencyToken,
    keyvalue::v1::{
        CompareAndSwapRequest, CompareAndSwapResponse, GetRequest, GetResponse, Item, PutRequest,
        PutResponse, compare_and_swap_request::Expected,
    },
};
use prism_core::client::{Client, ClientError};

use super::{
    shared_catalog::server::Server,
    support::{Gateway, PATIENCE, Setup},
};

const NAMESPACE: &str = "kept";
/// How many count together, by swaps.
const COUNTERS: usize = 2;

/// State that the clients share: the gateway moves when it is started again.
struct Load {
    address: Mutex<String>,
    stop: AtomicBool,
    puts: AtomicU64,
    steps: AtomicU64,
}

impl Load {
    /// Makes a call until it has a definite answer: by the same token, it is one call.
    fn until_answered<T: Default + prost::Message>(&self, method: &str, request: &impl prost::Message) -> T {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let address = self.address.lock().expect("the address").clone();
            let answer = Client::connect(&address, PATIENCE).and_then(|mut client| {
                client.unary::<T>(&format!("/prism.keyvalue.v1.KeyValue/{method}"), request)
            });
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

    /// Waits until the clients have done more of both.
    fn go_on(&self) {
        let both = || [&self.puts, &self.steps].map(|count| count.load(Ordering::SeqCst));
        let (before, deadline) = (both(), Instant::now() + 2 * PATIENCE);
        while both().iter().zip(before).any(|(now, before)| *now < before + 20) {
            assert!(
                Instant::now() < deadline,
                "the clients do not go on: {:?} after {before:?}",
                both()
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
    let load = Load {
        address: Mutex::new(gateway.address().to_string()),
        stop: AtomicBool::new(false),
        puts: AtomicU64::new(0),
        steps: AtomicU64::new(0),
    };
    let (_gateway, ids, steps) = thread::scope(|scope| {
        let putting = scope.spawn(|| load.put(0));
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
        (gateway, ids, steps)
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
    println!(
        "{rounds} rounds: {} puts and {steps} swaps, none lost, none twice",
        ids.len()
    );
}
