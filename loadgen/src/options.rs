//! The command line, checked: what the user writes becomes what the run needs, or a sentence that
//! says what is wrong.

use std::{net::SocketAddr, net::ToSocketAddrs, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{
    checker::Verify,
    keys::{KeyDistribution, ValueSize},
    mix::{Mix, Operation},
    plan::Plan,
    pubsub::PubSubOptions,
    queue::QueueOptions,
    run::Run,
    schedule::Arrival,
    slo::Slo,
    socket::{Tls, TlsOptions},
    units,
    values::HEADER_BYTES,
    workload::Load,
};

/// Generates load for a Prism gateway, measures latency honestly and checks every answer.
///
/// With --rate the loop is open: requests are due at fixed times and latency counts from then, so a
/// stall of the server is charged to every request that was due meanwhile. Without --rate the loop
/// is closed: each stream sends as soon as it is free, which shows throughput and hides waiting.
#[derive(Clone, Debug, Parser)]
#[command(name = "prism-loadgen", version, max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 all objectives met; 1 an SLO was missed; 2 usage; 3 the server could not be reached \
or was lost; 4 an answer was wrong."
)]
pub struct Options {
    /// The gateway, HOST:PORT; with https:// before it by TLS
    #[arg(
        long,
        alias = "server",
        env = "PRISM_SERVER",
        default_value = "127.0.0.1:8980"
    )]
    pub target: String,
    /// Files for a target with TLS
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Allow a target that is not on this machine
    #[arg(long)]
    pub allow_remote: bool,
    /// The namespace to work in
    #[arg(long, short)]
    pub namespace: String,
    /// Create the namespace first, unless it exists
    #[arg(long)]
    pub setup: bool,
    /// Durability of the namespace that --setup creates: best-effort, eventual or strong
    #[arg(long, default_value = "best-effort")]
    pub durability: String,
    /// A header field to send with every request, NAME:VALUE; may be repeated
    #[arg(long, value_name = "NAME:VALUE")]
    pub header: Vec<String>,

    /// One of YCSB's core workloads, a to f (E needs --items; F's read-modify-write is Get and
    /// CompareAndSwap)
    #[arg(long, value_name = "LETTER", conflicts_with = "mix")]
    pub workload: Option<char>,
    /// Weights of put, get, insert, range, scan, delete, cas and mutate [default: put=50,get=50]
    #[arg(long)]
    pub mix: Option<Mix>,
    /// How keys are drawn [default: zipfian, or what the workload says]
    #[arg(long, value_enum)]
    pub distribution: Option<Distribution>,
    /// How many keys (ids) there are
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of a value: 256, uniform:64-1024 or zipf:64-65536
    #[arg(long, default_value = "256")]
    pub value: ValueSize,
    /// Items of every Put
    #[arg(long, default_value_t = 1)]
    pub items: u16,
    /// Mutations of every Mutate
    #[arg(long, default_value_t = 10)]
    pub batch: u16,
    /// Items of the one page that a scan reads
    #[arg(long, default_value_t = 100)]
    pub scan_items: u32,
    /// Write every key once before the run
    #[arg(long)]
    pub preload: bool,
    /// Send writes without idempotency tokens
    #[arg(long)]
    pub no_tokens: bool,

    /// A load of PubSub
    #[command(flatten)]
    pub pubsub: PubSubOptions,
    /// A load of Queue
    #[command(flatten)]
    pub queue: QueueOptions,

    /// Connections of all threads together
    #[arg(long, short, default_value_t = 16)]
    pub connections: usize,
    /// Concurrent streams of each connection
    #[arg(long, short = 'm', default_value_t = 32)]
    pub streams: usize,
    /// Threads
    #[arg(long, short, default_value_t = 1)]
    pub threads: usize,
    /// Cores that the threads are pinned to in turn, such as 1 or 2-3, or none [default: none]
    #[arg(long)]
    pub cores: Option<String>,

    /// Requests due per second (open loop); without it the loop is closed
    #[arg(long, short, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// How the requests of an open loop are spaced
    #[arg(long, value_enum, default_value_t = ArrivalKind::Fixed)]
    pub arrival: ArrivalKind,
    /// Raise the rate until less than 95 % of it is served, then measure at 70 % of the saturation
    #[arg(long, conflicts_with_all = ["rate", "requests"])]
    pub sweep: bool,
    /// The first rate of a sweep [default: a quarter of what a short closed loop reaches]
    #[arg(long, value_name = "PER_SECOND", requires = "sweep")]
    pub sweep_start: Option<f64>,
    /// The highest rate of a sweep
    #[arg(long, value_name = "PER_SECOND", default_value_t = 10_000_000.0)]
    pub sweep_max: f64,
    /// How long each rate of a sweep is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub step: Duration,
    /// Pause between the steps of a sweep
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = parse_time)]
    pub pause: Duration,
    /// Time before the measured time
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub warm_up: Duration,
    /// The measured time
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub duration: Duration,
    /// Stop after this many requests instead
    #[arg(long, value_name = "COUNT")]
    pub requests: Option<u64>,
    /// How long answers are waited for at the end
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub drain: Duration,
    /// How long a call may take (grpc-timeout)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub deadline: Option<Duration>,

    /// Share of requests that are cancelled at a random point, such as 10%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = units::share)]
    pub cancel: f64,
    /// Share of requests at which the connection is dropped, such as 0.1%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = units::share)]
    pub disconnect: f64,
    /// How closely answers are looked at
    #[arg(long, value_enum, default_value_t = VerifyLevel::Match)]
    pub verify: VerifyLevel,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Objectives such as p50=1ms,p99=10ms,errors=0.01% (also max, mean, rate, served); decide the
    /// exit status
    #[arg(long)]
    pub slo: Option<Slo>,
    /// Form of the report at the end
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies of each second as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<PathBuf>,
    /// Append every finished write to this file
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Do not load anything: read back what the journal says was acknowledged
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sweep", "rate", "preload", "journal"])]
    pub check_journal: Option<PathBuf>,
    /// The server's process, to report its CPU time per request
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Key distributions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Every key is as likely.
    Uniform,
    /// A few scattered keys are hot.
    Zipfian,
    /// New keys are hot.
    Latest,
}

/// Arrivals by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrivalKind {
    /// Exactly even.
    Fixed,
    /// Random, as of independent clients.
    Poisson,
}

/// Levels of checking by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyLevel {
    /// Only that answers can be decoded.
    Off,
    /// Each value belongs to its key and is undamaged, items of one Put are seen together.
    Match,
    /// Also that reads see every write acknowledged before; nothing else may write to the
    /// namespace.
    Fresh,
}

/// Forms of the report by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    units::nanoseconds(text).map(Duration::from_nanos)
}

impl Options {
    /// Checks the options against each other and against this machine, and makes the run of them.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn check(&self) -> Result<Run, String> {
        let address = self.address()?;
        self.check_numbers()?;
        let (mix, preferred) = match (self.workload, &self.mix) {
            (Some(letter), _) => Mix::ycsb(letter)
                .ok_or_else(|| format!("--workload {letter}: YCSB's core workloads are a to f"))?,
            (None, Some(mix)) => (mix.clone(), KeyDistribution::Zipfian),
            (None, None) => (
                Mix::new(&[(Operation::Put, 50), (Operation::Get, 50)])?,
                KeyDistribution::Zipfian,
            ),
        };
        let distribution = match self.distribution {
            None => preferred,
            Some(Distribution::Uniform) => KeyDistribution::Uniform,
            Some(Distribution::Zipfian) => KeyDistribution::Zipfian,
            Some(Distribution::Latest) => KeyDistribution::Latest,
        };
        let verify = match self.verify {
            VerifyLevel::Off => Verify::Off,
            VerifyLevel::Match => Verify::Match,
            VerifyLevel::Fresh => Verify::Fresh,
        };
        self.check_values(&mix, verify)?;
        self.pubsub.check(self.value.min_bytes())?;
        self.queue.check(self.value.min_bytes())?;
        let load = Load {
            namespace: self.namespace.clone(),
            mix,
            distribution,
            keys: self.keys,
            value: self.value,
            items: self.items,
            batch: self.batch,
            scan_items: self.scan_items,
            verify,
            loaded: self.preload,
            tokens: !self.no_tokens,
            cancel: self.cancel,
            disconnect: self.disconnect,
            seed: self.seed,
        };
        let plan = Plan {
            thread: 0,
            address,
            authority: self.authority().1.to_owned(),
            tls: self.tls()?,
            headers: self.headers()?,
            connections: self.connections,
            streams: self.streams,
            deadline: self.deadline,
            core: None,
        };
        Ok(Run {
            plan,
            threads: self.threads.min(self.connections),
            cores: self.core_list()?,
            load,
            loading: false,
            rate: self.rate,
            arrival: match self.arrival {
                ArrivalKind::Fixed => Arrival::Fixed,
                ArrivalKind::Poisson => Arrival::Poisson,
            },
            warm_up: self.warm_up,
            duration: if self.requests.is_some() {
                Duration::from_secs(86_400)
            } else {
                self.duration
            },
            drain: self.drain,
            requests: self.requests,
            journal: None,
            server_pid: self.server_pid,
        })
    }

    fn check_numbers(&self) -> Result<(), String> {
        let ranges = [
            ("--connections", self.connections as u64, 1, 10_000),
            ("--streams", self.streams as u64, 1, 100_000),
            ("--threads", self.threads as u64, 1, 1_024),
            ("--keys", self.keys, 1, 10_000_000_000),
            ("--items", u64::from(self.items), 1, 1_000),
            ("--batch", u64::from(self.batch), 1, 1_000),
            ("--scan-items", u64::from(self.scan_items), 1, 1_000_000),
            ("--requests", self.requests.unwrap_or(1), 1, u64::MAX),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} {value}: must be between {least} and {most}"));
            }
        }
        for (name, rate) in [("--rate", self.rate), ("--sweep-start", self.sweep_start)] {
            if rate.is_some_and(|rate| !(0.001..=1e9).contains(&rate)) {
                return Err(format!(
                    "{name}: must be between 0.001 and 1,000,000,000 per second"
                ));
            }
        }
        if !(1.0..=1e9).contains(&self.sweep_max) {
            return Err("--sweep-max: must be between 1 and 1,000,000,000 per second".into());
        }
        if self.duration.is_zero() || self.step.is_zero() {
            return Err("--duration and --step must be above zero".into());
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err("--deadline must be above zero".into());
        }
        Ok(())
    }

    fn check_values(&self, mix: &Mix, verify: Verify) -> Result<(), String> {
        let short = self.value.min_bytes() < HEADER_BYTES;
        if short && mix.has(Operation::Cas) {
            return Err(format!(
                "cas needs values of at least {HEADER_BYTES} bytes, so that each has its own"
            ));
        }
        if short && verify == Verify::Fresh {
            return Err(format!(
                "--verify fresh needs values of at least {HEADER_BYTES} bytes, which name their write"
            ));
        }
        // A mutate must not name one id twice.
        let keys_each = if verify == Verify::Fresh {
            self.keys / self.threads as u64
        } else {
            self.keys
        };
        if mix.has(Operation::Mutate) && u64::from(self.batch) > keys_each {
            return Err(format!(
                "--batch {}: more mutations than there are keys ({keys_each})",
                self.batch
            ));
        }
        if self.no_tokens && verify == Verify::Fresh {
            return Err("--verify fresh needs idempotency tokens, which order the writes of a key".into());
        }
        if self.no_tokens && self.journal.is_some() {
            return Err("--journal needs idempotency tokens, which order the writes of a key".into());
        }
        if verify == Verify::Fresh && self.keys < self.threads as u64 {
            return Err("--verify fresh needs at least one key per thread".into());
        }
        let put_bytes = u64::from(self.value.max_bytes()) * u64::from(self.items.max(self.batch));
        if put_bytes > 64 << 20 {
            return Err("--value times --items (or --batch) is above 64 MiB per request".into());
        }
        Ok(())
    }

    /// The target's address; refused when it lies beyond this machine without leave.
    fn address(&self) -> Result<SocketAddr, String> {
        let (_, target) = self.authority();
        let resolved = target
            .to_socket_addrs()
            .map_err(|error| format!("--target {target}: {error}"))?;
        let addresses: Vec<SocketAddr> = resolved.collect();
        let address = *addresses
            .first()
            .ok_or_else(|| format!("--target {target}: no such host"))?;
        for address in addresses.first().into_iter().chain(&self.pubsub.receive_at) {
            if !address.ip().is_loopback() && !self.allow_remote {
                return Err(format!(
                    "{address} is not on this machine; load needs leave there: --allow-remote"
                ));
            }
        }
        Ok(address)
    }

    /// Whether the target speaks TLS, and its HOST:PORT.
    fn authority(&self) -> (bool, &str) {
        match self.target.split_once("://") {
            Some(("https", rest)) => (true, rest.trim_end_matches('/')),
            Some(("http", rest)) => (false, rest.trim_end_matches('/')),
            _ => (false, &self.target),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, String> {
        let (encrypted, authority) = self.authority();
        encrypted.then(|| Tls::load(&self.tls, authority)).transpose()
    }

    fn headers(&self) -> Result<Vec<(String, String)>, String> {
        let parse = |text: &String| match text.split_once(':') {
            Some((name, value)) if !name.is_empty() && name.bytes().all(is_field_name_byte) => {
                Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
            }
            _ => Err(format!("--header {text}: write NAME:VALUE")),
        };
        self.header.iter().map(parse).collect()
    }

    /// Not pinned by default: the kernel knows better which core a server on the same machine
    /// leaves free.
    fn core_list(&self) -> Result<Vec<usize>, String> {
        let text = match self.cores.as_deref().map(str::trim) {
            None | Some("none") => return Ok(Vec::new()),
            Some(text) => text,
        };
        let (cores, allowed) = (parse_cores(text)?, allowed_cores());
        match cores.iter().find(|core| !allowed.contains(core)) {
            Some(core) => Err(format!(
                "--cores {text}: core {core} is not available, only {allowed:?}"
            )),
            None => Ok(cores),
        }
    }

    /// Options as given, for the report.
    pub fn describe(&self, run: &Run) -> Vec<(String, String)> {
        let load = &run.load;
        let share = |share: f64| units::show_share(share);
        let mut settings = vec![
            ("target", self.target.clone()),
            ("namespace", load.namespace.clone()),
            ("mix", load.mix.to_string()),
            (
                "keys",
                format!("{} {:?}", units::show_count(load.keys), load.distribution).to_lowercase(),
            ),
            ("values", format!("{}, {} per put", load.value, load.items)),
            (
                "connections",
                format!(
                    "{} x {} streams, {} threads",
                    run.plan.connections, run.plan.streams, run.threads
                ),
            ),
            (
                "cores",
                if run.cores.is_empty() {
                    "not pinned".into()
                } else {
                    format!("{:?}", run.cores)
                },
            ),
            ("verify", format!("{:?}", load.verify).to_lowercase()),
            ("seed", load.seed.to_string()),
        ];
        if let Some(deadline) = run.plan.deadline {
            settings.push(("deadline", units::show_time(deadline.as_nanos() as u64)));
        }
        if load.cancel > 0.0 || load.disconnect > 0.0 {
            settings.push((
                "cut",
                format!(
                    "cancel {}, disconnect {}",
                    share(load.cancel),
                    share(load.disconnect)
                ),
            ));
        }
        if !load.tokens {
            settings.push(("tokens", "none".into()));
        }
        settings
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

fn is_field_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// Reads `1`, `0,2` or `2-5`.
fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    let error = || format!("--cores {text}: write for example 1, 0,2 or 2-5");
    let number = |text: &str| {
        text.trim()
            .parse::<usize>()
            .ok()
            .filter(|&core| core < 1_024)
            .ok_or_else(error)
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => cores.extend(number(first)?..=number(last)?),
            None => cores.push(number(part)?),
        }
    }
    if cores.is_empty() { Err(error()) } else { Ok(cores) }
}

/// The cores that this process may run on.
fn allowed_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..1_024).filter(|&core| set.is_set(core)).collect(),
        Err(_) => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &str) -> Options {
        let words = ["prism-loadgen", "--namespace", "n"]
            .into_iter()
            .chain(arguments.split_whitespace());
        Options::try_parse_from(words).expect("parses")
    }

    fn check(arguments: &str) -> Result<Run, String> {
        options(arguments).check()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let run = check("").expect("the defaults are fine");
        assert_eq!((run.plan.connections, run.plan.streams, run.rate), (16, 32, None));
        assert_eq!(run.load.mix.to_string(), "put=50,get=50");
    }

    #[test]
    fn a_remote_target_needs_leave() {
        assert!(
            check("--target 192.0.2.1:80")
                .expect_err("remote")
                .contains("--allow-remote")
        );
        assert!(check("--receive-at 192.0.2.1:80").is_err());
        assert!(check("--target 192.0.2.1:80 --allow-remote").is_ok());
        assert!(check("--target [::1]:80").is_ok());
        assert!(check("--target nonsense").is_err());
    }

    #[test]
    fn impossible_combinations_are_refused() {
        for bad in [
            "--connections 0",
            "--items 0",
            "--items 1001",
            "--rate 0",
            "--rate nan",
            "--workload z",
            "--value 8 --mix cas=1",
            "--value 8 --verify fresh",
            "--no-tokens --verify fresh",
            "--no-tokens --journal j",
            "--batch 5 --keys 4 --mix mutate=1",
            "--batch 5 --keys 8 --mix mutate=1 --verify fresh --threads 2",
            "--value 1MiB --items 1000",
            "--deadline 0s",
            "--duration 0s",
            "--cores 999",
            "--cores x",
            "--header nonsense",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn workloads_bring_their_distribution() {
        assert_eq!(
            check("--workload d").expect("d").load.distribution,
            KeyDistribution::Latest
        );
        let run = check("--workload d --distribution uniform").expect("d, uniform");
        assert_eq!(run.load.distribution, KeyDistribution::Uniform);
    }

    #[test]
    fn cores_and_headers_parse() {
        assert_eq!(parse_cores("1"), Ok(vec![1]));
        assert_eq!(parse_cores("0,2-4"), Ok(vec![0, 2, 3, 4]));
        let run = check("--header X-Team:a:b --cores none").expect("fine");
        assert_eq!(run.plan.headers, [("x-team".to_owned(), "a:b".to_owned())]);
        assert!(run.cores.is_empty());
        assert!(check("").expect("defaults").cores.is_empty());
        let allowed = allowed_cores()[0];
        assert_eq!(
            check(&format!("--cores {allowed}")).expect("allowed").cores,
            [allowed]
        );
    }
}
