//! Signals of the process: a table of their effects.
//!
//! The second signal to end the process ends it in its handler, at once, whatever any thread does.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{
        SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
    },
    flag,
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};

/// Effect of a signal on the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Drain and end.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Nothing; it would kill the process by default.
    Ignore,
}

/// All signals with another effect than the system's default. SIGPIPE is ignored by Rust's runtime.
/// Not here: those that cannot be caught, that report a fault of the program itself, or that do no
/// harm by default.
const SIGNALS: [(i32, &str, Action); 11] = [
    (SIGTERM, "SIGTERM", Action::Stop),
    (SIGINT, "SIGINT", Action::Stop),
    (SIGHUP, "SIGHUP", Action::Reload),
    (SIGUSR1, "SIGUSR1", Action::Ignore),
    (SIGUSR2, "SIGUSR2", Action::Ignore),
    (SIGQUIT, "SIGQUIT", Action::Ignore),
    (SIGXFSZ, "SIGXFSZ", Action::Ignore),
    (SIGALRM, "SIGALRM", Action::Ignore),
    (SIGVTALRM, "SIGVTALRM", Action::Ignore),
    (SIGPROF, "SIGPROF", Action::Ignore),
    (SIGIO, "SIGIO", Action::Ignore),
];

/// Exit code of a second signal.
const EXIT_AT_ONCE: i32 = 1;
/// Pause between two lines of the diagnostics about one signal. Beyond RLIMIT_FSIZE each line of a
/// log file raises a SIGXFSZ.
const MENTION_PAUSE: Duration = Duration::from_secs(60);

/// Signals that have arrived.
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Time of the last line about each, in the order of [`SIGNALS`].
    mentioned: [Option<Instant>; SIGNALS.len()],
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn watch() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for (signal, _, _) in SIGNALS.iter().filter(|(_, _, action)| *action == Action::Stop) {
            // In this order: the first signal sets the flag that the second one finds.
            flag::register_conditional_shutdown(*signal, EXIT_AT_ONCE, asked.clone())?;
            flag::register(*signal, asked.clone())?;
        }
        let (read, write) = UnixStream::pair()?;
        let signals = SIGNALS.iter().map(|(signal, _, _)| *signal);
        Ok(Self {
            delivery: SignalDelivery::with_pipe(read, write, SignalOnly, signals)?,
            mentioned: [None; SIGNALS.len()],
        })
    }

    /// Readable when a signal has arrived.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// Acts on the signals that have arrived, each before it is mentioned.
    pub(super) fn run(&mut self, mut act: impl FnMut(Action)) {
        for came in self.delivery.pending() {
            let Some(index) = SIGNALS.iter().position(|(signal, _, _)| *signal == came) else {
                continue;
            };
            let (_, name, action) = SIGNALS[index];
            act(action);
            let now = Instant::now();
            if self.mentioned[index].is_none_or(|at| now.duration_since(at) >= MENTION_PAUSE) {
                self.mentioned[index] = Some(now);
                mention(name, action);
            }
        }
    }
}

fn mention(signal: &str, action: Action) {
    match action {
        Action::Stop => tracing::info!(signal, "draining"),
        Action::Reload => tracing::info!(signal, "reading the configuration again"),
        Action::Ignore if signal == "SIGXFSZ" => {
            tracing::warn!(
                signal,
                "a file would have grown beyond the limit of the process (ulimit -f)"
            );
        }
        Action::Ignore => tracing::info!(signal, "ignored; SIGTERM drains and ends the gateway"),
    }
}
