//! The load: h2load for the servers that speak gRPC, a small client of our own for the bare echo
//! server.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use prism_codec::{
    message::keyvalue::{ItemView, encode_put_request},
    proto::prism::admin::v1::{CreateRequest, CreateResponse},
};
use prism_core::client::Client;
use std::time::{Duration, Instant};

use crate::{
    child::Child,
    servers::{self, Kind},
};

/// Connections and streams of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: u64,
    pub(crate) streams: u64,
}

pub(crate) const SHAPES: [Shape; 2] = [
    Shape {
        connections: 16,
        streams: 32,
    },
    Shape {
        connections: 64,
        streams: 1,
    },
];

/// Results of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_ns: f64,
    pub(crate) per_second: f64,
}

const PUT: &str = "/prism.keyvalue.v1.KeyValue/Put";
const NAMESPACE: &str = "bench";

/// Fails with instructions to install h2load if it is missing.
pub(crate) fn require_h2load() -> Result<(), String> {
    match Command::new("h2load").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "h2load is missing; it is in Debian's package nghttp2-client: apt-get install nghttp2-client"
                .to_owned(),
        ),
    }
}

/// Loads a server in one shape; `None` where the shape does not apply to that server.
pub(crate) fn measure(
    kind: Kind,
    child: &Child,
    shape: Shape,
    requests: u64,
    core: usize,
) -> Result<Option<Measured>, String> {
    let requests = if shape.streams == 1 {
        requests / 5
    } else {
        requests
    };
    if kind == Kind::Echo {
        return if shape.streams == 1 {
            echo(child, shape, requests, core).map(Some)
        } else {
            Ok(None)
        };
    }
    if kind == Kind::Prism {
        create_namespace(child, NAMESPACE, "best-effort")?;
    }
    let body = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    std::fs::write(body.path(), request_body()).map_err(|error| error.to_string())?;
    probe(child)?;
    // The first requests fill tables and caches.
    h2load(child, shape, requests / 10, core, body.path())?;
    let before = child.cpu_ns()?;
    let per_second = h2load(child, shape, requests, core, body.path())?;
    let cpu_ns = (child.cpu_ns()? - before) as f64 / requests as f64;
    Ok(Some(Measured { cpu_ns, per_second }))
}

fn h2load(
    child: &Child,
    shape: Shape,
    requests: u64,
    core: usize,
    body: &std::path::Path,
) -> Result<f64, String> {
    let output = Command::new("taskset")
        .args(["-c", &core.to_string(), "timeout", "120", "h2load", "-t1"])
        .args([
            format!("-c{}", shape.connections),
            format!("-m{}", shape.streams),
            format!("-n{requests}"),
        ])
        .arg("-d")
        .arg(body)
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .arg(format!("http://{}{PUT}", child.address))
        .output()
        .map_err(|error| format!("cannot run h2load: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains(&format!("status codes: {requests} 2xx")) {
        return Err(format!("h2load: not all requests succeeded:\n{text}"));
    }
    text.lines()
        .find(|line| line.starts_with("finished in"))
        .and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse().ok())
        .ok_or_else(|| format!("h2load printed no rate:\n{text}"))
}

/// A Put of one item with a value of 256 bytes, framed for gRPC.
fn request_body() -> Vec<u8> {
    let mut message = Vec::new();
    let value = [b'v'; servers::VALUE_BYTES];
    let item = ItemView {
        key: b"theme",
        value: &value,
        ttl: None,
        compression: 0,
        version: b"",
    };
    encode_put_request(&mut message, NAMESPACE, "alice-0001", None, [item]);
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    body
}

/// Checks that a success is a gRPC success: h2load sees only the HTTP status.
fn probe(child: &Child) -> Result<(), String> {
    use prism_codec::proto::prism::keyvalue::v1::{Item, PutRequest, PutResponse};
    let mut client = connect(child)?;
    let item = Item {
        key: b"theme".to_vec(),
        value: vec![b'v'; servers::VALUE_BYTES],
        ttl: None,
        compression: 0,
        version: Vec::new(),
    };
    let request = PutRequest {
        namespace: NAMESPACE.to_owned(),
        id: "alice-0001".to_owned(),
        idempotency_token: None,
        items: vec![item],
    };
    let response: PutResponse = client
        .unary(PUT, &request)
        .map_err(|error| format!("the probe failed: {error}"))?;
    match response.result {
        Some(result) if result.applied => Ok(()),
        other => Err(format!("the probe was answered with {other:?}")),
    }
}

/// Creates a namespace, unless it is there.
pub(crate) fn create_namespace(child: &Child, name: &str, durability: &str) -> Result<(), String> {
    let yaml = format!("namespace: {name}\nclient_api: keyvalue\nneeds:\n  durability: {durability}\n");
    let created: Result<CreateResponse, _> =
        connect(child)?.unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml });
    match created {
        Err(error) if !error.to_string().contains("already exists") => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn connect(child: &Child) -> Result<Client, String> {
    Client::connect(&child.address.to_string(), Duration::from_secs(10)).map_err(|error| error.to_string())
}

/// Sends one request at a time on each connection, as with one stream each: writes to all, then
/// reads from all.
fn echo(child: &Child, shape: Shape, requests: u64, core: usize) -> Result<Measured, String> {
    let failed = |error: std::io::Error| format!("echo: {error}");
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let everywhere = rustix::thread::sched_getaffinity(None).map_err(|error| error.to_string())?;
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| error.to_string())?;
    let mut sockets = Vec::new();
    for _ in 0..shape.connections {
        let socket = TcpStream::connect(child.address).map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .map_err(failed)?;
        sockets.push(socket);
    }
    let request = [7; servers::ECHO_REQUEST_BYTES];
    let mut reply = [0; servers::ECHO_REPLY_BYTES];
    let mut run = |rounds: u64| -> Result<(), std::io::Error> {
        for _ in 0..rounds {
            for socket in &mut sockets {
                socket.write_all(&request)?;
            }
            for socket in &mut sockets {
                socket.read_exact(&mut reply)?;
            }
        }
        Ok(())
    };
    let rounds = requests / shape.connections;
    run(rounds / 10).map_err(failed)?;
    let (before, started) = (child.cpu_ns()?, Instant::now());
    run(rounds).map_err(failed)?;
    let served = (rounds * shape.connections) as f64;
    let cpu_ns = (child.cpu_ns()? - before) as f64 / served;
    let per_second = served / started.elapsed().as_secs_f64();
    rustix::thread::sched_setaffinity(None, &everywhere).map_err(|error| error.to_string())?;
    Ok(Measured { cpu_ns, per_second })
}
