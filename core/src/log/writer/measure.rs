//! Comparison of the writers, measured on this machine's disk: alone, and next to a busy shard.
//!
//! ```console
//! $ cargo test -p prism-core --lib log::writer::measure -- --ignored --nocapture
//! ```
//!
//! A shard pinned to core 0 keeps as many groups in flight as the depth allows, in bursts of under
//! a second with pauses. The busy one answers at the same time the requests of eight connections
//! from core 1, with 2 µs of work each. `fio` measures the disk before and after; rounds during
//! which the disk or other programs changed are dropped. Prints a table for `docs/BENCHMARKS.md`.
//! `MEASURE_AROUND` names a command that is run with `begin` before and with `end` after each
//! burst, for example to stop other programs for that long.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use prism_wal::{
    buffer::BLOCK_BYTES,
    disk::{Disk, file::FileDisk},
    ids::SegmentNumber,
};
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::runtime::reactor::{DriverChoice, Listener};

const BURST: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(250);
const FILE_BLOCKS: u32 = 16_384;
const ROUNDS: usize = 3;
const CONNECTIONS: usize = 8;
const REQUEST_BYTES: usize = 64;
const REQUESTS_AT_ONCE: usize = 32;
const REQUEST_WORK: Duration = Duration::from_micros(2);
/// Largest share of one core for other programs' CPU time in a valid burst (the kernel's own
/// workers count as such).
const FOREIGN_MAX: f64 = 0.8;
/// Largest factor by which the floor may differ before and after.
const FLOOR_MOVES_MAX: f64 = 1.5;

/// The writer under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contestant {
    None,
    Ring,
    Free(usize),
    /// Threads that share the shard's core.
    Pinned(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    busy: bool,
    blocks: u32,
    depth: usize,
    contestant: Contestant,
}

/// Figures of a burst.
#[derive(Clone, Debug, Default)]
struct Burst {
    /// Nanoseconds of each write, from the submission to the shard's receipt of its completion;
    /// sorted.
    latencies: Vec<u64>,
    seconds: f64,
    process_cpu: f64,
    machine_cpu: f64,
    requests: u64,
}

#[test]
#[ignore = "takes minutes and wants a quiet machine; see docs/BENCHMARKS.md"]
fn measure() {
    let driver = DriverInUse::choose(DriverChoice::IoUring).expect("this compares with the ring");
    // On the disk chosen by TMPDIR.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = prepare(directory.path());
    let mut found: BTreeMap<Cell, Vec<Burst>> = BTreeMap::new();
    let mut floors: BTreeMap<u32, Vec<[f64; 2]>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for blocks in [1, 16] {
            for busy in [false, true] {
                let before = floor(directory.path(), blocks);
                let mut cells = cells(busy, blocks);
                if round % 2 == 1 {
                    cells.reverse();
                }
                let bursts: Vec<_> = cells
                    .iter()
                    .map(|cell| (*cell, clean_burst(*cell, driver, &file)))
                    .collect();
                let after = floor(directory.path(), blocks);
                let moved = (before[0] / after[0]).max(after[0] / before[0]);
                eprintln!(
                    "round {round} busy {busy} blocks {blocks}: floor {before:.1?} {after:.1?} us, moved {moved:.2}"
                );
                if moved > FLOOR_MOVES_MAX {
                    continue;
                }
                floors.entry(blocks).or_default().extend([before, after]);
                for (cell, burst) in bursts {
                    found.entry(cell).or_default().extend(burst);
                }
            }
        }
    }
    report(&found, &floors);
}

fn cells(busy: bool, blocks: u32) -> Vec<Cell> {
    let cell = |depth, contestant| Cell {
        busy,
        blocks,
        depth,
        contestant,
    };
    let mut cells = Vec::new();
    if busy {
        cells.push(cell(0, Contestant::None));
    }
    for depth in [1, 2, 4, 8] {
        cells.push(cell(depth, Contestant::Ring));
        for threads in [1, 2, 4].into_iter().filter(|threads| *threads <= depth) {
            cells.push(cell(depth, Contestant::Free(threads)));
        }
        if depth <= 2 {
            cells.push(cell(depth, Contestant::Pinned(depth)));
        }
    }
    cells
}

fn prepare(directory: &Path) -> LogFile {
    let mut disk = FileDisk::open(directory, true).expect("a directory");
    assert!(disk.is_direct(), "this file system has no direct writes");
    for name in ["floor", "segment"] {
        let bytes = u64::from(FILE_BLOCKS) * BLOCK_BYTES as u64;
        let file = disk.create(name, bytes).expect("there is space");
        disk.write_zeros(&file, 0, bytes).expect("there is space");
        disk.sync(&file).expect("a sound disk");
    }
    disk.open("segment").expect("it was just made")
}

/// The p50 and p99 of fio's durable overwrites, in microseconds.
fn floor(directory: &Path, blocks: u32) -> [f64; 2] {
    thread::sleep(PAUSE);
    around("begin");
    let output = Command::new("fio")
        .args([
            "--name=floor",
            "--rw=write",
            "--ioengine=psync",
            "--direct=1",
            "--sync=dsync",
        ])
        .args([
            "--overwrite=1",
            "--fallocate=none",
            "--size=64m",
            "--time_based",
            "--runtime=1",
        ])
        .args([
            "--output-format=json",
            "--percentile_list=50:99",
            "--allow_file_create=0",
        ])
        .arg(format!("--bs={}", blocks as usize * BLOCK_BYTES))
        .arg(format!("--filename={}", directory.join("floor").display()))
        .output()
        .expect("fio is installed");
    around("end");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("fio speaks JSON");
    let percentiles = &found["jobs"][0]["write"]["clat_ns"]["percentile"];
    ["50.000000", "99.000000"].map(|name| percentiles[name].as_f64().expect("fio wrote") / 1e3)
}

fn around(what: &str) {
    if let Ok(command) = std::env::var("MEASURE_AROUND") {
        let done = Command::new(command).arg(what).status();
        assert!(done.is_ok_and(|status| status.success()), "MEASURE_AROUND fails");
    }
}

/// A burst during which other programs were quiet; `None` after a few attempts.
fn clean_burst(cell: Cell, driver: DriverInUse, file: &LogFile) -> Option<Burst> {
    (0..4).find_map(|_| {
        thread::sleep(PAUSE);
        around("begin");
        let burst = burst(cell, driver, file);
        around("end");
        let foreign = (burst.machine_cpu - burst.process_cpu) / burst.seconds;
        (foreign < FOREIGN_MAX).then_some(burst)
    })
}

fn burst(cell: Cell, driver: DriverInUse, file: &LogFile) -> Burst {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("it is bound");
    let connections = if cell.busy { CONNECTIONS } else { 0 };
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the shard listens");
            thread::spawn(move || ask(stream))
        })
        .collect();
    let shard = thread::spawn({
        let file = file.clone();
        move || {
            reactor::pin_to_core(0).expect("there is a core 0");
            reactor::run(driver, run_shard(cell, driver, listener, connections, file))
        }
    });
    let mut burst = shard.join().expect("no panic").expect("a reactor");
    burst.requests = clients
        .into_iter()
        .map(|client| client.join().expect("no panic"))
        .sum();
    burst
}

/// Sends requests until the shard closes the connection. Returns the number of answers.
fn ask(mut stream: TcpStream) -> u64 {
    reactor::pin_to_core(1).expect("there is a core 1");
    stream.set_nodelay(true).expect("a socket");
    let mut bytes = [1; REQUEST_BYTES * REQUESTS_AT_ONCE];
    let mut answers = 0;
    while stream.write_all(&bytes).is_ok() && stream.read_exact(&mut bytes).is_ok() {
        answers += REQUESTS_AT_ONCE as u64;
    }
    answers
}

async fn answer(mut receiver: reactor::Receiver, mut sender: reactor::Sender, until: Instant) {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES * REQUESTS_AT_ONCE);
    while Instant::now() < until {
        buffer.clear();
        let (result, back) = receiver.recv(buffer, 0).await;
        buffer = back;
        if result.is_err() || buffer.is_empty() {
            return;
        }
        let work = REQUEST_WORK * (buffer.len() / REQUEST_BYTES) as u32;
        let end = Instant::now() + work;
        while Instant::now() < end {}
        (_, buffer) = sender.send_all(buffer, |_| ()).await;
    }
    sender.shutdown().await;
}

fn of_threads(threads: ThreadWriter) -> LogWriter {
    LogWriter {
        threads,
        ring: None,
        in_flight: 0,
    }
}

async fn run_shard(
    cell: Cell,
    driver: DriverInUse,
    listener: TcpListener,
    connections: usize,
    file: LogFile,
) -> Burst {
    let listener = Listener::new(listener, Duration::ZERO, Duration::ZERO).expect("a listener");
    let until = Instant::now() + BURST;
    for _ in 0..connections {
        let (receiver, sender, _) = listener.accept().await.expect("a client");
        reactor::spawn(answer(receiver, sender, until));
    }
    let notify = Rc::new(Notify::default());
    let mut writer = match cell.contestant {
        Contestant::None => None,
        Contestant::Ring => {
            Some(LogWriter::new(LogWriterKind::Ring, driver, notify.clone()).expect("a ring"))
        }
        Contestant::Free(count) => Some(of_threads(
            unpinned(|| threads(count, notify.clone()))
                .expect("a thread")
                .expect("threads"),
        )),
        Contestant::Pinned(count) => Some(of_threads(threads(count, notify.clone()).expect("threads"))),
    };
    let (began, process, machine) = (Instant::now(), process_cpu(), machine_cpu());
    let mut latencies = match &mut writer {
        Some(writer) => write_until(cell, writer, &notify, &file, until).await,
        None => {
            reactor::sleep(until.saturating_duration_since(Instant::now())).await;
            Vec::new()
        }
    };
    latencies.sort_unstable();
    let burst = Burst {
        latencies,
        seconds: began.elapsed().as_secs_f64(),
        process_cpu: process_cpu() - process,
        machine_cpu: machine_cpu() - machine,
        requests: 0,
    };
    // The connections are closed after their next answer.
    reactor::sleep(Duration::from_millis(20)).await;
    burst
}

async fn write_until(
    cell: Cell,
    writer: &mut LogWriter,
    notify: &Notify,
    file: &LogFile,
    until: Instant,
) -> Vec<u64> {
    let mut spare: Vec<_> = (0..cell.depth)
        .map(|_| AlignedBuffer::zeroed(cell.blocks as usize * BLOCK_BYTES))
        .collect();
    let (mut submitted, mut latencies) = (VecDeque::new(), Vec::new());
    let (mut number, mut block) = (0, 0);
    loop {
        while let Some(completion) = writer.poll_completion() {
            let bytes = cell.blocks as usize * BLOCK_BYTES;
            assert_eq!(completion.result, WriteResult::Durable(bytes));
            let at = submitted.iter().position(|(group, _)| *group == completion.group);
            let (_, began): (GroupNumber, Instant) = at.and_then(|at| submitted.remove(at)).expect("once");
            latencies.push(began.elapsed().as_nanos() as u64);
            spare.push(completion.buffer);
        }
        if Instant::now() >= until {
            if submitted.is_empty() {
                return latencies;
            }
            notify.notified().await;
            continue;
        }
        while let Some(buffer) = spare.pop() {
            number += 1;
            let write = WriteAction {
                group: GroupNumber(number),
                segment: SegmentNumber(1),
                block,
                blocks: cell.blocks,
                records: 1,
                buffer,
            };
            block = (block + cell.blocks) % FILE_BLOCKS;
            submitted.push_back((write.group, Instant::now()));
            writer.submit(file, write);
        }
        notify.notified().await;
    }
}

/// CPU time of this process so far, in seconds, including the ring's workers.
fn process_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of the whole machine so far, in seconds.
fn machine_cpu() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("it is there");
    let line = text.lines().next().expect("it has lines");
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().expect("a number"))
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
    // Linux counts them in hundredths of a second, whatever its own clock.
    busy / 100.0
}

fn report(found: &BTreeMap<Cell, Vec<Burst>>, floors: &BTreeMap<u32, Vec<[f64; 2]>>) {
    for (blocks, floors) in floors {
        let p50 = median(floors.iter().map(|floor| floor[0]));
        let p99 = median(floors.iter().map(|floor| floor[1]));
        println!("fio floor, {} KiB: p50 {p50:.0} us, p99 {p99:.0} us", blocks * 4);
    }
    println!(
        "| shard | group | depth | writer | bursts | p50 us | p99 us | writes/s | CPU us/write | + kernel's | requests/s |"
    );
    println!("|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    for (cell, bursts) in found {
        let of = |figure: &dyn Fn(&Burst) -> f64| median(bursts.iter().map(figure));
        let writes = |burst: &Burst| burst.latencies.len().max(1) as f64;
        let at = |share: f64| {
            of(&|burst: &Burst| {
                let index =
                    ((burst.latencies.len() as f64 * share) as usize).min(burst.latencies.len().max(1) - 1);
                burst.latencies.get(index).copied().unwrap_or(0) as f64 / 1e3
            })
        };
        println!(
            "| {} | {} KiB | {} | {:?} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            if cell.busy { "busy" } else { "idle" },
            cell.blocks * 4,
            cell.depth,
            cell.contestant,
            bursts.len(),
            at(0.5),
            at(0.99),
            of(&|burst| burst.latencies.len() as f64 / burst.seconds),
            of(&|burst| burst.process_cpu * 1e6 / writes(burst)),
            of(&|burst| (burst.machine_cpu - burst.process_cpu) * 1e6 / writes(burst)),
            of(&|burst| burst.requests as f64 / burst.seconds),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
