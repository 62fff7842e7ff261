//! The process of `prism serve`: its main thread only watches, so that nothing can keep it from
//! ending.
//!
//! ```text
//!   signals ─┐                      ┌─ Stop, Reload ──► gateway thread: starts, waits, drains, ends
//!            ├─► main thread: poll ─┤                        │
//!   failure ─┘   (waits for no      └─ after drain_timeout   ▼
//!                 other thread)         and a grace: exit  result ──► main thread: exit
//! ```

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{read, write},
};

use super::{
    Event, Link, ServeError, Server, descriptors, failed,
    signals::{Action, Signals},
};
use crate::{
    config::{KEYS, Key, LogFormat, LogOptions, ServeOptions, StoreOptions},
    runtime::{
        diagnostics::{self, Diagnostics},
        threads::{self, Entered, Failure, Kind},
    },
};

/// Keys that SIGHUP changes.
const RELOADABLE: [&str; 1] = ["log.level"];
/// Time that the end may take in addition to `limits.drain_timeout`.
const GRACE: Duration = Duration::from_secs(2);
/// Interval at which the main thread checks for the end once it is near.
const END_POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Longest wait of the ending process for diagnostics to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(300);

/// Runs the gateway until SIGTERM or SIGINT, then drains it: it ends within `limits.drain_timeout`
/// and 2 s, whatever its threads do. A second signal ends the process at once. `warnings` come
/// first in the diagnostics. `reload` reads the configuration again, for SIGHUP; keys that can
/// change while the gateway runs are changed.
///
/// # Errors
/// Everything that prevents the start, a thread that ends, and an end that takes too long.
pub fn run(
    options: ServeOptions,
    warnings: &[String],
    reload: impl FnMut() -> Result<ServeOptions, String> + Send + 'static,
) -> Result<(), ServeError> {
    let diagnostics = install(&options.log).map_err(ServeError)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    descriptors::raise();
    let result = Process::start(options, reload, &diagnostics)
        .map_err(|cause| failed("cannot start", &cause))
        .and_then(Process::watch_over);
    diagnostics.flush(LAST_LINES_TIMEOUT);
    result
}

fn install(log: &LogOptions) -> Result<Diagnostics, String> {
    Diagnostics::install(&log.level, log.format == LogFormat::Json)
}

/// Writes the last sentence of the process to standard error, if it accepts the sentence at once or
/// soon: the output may have no reader, and the process must end all the same.
pub fn last_words(text: &str) {
    diagnostics::last_words(text);
}

/// State of the gateway as known to the main thread.
struct Process {
    signals: Signals,
    bell: Arc<Bell>,
    events: Sender<Event>,
    failure: Arc<Failure>,
    is_at_rest: Arc<AtomicBool>,
    gateway: JoinHandle<()>,
    result: Receiver<Result<(), ServeError>>,
    /// Longest time of the end, once it has begun.
    patience: Duration,
    deadline: Option<Instant>,
    /// The main thread is supervised as well: if it panics, the gateway drains.
    _entered: Entered,
}

impl Process {
    fn start(
        options: ServeOptions,
        reload: impl FnMut() -> Result<ServeOptions, String> + Send + 'static,
        diagnostics: &Diagnostics,
    ) -> io::Result<Self> {
        let signals = Signals::watch()?;
        let bell = Arc::new(Bell::new()?);
        let (failed, ended) = (bell.clone(), bell.clone());
        let patience = options.limits.drain_timeout + GRACE;
        let link = Link::new(move || failed.ring());
        let supervisor = link.supervisor.clone();
        let (events, is_at_rest) = (link.sender.clone(), link.is_at_rest.clone());
        let _entered = supervisor.enter();
        diagnostics.start()?;
        let (done, result) = sync_channel(1);
        let (owner, diagnostics) = (supervisor.clone(), diagnostics.clone());
        let gateway = threads::spawn(Kind::Gateway, None, move || {
            let outcome = live(options, link, reload, &diagnostics);
            owner.expect_ends();
            // The main thread may have stopped waiting.
            let _ = done.send(outcome);
            ended.ring();
            Ok(())
        })?;
        Ok(Self {
            signals,
            bell,
            events,
            failure: supervisor.failure(),
            is_at_rest,
            gateway,
            result,
            patience,
            deadline: None,
            _entered,
        })
    }

    /// Watches until the gateway has ended, also after a panic.
    fn watch_over(mut self) -> Result<(), ServeError> {
        let watched = catch_unwind(AssertUnwindSafe(|| self.watch(true)));
        watched.unwrap_or_else(|_| self.watch(false))
    }

    fn watch(&mut self, with_faults: bool) -> Result<(), ServeError> {
        loop {
            if let Some(result) = self.result() {
                return result;
            }
            self.wait();
            if with_faults {
                threads::fault_point(Kind::Main);
            }
            let events = &self.events;
            let mut is_ending = self.failure.get().is_some();
            self.signals.run(|action| {
                is_ending |= action == Action::Stop;
                // Without a receiver the gateway is ending already.
                let _ = match action {
                    Action::Stop => events.send(Event::Stop),
                    Action::Reload => events.send(Event::Reload),
                    Action::Ignore => Ok(()),
                };
            });
            if is_ending && self.deadline.is_none() {
                self.deadline = Some(Instant::now() + self.patience);
            }
        }
    }

    /// The gateway's result, if it has ended or its time is up.
    fn result(&self) -> Option<Result<(), ServeError>> {
        // Checked first: the result comes before the end of the thread.
        let is_over = self.gateway.is_finished();
        if let Ok(result) = self.result.try_recv() {
            return Some(result);
        }
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match self.failure.get() {
            _ if !is_over && !is_late => None,
            Some(failure) => Some(Err(ServeError(failure.to_owned()))),
            None if is_over => Some(Err(ServeError("the gateway ended by itself".to_owned()))),
            None if self.is_at_rest.load(Ordering::SeqCst) => {
                tracing::warn!("the last pages of the store are left to the next start");
                Some(Ok(()))
            }
            None => Some(Err(ServeError(format!(
                "the gateway did not end within {} s of the signal and was cut off; the next start gives the store what the \
                 log holds for it",
                self.patience.as_secs()
            )))),
        }
    }

    /// Waits for a signal, a failure, the end, or for some moments when the end is near.
    fn wait(&self) {
        let signals = self.signals.descriptor();
        let mut ready = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&self.bell.0, PollFlags::IN),
        ];
        let timeout = self.deadline.map(|_| END_POLL);
        // Interrupted by a signal, which is checked next.
        let _ = poll(&mut ready, timeout.as_ref());
        self.bell.clear();
    }
}

/// The life of the gateway, from its start to its end.
fn live(
    options: ServeOptions,
    link: Link,
    mut reload: impl FnMut() -> Result<ServeOptions, String>,
    diagnostics: &Diagnostics,
) -> Result<(), ServeError> {
    let mut current = options.clone();
    let server = Server::start_linked(options, link)?;
    diagnostics.print(server.greet());
    server.wait(|| match reload() {
        Ok(new) => apply(&mut current, &new, diagnostics),
        Err(problem) => tracing::error!(problem, "the configuration has not changed"),
    })
}

/// Applies keys that can change while the gateway runs, and warns about the others.
fn apply(current: &mut ServeOptions, new: &ServeOptions, diagnostics: &Diagnostics) {
    let changed = |key: &&Key| (key.show)(current) != (key.show)(new);
    let (live, fixed): (Vec<_>, Vec<_>) = KEYS
        .iter()
        .filter(changed)
        .map(|key| key.path)
        .partition(|path| RELOADABLE.contains(path));
    let fixed: Vec<_> = fixed
        .into_iter()
        .map(str::to_owned)
        .chain(changed_stores(current, new))
        .collect();
    if !fixed.is_empty() {
        tracing::warn!(
            keys = fixed.join(", "),
            "changed in the configuration; restart the gateway to use them"
        );
    }
    if live.is_empty() {
        let keys = RELOADABLE.join(", ");
        return tracing::info!(keys, "nothing has changed of what can be reloaded");
    }
    match diagnostics.set_level(&new.log.level) {
        Ok(()) => {
            current.log.level.clone_from(&new.log.level);
            tracing::info!(keys = live.join(", "), "reloaded");
        }
        Err(problem) => tracing::error!(problem, "the configuration has not changed"),
    }
}

/// Keys of stores that were added, changed or removed.
fn changed_stores(current: &ServeOptions, new: &ServeOptions) -> Vec<String> {
    let differs = |from: &ServeOptions, to: &ServeOptions| -> Vec<String> {
        let is_in = |store: &StoreOptions| to.stores.iter().any(|other| other.says_the_same_as(store));
        let stores = from.stores.iter().filter(|store| !is_in(store));
        stores.map(|store| format!("stores.{}", store.name)).collect()
    };
    let mut changed = differs(current, new);
    changed.extend(differs(new, current));
    changed.sort();
    changed.dedup();
    changed
}

/// Wakes the main thread.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    fn ring(&self) {
        // Full only if it has been rung before.
        let _ = write(self.0.as_fd(), &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let mut count = [0; 8];
        // WouldBlock if another event woke the thread.
        let _ = read(self.0.as_fd(), &mut count);
    }
}
