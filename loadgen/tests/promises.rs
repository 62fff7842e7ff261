//! The load generator's promises, against a real HTTP/2 server over sockets that keeps or breaks
//! its own.

mod support;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use clap::Parser;
use prism_loadgen::{
    app::{self, Exit},
    journal,
    options::Options,
    outcome::Outcome,
    run::{self, Outcomes, Run},
    slo::Figures,
};
use support::{Manner, Server};

fn options(server: &Server, arguments: &str) -> Options {
    let target = server.address.to_string();
    let fixed = [
        "prism-loadgen",
        "-n",
        "test",
        "--cores",
        "none",
        "--quiet",
        "--target",
        &target,
    ];
    Options::try_parse_from(fixed.into_iter().chain(arguments.split_whitespace()))
        .expect("the arguments parse")
}

fn measure(server: &Server, arguments: &str) -> Outcomes {
    let run = options(server, arguments).check().expect("the options are fine");
    let stop = Arc::new(AtomicBool::new(false));
    if run.load.loaded {
        let duration = Duration::from_secs(60);
        let loading = Run {
            loading: true,
            rate: None,
            requests: None,
            warm_up: Duration::ZERO,
            duration,
            ..run.clone()
        };
        let loaded = run::measure(&loading, &stop, &mut |_| {}).expect("the server is there");
        assert_eq!(
            loaded.measured.tally.count(Outcome::OK),
            run.load.keys,
            "each key is written once"
        );
    }
    run::measure(&run, &stop, &mut |_| {}).expect("the server is there")
}

/// Some of everything, on few keys so that they meet.
const EVERYTHING: &str = "--mix put=30,get=40,range=10,delete=5,cas=10,mutate=3,scan=1,insert=1 --keys 50 --items 3 \
    --batch 5 -c 4 -m 8 -t 2 --warm-up 0s";

#[test]
fn a_right_server_is_found_right_with_every_operation() {
    let server = Server::start(Manner::Right);
    let outcomes = measure(&server, &format!("{EVERYTHING} --verify fresh --requests 20000"));
    let tally = &outcomes.measured.tally;
    assert_eq!(tally.wrong, 0, "{:?}", tally.wrong_examples);
    assert_eq!(
        (tally.errors(), tally.ended()),
        (0, 20_000),
        "{:?}",
        tally.messages
    );
    assert_eq!(tally.operations().count(), 8, "every operation occurs");
    assert_eq!(tally.due, 20_000);
    assert!(tally.bytes_sent > 1_000_000 && tally.bytes_received > 1_000_000);
}

#[test]
fn large_values_of_changing_size_come_back_whole() {
    let server = Server::start(Manner::Right);
    let outcomes = measure(
        &server,
        "--value uniform:0-200KiB --keys 5 -c 2 -m 4 --warm-up 0s --requests 1000",
    );
    let tally = &outcomes.measured.tally;
    assert_eq!(
        (tally.wrong, tally.errors(), tally.ended()),
        (0, 0, 1_000),
        "{:?}",
        tally.wrong_examples
    );
}

#[test]
fn swapped_answers_are_found() {
    let server = Server::start(Manner::SwapEvery(50));
    let outcomes = measure(
        &server,
        "--preload --keys 100 -c 2 -m 16 --warm-up 0s --requests 20000 --distribution uniform",
    );
    let tally = &outcomes.measured.tally;
    assert!(tally.wrong > 50, "{}", tally.wrong);
    assert!(
        tally
            .wrong_examples
            .iter()
            .any(|text| text.contains("another id")),
        "{:?}",
        tally.wrong_examples
    );
    assert_eq!(tally.count(Outcome::WRONG), tally.wrong);
}

#[test]
fn stale_lost_and_torn_answers_are_found() {
    let cases = [
        (Manner::StaleEvery(100), "--verify fresh", "stale"),
        (Manner::ForgetEvery(100), "--verify fresh", "acknowledged before"),
        (Manner::TearEvery(100), "--verify match", "torn"),
    ];
    for (manner, verify, word) in cases {
        let server = Server::start(manner);
        let arguments = format!("--keys 20 --items 3 -c 2 -m 4 --warm-up 0s --requests 10000 {verify}");
        let outcomes = measure(&server, &arguments);
        let tally = &outcomes.measured.tally;
        assert!(tally.wrong > 0, "{manner:?}");
        assert!(
            tally.wrong_examples.iter().any(|text| text.contains(word)),
            "{manner:?}: {:?}",
            tally.wrong_examples
        );
    }
}

#[test]
fn the_open_loop_charges_a_stall_to_everybody_who_was_due() {
    let stall = Duration::from_millis(400);
    let server = Server::start(Manner::StallAt(500, stall));
    // 1,000 per second, stalled once for 0.4 s: 400 requests are due meanwhile and wait 200 ms on
    // average. A client that waits for its answers would have seen one slow request per stream.
    // There are no upper bounds on what is slow in the open loop: a busy machine adds to it.
    let open = measure(
        &server,
        "--rate 1000 -c 1 -m 1 --warm-up 0s --duration 2s --keys 10",
    );
    let tally = &open.measured.tally;
    assert_eq!(
        (tally.due, tally.ended()),
        (2_000, 2_000),
        "every due request is accounted for"
    );
    assert_eq!(
        tally.errors(),
        tally.count(Outcome::UNSERVED),
        "{:?}",
        tally.messages
    );
    let slow = open.measured.latency.count_between(50_000_000, 60_000_000_000);
    assert!(slow >= 340, "{slow} requests waited more than 50 ms");
    let worst = open.measured.latency.max();
    assert!(worst >= 390_000_000, "{worst}");

    let server = Server::start(Manner::StallAt(500, stall));
    let closed = measure(&server, "-c 1 -m 1 --warm-up 0s --requests 2000 --keys 10");
    let slow = closed.measured.latency.count_between(50_000_000, 60_000_000_000);
    assert!(slow <= 20, "a closed loop sees the stall once, not {slow} times");
}

#[test]
fn an_overloaded_server_is_found_saturated() {
    // A server that never answers some requests fills the streams: what is due then is not served.
    let server = Server::start(Manner::SilentEvery(10));
    let outcomes = measure(
        &server,
        "--rate 1000 -c 1 -m 8 --warm-up 0s --duration 1s --drain 100ms --keys 10",
    );
    let measured = &outcomes.measured;
    assert_eq!(measured.tally.due, 1_000);
    assert_eq!(
        measured.tally.ended(),
        1_000,
        "every due request is accounted for"
    );
    assert!(
        measured.tally.count(Outcome::UNSERVED) > 800,
        "{}",
        measured.tally.count(Outcome::UNSERVED)
    );
    assert!(measured.served_share().is_some_and(|share| share < 0.2));
    assert!(
        measured.latency_ns(0.5).is_some_and(|ns| ns > 200_000_000),
        "unserved requests count in latency"
    );
}

#[test]
fn deadlines_end_silent_calls() {
    let server = Server::start(Manner::SilentEvery(100));
    // So long that no call with an answer meets it, also on a busy machine.
    let outcomes = measure(
        &server,
        "--deadline 1s --drain 10s -c 2 -m 4 --warm-up 0s --requests 2000 --keys 10",
    );
    let tally = &outcomes.measured.tally;
    assert_eq!(
        (tally.count(Outcome::DEADLINE_EXCEEDED), tally.ended()),
        (20, 2_000)
    );
    assert_eq!(tally.errors(), 20);
}

#[test]
fn errors_are_told_apart_by_code() {
    let server = Server::start(Manner::RefuseEvery(10, 8));
    let outcomes = measure(&server, "-c 2 -m 4 --warm-up 0s --requests 2000 --keys 10");
    let tally = &outcomes.measured.tally;
    assert_eq!(tally.count(Outcome::from_code(8)), 200);
    assert_eq!(tally.count(Outcome::OK), 1_800);
    assert_eq!(
        tally.messages,
        [(Outcome::from_code(8), "refused on purpose".to_owned())]
    );
    assert_eq!(outcomes.measured.error_share(), 0.1);
}

#[test]
fn broken_connections_are_lost_calls_and_are_opened_again() {
    let server = Server::start(Manner::DropEvery(500));
    let outcomes = measure(&server, "-c 2 -m 4 --warm-up 0s --requests 5000 --keys 10");
    let tally = &outcomes.measured.tally;
    assert_eq!(
        (tally.ended(), tally.wrong),
        (5_000, 0),
        "{:?}",
        tally.wrong_examples
    );
    assert!(
        (5..=100).contains(&tally.count(Outcome::LOST)),
        "{}",
        tally.count(Outcome::LOST)
    );
    assert!((5..=12).contains(&tally.reconnects), "{}", tally.reconnects);
    assert!(outcomes.gave_up.is_none());
}

#[test]
fn a_cancel_storm_on_a_right_server_is_right() {
    let server = Server::start(Manner::Right);
    let arguments =
        format!("{EVERYTHING} --verify fresh --requests 30000 --cancel 10% --disconnect 0.1% --seed 7");
    let outcomes = measure(&server, &arguments);
    let tally = &outcomes.measured.tally;
    assert_eq!(
        (tally.wrong, tally.errors()),
        (0, 0),
        "{:?} {:?}",
        tally.wrong_examples,
        tally.messages
    );
    assert_eq!(tally.ended(), 30_000);
    let cut = tally.count(Outcome::CUT);
    assert!((2_000..6_000).contains(&cut), "{cut}");
    assert!(tally.reconnects > 10 && server.connections.load(std::sync::atomic::Ordering::Relaxed) > 10);
}

#[test]
fn poisson_arrivals_keep_the_rate() {
    let server = Server::start(Manner::Right);
    let outcomes = measure(
        &server,
        "--rate 2000 --arrival poisson -c 2 -m 32 --warm-up 100ms --duration 1s --keys 10",
    );
    let due = outcomes.measured.tally.due;
    assert!((1_800..2_200).contains(&due), "{due}");
    assert_eq!(outcomes.measured.tally.errors(), 0);
}

#[test]
fn the_exit_status_follows_the_verdicts() {
    let server = Server::start(Manner::Right);
    let base = "-c 2 -m 4 --warm-up 0s --requests 500 --output json";
    let exit = |server: &Server, more: &str| app::run(&options(server, &format!("{base} {more}")));
    assert_eq!(exit(&server, "--keys 10 --slo p99=10s,errors=0%"), Exit::Met);
    assert_eq!(exit(&server, "--keys 10 --slo p50=1ns"), Exit::Missed);
    assert_eq!(exit(&server, "--value 8 --mix cas=1"), Exit::Usage);
    assert_eq!(
        exit(&Server::start(Manner::SwapEvery(10)), "--keys 100 --preload"),
        Exit::Wrong
    );
    // A port that was free a moment ago: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let words = ["prism-loadgen", "-n", "test", "--quiet", "--target"];
    let target = nobody.expect("an address").to_string();
    let unreachable = Options::try_parse_from(words.into_iter().chain([target.as_str()])).expect("parses");
    assert_eq!(app::run(&unreachable), Exit::Unreachable);
}

#[test]
fn the_journal_tells_what_must_survive() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("journal");
    let server = Server::start(Manner::Right);
    let load = "--mix put=70,delete=10,cas=10,mutate=10 --batch 4 --keys 200 -c 4 -m 8 -t 2 --warm-up 0s --requests 5000";
    let run = options(
        &server,
        &format!("{load} --output json --journal {} --cancel 5%", path.display()),
    );
    assert_eq!(app::run(&run), Exit::Met);
    let entries = journal::read(&std::fs::read(&path).expect("journal")[..]).expect("readable");
    assert!(
        entries.len() > 5_000,
        "a mutate is an entry for each key: {}",
        entries.len()
    );
    assert!(
        entries.iter().any(|entry| entry.outcome == Outcome::LOST),
        "what was cut is open"
    );
    assert!(
        entries
            .iter()
            .filter(|entry| entry.outcome == Outcome::OK)
            .all(|entry| (entry.lane, entry.lsn) == (2, 3))
    );
    let check = |server: &Server| app::run(&options(server, &format!("--check-journal {}", path.display())));
    assert_eq!(check(&server), Exit::Met);
    // A server that came up empty has lost everything.
    assert_eq!(check(&Server::start(Manner::Right)), Exit::Wrong);
}

#[test]
fn a_sweep_ends_and_measures_at_seventy_percent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("report.json");
    let server = Server::start(Manner::Right);
    let arguments = format!(
        "--sweep --sweep-start 500 --sweep-max 2000 --step 200ms --pause 10ms --warm-up 50ms --duration 300ms --keys 10 \
         --json {} --output json",
        path.display()
    );
    assert_eq!(app::run(&options(&server, &arguments)), Exit::Met);
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("report")).expect("the report is JSON");
    let saturation = json["sweep"]["saturation"].as_f64().expect("something is served");
    assert!(saturation >= 500.0, "{saturation}");
    let due = json["measured"]["rate_due"].as_f64().expect("an open loop");
    assert!(
        (due - saturation * 0.7).abs() < 1e-6,
        "{due} is not 70 % of {saturation}"
    );
    assert_eq!(json["mode"], "open loop");
}

#[test]
fn an_interrupted_run_still_reports() {
    let server = Server::start(Manner::Right);
    let run = options(&server, "-c 1 -m 1 --warm-up 0s --duration 60s --keys 10")
        .check()
        .expect("fine");
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let outcomes = run::measure(&run, &stop, &mut |_| {
        stop.store(true, std::sync::atomic::Ordering::Relaxed)
    });
    let measured = outcomes.expect("the server is there").measured;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(measured.tally.answered > 0 && measured.seconds < 20.0);
}
