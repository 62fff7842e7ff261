//! The program from its options to its exit status: set-up, load phase, sweep or one measurement,
//! reports.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    blocking::{Blocking, CallError},
    journal::{self, Journal},
    options::{Options, Output},
    pubsub, queue,
    report::{self, Report, Summary, SweepSummary},
    run::{self, Outcomes, Progress, Run},
    setup,
    slo::{Figures, Slo},
    sweep::{Step, Sweep},
};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything demanded was met.
    Met = 0,
    /// An objective was missed.
    Missed = 1,
    /// The options, or a file they name, are not usable.
    Usage = 2,
    /// The server could not be reached, refused the set-up, or was lost for good.
    Unreachable = 3,
    /// An answer was wrong, or an acknowledged write did not survive.
    Wrong = 4,
}

/// The share of the saturation at which a sweep measures in the end.
const OF_SATURATION: f64 = 0.7;

/// An ended attempt: the status, and what to say on standard error.
type Failure = (Exit, String);

/// Runs the program; says on standard error why it failed.
pub fn run(options: &Options) -> Exit {
    match try_run(options) {
        Ok(exit) => exit,
        Err((exit, message)) => {
            eprintln!("prism-loadgen: {message}");
            exit
        }
    }
}

fn try_run(options: &Options) -> Result<Exit, Failure> {
    let usage = |message: String| (Exit::Usage, message);
    let unreachable = |message: String| (Exit::Unreachable, message);
    let mut run = options.check().map_err(usage)?;
    if let Some(path) = &options.journal {
        let journal = Journal::open(path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
        run.journal = Some(journal);
    }
    if options.setup {
        setup_namespace(options, &run).map_err(unreachable)?;
    }
    if let Some(path) = &options.check_journal {
        return check_journal(path, &run);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second signal ends the process at once, should the first not be enough.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let mut screen = Screen::new(options.quiet);
    if options.pubsub.pubsub || options.queue.queue {
        return load_messages(options, &run, &stop, &screen);
    }
    if options.preload {
        let loaded = preload(&run, &stop, &mut screen).map_err(unreachable)?;
        if loaded.measured.tally.wrong + loaded.measured.tally.errors() > 0 {
            let summary = Summary::from(&loaded.measured);
            return Err(unreachable(format!(
                "loading the keys failed: {:?} {:?}",
                summary.outcomes, summary.messages
            )));
        }
    }
    let sweep = match options.sweep {
        true => Some(sweep(options, &mut run, &stop, &mut screen).map_err(unreachable)?),
        false => None,
    };
    let outcomes = screen.measure(&run, &stop).map_err(unreachable)?;
    let report = make_report(options, &run, &outcomes, sweep);
    write_reports(options, &report, &outcomes).map_err(usage)?;
    Ok(match outcomes {
        _ if report.measured.wrong > 0 => Exit::Wrong,
        Outcomes {
            gave_up: Some(reason),
            ..
        } => return Err(unreachable(reason)),
        _ if !report.met => Exit::Missed,
        _ => Exit::Met,
    })
}

/// Runs a load of PubSub or Queue, which have reports of their own.
fn load_messages(
    options: &Options,
    run: &Run,
    stop: &Arc<AtomicBool>,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut last = std::time::Instant::now();
    let mut show = |line: &str| {
        if last.elapsed() >= Duration::from_secs(1) {
            last = std::time::Instant::now();
            screen.title(line);
        }
    };
    let unreachable = |message| (Exit::Unreachable, message);
    let (text, json, is_right) = if options.queue.queue {
        let report = queue::run(options, run, stop, &mut show).map_err(unreachable)?;
        (report.to_text(), report.to_json(), report.is_right())
    } else {
        let report = pubsub::run(options, run, stop, &mut show).map_err(unreachable)?;
        (report.to_text(), report.to_json(), report.is_right())
    };
    match options.output {
        Output::Text => print!("{text}"),
        Output::Json => println!("{json}"),
    }
    if let Some(path) = &options.json {
        std::fs::write(path, json + "\n")
            .map_err(|error| (Exit::Usage, format!("{}: {error}", path.display())))?;
    }
    Ok(match is_right {
        true => Exit::Met,
        false => Exit::Wrong,
    })
}

fn setup_namespace(options: &Options, run: &Run) -> Result<(), String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("can not create namespace {}: {error}", run.load.namespace);
    let mut client = Blocking::connect(&run.plan).map_err(|error| failed(&error))?;
    let api = match (options.pubsub.pubsub, options.queue.queue) {
        (true, _) => setup::Api::PubSub,
        (_, true) => setup::Api::Queue {
            ordered: options.queue.queue_keys > 0,
        },
        _ => setup::Api::KeyValue,
    };
    setup::create_namespace(&mut client, &run.load.namespace, &options.durability, api)
        .map_err(|error| failed(&error))
}

fn check_journal(path: &Path, run: &Run) -> Result<Exit, Failure> {
    let shown = path.display();
    let entries = File::open(path)
        .and_then(|file| journal::read(BufReader::new(file)))
        .map_err(|error| (Exit::Usage, format!("{shown}: {error}")))?;
    let survival = Blocking::connect(&run.plan)
        .map_err(CallError::from)
        .and_then(|mut client| setup::check_journal(&mut client, &run.load.namespace, &entries))
        .map_err(|error| (Exit::Unreachable, format!("can not check the journal: {error}")))?;
    let setup::Survival {
        keys,
        acknowledged,
        wrong,
    } = survival;
    println!(
        "{acknowledged} acknowledged writes of {keys} keys checked, {} wrong",
        wrong.len()
    );
    wrong.iter().for_each(|wrong| println!("  {wrong}"));
    Ok(if wrong.is_empty() { Exit::Met } else { Exit::Wrong })
}

/// Writes every key once, as fast as the server takes it.
fn preload(run: &Run, stop: &Arc<AtomicBool>, screen: &mut Screen) -> Result<Outcomes, String> {
    let loading = Run {
        loading: true,
        rate: None,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(86_400),
        requests: None,
        ..run.clone()
    };
    screen.title("loading the keys");
    screen.measure(&loading, stop)
}

/// Finds the saturation, and sets the run's rate to 70 % of it.
fn sweep(
    options: &Options,
    run: &mut Run,
    stop: &Arc<AtomicBool>,
    screen: &mut Screen,
) -> Result<SweepSummary, String> {
    let warm_up = run.warm_up.min(Duration::from_millis(500));
    let step = Run {
        duration: options.step,
        warm_up,
        drain: Duration::from_secs(1),
        ..run.clone()
    };
    let start = match options.sweep_start {
        Some(start) => start,
        None => {
            screen.title("closed loop, to see where to start");
            let reached = screen.measure(&step, stop)?.measured.served_rate();
            reached / 4.0
        }
    };
    let mut sweep = Sweep::new(start, options.sweep_max);
    while let Some(rate) = sweep.next_rate().filter(|_| !stop.load(Ordering::Relaxed)) {
        thread::sleep(options.pause);
        screen.title(&format!(
            "{} per second",
            crate::units::show_count(rate.round() as u64)
        ));
        let outcomes = screen.measure(
            &Run {
                rate: Some(rate),
                ..step.clone()
            },
            stop,
        )?;
        let measured = &outcomes.measured;
        sweep.observe(Step {
            rate,
            achieved: measured.served_rate(),
            served_share: measured.served_share().unwrap_or(0.0),
            p50_ns: measured.latency_ns(0.5).unwrap_or(0),
            p99_ns: measured.latency_ns(0.99).unwrap_or(0),
        });
    }
    thread::sleep(options.pause);
    run.rate = Some(sweep.saturation().unwrap_or(1.0) * OF_SATURATION);
    screen.title("70 % of the saturation");
    Ok(SweepSummary {
        saturation: sweep.saturation(),
        saturated: sweep.saturated(),
        steps: sweep.steps().to_vec(),
    })
}

fn make_report(options: &Options, run: &Run, outcomes: &Outcomes, sweep: Option<SweepSummary>) -> Report {
    let measured = &outcomes.measured;
    let slo = options
        .slo
        .as_ref()
        .map(|slo: &Slo| slo.judge(measured))
        .unwrap_or_default();
    let met =
        slo.iter().all(|verdict| verdict.met) && measured.tally.wrong == 0 && outcomes.gave_up.is_none();
    Report {
        tool: format!("prism-loadgen {}", env!("CARGO_PKG_VERSION")),
        settings: options.describe(run),
        mode: if run.rate.is_some() {
            "open loop"
        } else {
            "closed loop"
        },
        sweep,
        measured: Summary::from(measured),
        slo,
        met,
    }
}

fn write_reports(options: &Options, report: &Report, outcomes: &Outcomes) -> Result<(), String> {
    match options.output {
        Output::Text => print!("{}", report.to_text()),
        Output::Json => println!("{}", report.to_json()),
    }
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    if let Some(path) = &options.json {
        std::fs::write(path, report.to_json() + "\n").map_err(|error| failed(path, error))?;
    }
    if let Some(path) = &options.hdr_log {
        let written = File::create(path).map(BufWriter::new).and_then(|mut file| {
            report::write_hdr_log(&mut file, outcomes.started, &outcomes.intervals)?;
            file.flush()
        });
        written.map_err(|error| failed(path, error))?;
    }
    Ok(())
}

/// Shows the progress on standard error: one line that is rewritten on a terminal, plain lines
/// elsewhere.
struct Screen {
    quiet: bool,
    rewrites: bool,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            rewrites: io::stderr().is_terminal(),
        }
    }

    fn title(&self, title: &str) {
        if !self.quiet {
            eprintln!("{title}");
        }
    }

    fn measure(&mut self, run: &Run, stop: &Arc<AtomicBool>) -> Result<Outcomes, String> {
        let mut show = |progress: Progress<'_>| match (self.quiet, self.rewrites) {
            (true, _) => {}
            (false, true) => eprint!("\r\x1b[K{}", progress.line()),
            (false, false) => eprintln!("{}", progress.line()),
        };
        let outcomes = run::measure(run, stop, &mut show);
        if !self.quiet && self.rewrites {
            eprint!("\r\x1b[K");
        }
        outcomes
    }
}
