//! Plain clients, to be measured next to the gateway: one that pipelines commands to Redis, one
//! that publishes to NATS and awaits its acknowledgements, and one that publishes batches to the
//! gateway. Each prints one line of JSON; `bench/stores` runs them.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use clap::Subcommand;
use prism_codec::proto::prism::pubsub::v1::{Message, PublishBatchRequest, PublishBatchResponse};
use prism_core::client::Client;
use serde_json::json;
use tokio::task::LocalSet;

/// Keys that are written and read.
const KEYS: u64 = 10_000;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A plain client.
#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// Pipelines HSET, then HGET, on multiplexed connections
    Redis {
        /// The server, or a proxy before it.
        #[arg(long)]
        server: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Calls under way on all connections together.
        #[arg(long, default_value_t = 256)]
        outstanding: u64,
        /// Calls due per second; without it each is made as soon as the one before is answered.
        #[arg(long)]
        rate: Option<f64>,
        /// Seconds of each of the two.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Bytes of a value.
        #[arg(long, default_value_t = 256)]
        value: usize,
    },
    /// Publishes to a stream of its own, which it makes, and awaits each acknowledgement
    Nats {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// Messages that are not acknowledged yet.
        #[arg(long, default_value_t = 256)]
        outstanding: u64,
        /// Seconds.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Bytes of a payload.
        #[arg(long, default_value_t = 256)]
        value: usize,
    },
    /// Publishes batches to the gateway, each client with one call at a time
    Publish {
        /// The gateway.
        #[arg(long)]
        server: SocketAddr,
        /// A namespace of PubSub.
        #[arg(long)]
        namespace: String,
        /// Clients, each with a connection.
        #[arg(long, default_value_t = 4)]
        clients: usize,
        /// Messages of a batch.
        #[arg(long, default_value_t = 64)]
        batch: usize,
        /// Seconds.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Bytes of a payload.
        #[arg(long, default_value_t = 256)]
        value: usize,
    },
}

/// Runs a client and prints what it counted.
pub(crate) fn run(peer: &Peer) -> Result<(), String> {
    let counted = match peer {
        Peer::Redis { .. } => on_one_thread(redis(peer))?,
        Peer::Nats {
            server,
            outstanding,
            seconds,
            value,
        } => on_one_thread(nats(*server, *outstanding, *seconds, *value))?,
        Peer::Publish { .. } => publish(peer)?,
    };
    println!("{counted}");
    Ok(())
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, work)
}

/// Latencies of calls, as JSON with their rate.
fn figures(mut latencies: Vec<Duration>, began: Instant) -> serde_json::Value {
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        let found = latencies.get(place).or(latencies.last());
        found.map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    json!({ "count": latencies.len(), "per_second": latencies.len() as f64 / seconds, "p50_us": at(0.5), "p99_us": at(0.99) })
}

async fn redis(peer: &Peer) -> Result<serde_json::Value, String> {
    let Peer::Redis {
        server,
        connections,
        outstanding,
        rate,
        seconds,
        value,
    } = peer
    else {
        return Err("not a client of Redis".to_owned());
    };
    let client = redis::Client::open(format!("redis://{server}")).map_err(|error| error.to_string())?;
    let mut links = Vec::new();
    for _ in 0..*connections {
        let link = client.get_multiplexed_async_connection().await;
        links.push(link.map_err(|error| error.to_string())?);
    }
    let value = Rc::new(vec![b'v'; *value]);
    let write = measure(&links, *outstanding, *rate, *seconds, Some(value)).await?;
    let read = measure(&links, *outstanding, *rate, *seconds, None).await?;
    Ok(json!({ "put": write, "get": read }))
}

/// Runs calls on these connections in turn: closed loops, or at a rate.
async fn measure(
    links: &[redis::aio::MultiplexedConnection],
    outstanding: u64,
    rate: Option<f64>,
    seconds: f64,
    value: Option<Rc<Vec<u8>>>,
) -> Result<serde_json::Value, String> {
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let began = Instant::now();
    let length = Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for worker in 0..outstanding {
        let mut link = links[worker as usize % links.len()].clone();
        let (latencies, value) = (latencies.clone(), value.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let mut call = 0u64;
            while began.elapsed() < length {
                let due = match rate {
                    // The workers take turns.
                    Some(rate) => {
                        began + Duration::from_secs_f64((call * outstanding + worker) as f64 / rate)
                    }
                    None => Instant::now(),
                };
                if due > began + length {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                // The timers are a millisecond coarse: latency counts from when the call leaves.
                let sent = Instant::now();
                let key = format!("peer:{}", (worker * 7_919 + call * 4_871) % KEYS);
                let answer: Result<redis::Value, _> = match &value {
                    Some(value) => {
                        let mut asked = redis::cmd("HSET");
                        asked.arg(key).arg("f0000").arg(&value[..]);
                        asked.query_async(&mut link).await
                    }
                    None => {
                        redis::cmd("HGET")
                            .arg(key)
                            .arg("f0000")
                            .query_async(&mut link)
                            .await
                    }
                };
                answer.map_err(|error| error.to_string())?;
                latencies.borrow_mut().push(sent.elapsed());
                call += 1;
            }
            Ok::<_, String>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(figures(latencies.take(), began))
}

/// Publishes with so many messages under way, as the client library does: each is sent at once, and
/// its acknowledgement awaited.
async fn nats(
    server: SocketAddr,
    outstanding: u64,
    seconds: f64,
    value: usize,
) -> Result<serde_json::Value, String> {
    let client = async_nats::connect(format!("nats://{server}"))
        .await
        .map_err(|error| error.to_string())?;
    let config = json!({ "name": "PEER", "subjects": ["peer.>"], "storage": "file" }).to_string();
    client
        .request("$JS.API.STREAM.CREATE.PEER", config.into())
        .await
        .map_err(|error| error.to_string())?;
    let payload = bytes::Bytes::from(vec![b'v'; value]);
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let began = Instant::now();
    let length = Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for worker in 0..outstanding {
        let (client, latencies, payload) = (client.clone(), latencies.clone(), payload.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let subject = format!("peer.{}", worker % 16);
            while began.elapsed() < length {
                let sent = Instant::now();
                let answer = client.request(subject.clone(), payload.clone()).await;
                let answer = answer.map_err(|error| error.to_string())?.payload;
                if !String::from_utf8_lossy(&answer).contains("\"seq\"") {
                    return Err(format!("not acknowledged: {}", String::from_utf8_lossy(&answer)));
                }
                latencies.borrow_mut().push(sent.elapsed());
            }
            Ok::<_, String>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(figures(latencies.take(), began))
}

fn publish(peer: &Peer) -> Result<serde_json::Value, String> {
    let Peer::Publish {
        server,
        namespace,
        clients,
        batch,
        seconds,
        value,
    } = peer
    else {
        return Err("not a client of the gateway".to_owned());
    };
    let (began, length) = (Instant::now(), Duration::from_secs_f64(*seconds));
    let one = |number: usize| -> Result<Vec<Duration>, String> {
        let mut client = Client::connect(&server.to_string(), PATIENCE).map_err(|error| error.to_string())?;
        let message = |key: usize| Message {
            topic: "peer".to_owned(),
            payload: vec![b'v'; *value],
            ordering_key: format!("{number}-{}", key % 16),
            ..Message::default()
        };
        let request = PublishBatchRequest {
            namespace: namespace.clone(),
            idempotency_token: None,
            messages: (0..*batch).map(message).collect(),
        };
        let mut latencies = Vec::new();
        while began.elapsed() < length {
            let sent = Instant::now();
            let answer: PublishBatchResponse = client
                .unary("/prism.pubsub.v1.PubSub/PublishBatch", &request)
                .map_err(|error| error.to_string())?;
            let is_ok = |status: Option<i32>| status.is_none_or(|code| code == 0);
            let acknowledged = answer.results.iter();
            let acknowledged = acknowledged
                .filter(|result| is_ok(result.status.as_ref().map(|status| status.code)))
                .count();
            if acknowledged != *batch {
                return Err(format!(
                    "{acknowledged} of {batch} messages were acknowledged: {answer:?}"
                ));
            }
            // Each message of the batch took as long.
            latencies.extend(std::iter::repeat_n(sent.elapsed(), acknowledged));
        }
        Ok(latencies)
    };
    let all = thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..*clients)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.map_err(|_| "a client panicked".to_owned())?)
            .collect::<Result<Vec<_>, String>>()
    })?;
    Ok(figures(all.concat(), began))
}
