//! Small items of one namespace on the SQLite store: alone, next to large values of another
//! namespace, and while another deletes many items by one call. This version, and another side by
//! side.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use prism_codec::proto::prism::{
    admin::v1::{CreateRequest, CreateResponse},
    keyvalue::v1::{
        All, DeleteRequest, DeleteResponse, Item, Predicate, PutRequest, PutResponse, predicate::Kind,
    },
};
use prism_core::client::Client;
use serde_json::Value;

use crate::child::{Child, sibling};

const SERVICE: &str = "/prism.keyvalue.v1.KeyValue";
/// The namespaces of the large values.
const LARGE: [&str; 2] = ["large-1", "large-2"];
/// Requests of a measurement of CPU time.
const REQUESTS: u32 = 30_000;
/// Calls each second during the delete.
const RATE: &str = "2000";
/// Longest wait until the server is idle.
const SETTLES_MAX: Duration = Duration::from_secs(60);

/// Figures of one round.
#[derive(Default)]
struct Round {
    /// CPU time per request in µs: alone, then next to large values.
    put: [f64; 2],
    get: [f64; 2],
    /// Duration of the delete, in milliseconds.
    delete_took: f64,
    p99: f64,
    max: f64,
    puts_per_second: f64,
}

/// Runs all rounds and prints the table.
pub(crate) fn measure(other: Option<&Path>, values: u32, items: u32, rounds: u32) -> Result<(), String> {
    let mut versions = vec![("this version", sibling("prism")?)];
    versions.extend(other.map(|path| ("the other", path.to_owned())));
    let mut results: Vec<Vec<Round>> = versions.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..versions.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            results[number].push(one_round(&versions[number].1, values, items)?);
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    println!(
        "\nSmall items on SQLite, best-effort, one shard; {values} values of 1 MB in other namespaces\n"
    );
    println!(
        "| version | CPU of a Put, alone / beside | CPU of a Get, alone / beside | P99 and maximum of others while {items} \
         items are deleted | the delete's answer | Puts/s, closed loop |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for ((name, _), rounds) in versions.iter().zip(&results) {
        let median = |figure: fn(&Round) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (put, put_beside) = (median(|round| round.put[0]), median(|round| round.put[1]));
        let (get, get_beside) = (median(|round| round.get[0]), median(|round| round.get[1]));
        println!(
            "| {name} | {put:.1} / {put_beside:.1} µs, {:.2} × | {get:.1} / {get_beside:.1} µs, {:.2} × | {:.1} and {:.1} ms \
             | {:.0} ms | {:.0} |",
            put_beside / put,
            get_beside / get,
            median(|round| round.p99),
            median(|round| round.max),
            median(|round| round.delete_took),
            median(|round| round.puts_per_second),
        );
    }
    Ok(())
}

fn one_round(prism: &Path, values: u32, items: u32) -> Result<Round, String> {
    // Not the system's folder for temporary files, which may be in memory.
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir_in(own.parent().unwrap_or(Path::new(".")))
        .map_err(|error| format!("a data directory: {error}"))?;
    let child = Child::version(prism, directory.path(), &["--shards", "1"])?;
    let mut client = Client::connect(&child.address.to_string(), Duration::from_secs(120))
        .map_err(|error| error.to_string())?;
    let mut round = Round::default();
    // One before and one after the namespace of the small items: in a store that keeps all
    // namespaces in one tree, large values on either side of it may slow it down.
    create(&mut client, LARGE[0])?;
    let loaded = load(
        &child,
        &["--setup", "--preload", "--mix", "put=100", "--duration", "2s"],
    )?;
    round.puts_per_second = figure(&loaded, "rate")?;
    round.put[0] = cpu_of(&child, "put=100")?;
    round.get[0] = cpu_of(&child, "get=100")?;
    for namespace in [LARGE[1], "many"] {
        create(&mut client, namespace)?;
    }
    let megabyte = vec![7; 1_000_000];
    for number in 0..values {
        put(
            &mut client,
            LARGE[number as usize % 2],
            &format!("{number}"),
            vec![item(0, &megabyte)],
        )?;
    }
    round.put[1] = cpu_of(&child, "put=100")?;
    round.get[1] = cpu_of(&child, "get=100")?;
    for first in (0..items).step_by(1_000) {
        let items = (first..items.min(first + 1_000)).map(|number| item(number, b"a small value"));
        put(&mut client, "many", "one id", items.collect())?;
    }
    settle(&child)?;
    let beside = thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let arguments = [
                "--mix",
                "put=50,get=50",
                "--rate",
                RATE,
                "--duration",
                "3s",
                "--warm-up",
                "500ms",
            ];
            load(&child, &arguments)
        });
        thread::sleep(Duration::from_millis(1_000));
        let began = Instant::now();
        let request = DeleteRequest {
            namespace: "many".to_owned(),
            id: "one id".to_owned(),
            idempotency_token: None,
            predicate: Some(Predicate {
                kind: Some(Kind::All(All {})),
            }),
        };
        let deleted: Result<DeleteResponse, _> = client.unary(&format!("{SERVICE}/Delete"), &request);
        deleted.map_err(|error| format!("the delete: {error}"))?;
        round.delete_took = began.elapsed().as_secs_f64() * 1e3;
        loading.join().map_err(|_| "the load panicked".to_owned())?
    })?;
    let latency = &beside["measured"]["latency"];
    let milliseconds = |key: &str| latency[key].as_f64().unwrap_or(f64::NAN) / 1e6;
    (round.p99, round.max) = (milliseconds("p99_ns"), milliseconds("max_ns"));
    child.drain()?;
    Ok(round)
}

/// CPU time of the server per request, in µs.
fn cpu_of(child: &Child, mix: &str) -> Result<f64, String> {
    settle(child)?;
    let before = child.cpu_ns()?;
    let requests = REQUESTS.to_string();
    let loaded = load(child, &["--mix", mix, "--requests", &requests, "--warm-up", "0s"])?;
    let spent = child.cpu_ns()? - before;
    Ok(spent as f64 / 1e3 / figure(&loaded, "requests")?)
}

/// Waits until the server is idle.
fn settle(child: &Child) -> Result<(), String> {
    let deadline = Instant::now() + SETTLES_MAX;
    loop {
        let before = child.cpu_ns()?;
        thread::sleep(Duration::from_millis(300));
        if child.cpu_ns()? - before < 6_000_000 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("the server does not come to rest".to_owned());
        }
    }
}

fn figure(report: &Value, key: &str) -> Result<f64, String> {
    let measured = &report["measured"];
    match (measured["errors"].as_u64(), measured[key].as_f64()) {
        (Some(0), Some(figure)) if figure > 0.0 => Ok(figure),
        _ => Err(format!("prism-loadgen reports {measured}")),
    }
}

fn load(child: &Child, arguments: &[&str]) -> Result<Value, String> {
    let report: PathBuf = std::env::temp_dir().join(format!("prism-bench-{}.json", child.pid()));
    let output = Command::new("timeout")
        .arg("180")
        .arg(sibling("prism-loadgen")?)
        .args(["--target", &child.address.to_string(), "--namespace", "small"])
        .args([
            "--keys",
            "20000",
            "--distribution",
            "uniform",
            "-c",
            "8",
            "-m",
            "32",
            "--quiet",
        ])
        .arg("--json")
        .arg(&report)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run prism-loadgen: {error}"))?;
    let text = fs::read_to_string(&report).unwrap_or_default();
    let _ = fs::remove_file(&report);
    serde_json::from_str(&text)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn create(client: &mut Client, namespace: &str) -> Result<(), String> {
    let yaml = format!("namespace: {namespace}\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n");
    let created: Result<CreateResponse, _> =
        client.unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml });
    created.map(drop).map_err(|error| error.to_string())
}

fn item(number: u32, value: &[u8]) -> Item {
    Item {
        key: number.to_be_bytes().to_vec(),
        value: value.to_vec(),
        ttl: None,
        compression: 0,
        version: Vec::new(),
    }
}

fn put(client: &mut Client, namespace: &str, id: &str, items: Vec<Item>) -> Result<(), String> {
    let request = PutRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        idempotency_token: None,
        items,
    };
    let put: Result<PutResponse, _> = client.unary(&format!("{SERVICE}/Put"), &request);
    put.map(drop).map_err(|error| format!("a put: {error}"))
}
