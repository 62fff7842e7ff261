//! Threads of the gateway: each is started here, and its end is noticed.
//!
//! ```text
//!   spawn(kind, …) ──► thread ── body ──┬─ returns while the gateway ends ──► nothing
//!                                       ├─ returns otherwise, or fails ──► Failure ─► /readyz, health turn;
//!                                       └─ panics ──────────(panic hook)─► Failure    the rest drains; exit code
//! ```
//!
//! A panic is noted by the panic hook, before the thread unwinds: dropping its values may wait for
//! threads that will never answer. A thread started by a supervised thread has the same supervisor.

use std::{
    cell::RefCell,
    fmt, io,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{
        Arc, Once, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Scope, ScopedJoinHandle},
};

/// The kinds of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Serves connections; one for each core.
    Shard,
    /// Writes to the store that all shards share.
    StoreWriter,
    /// Reads from that store; one for each shard.
    StoreReader,
    /// Moves pages of that store and makes it durable.
    Checkpointer,
    /// Drives the connections to servers' stores; one for each shard that has some.
    Sidecar,
    /// Prepares and recycles segments of a lane.
    Keeper,
    /// Writes groups of the log to the disk; several for each shard.
    LogWriter,
    /// Serves the catalog and the metrics page.
    Control,
    /// Follows the catalog that several gateways share.
    Catalog,
    /// Makes, alters and removes what namespaces need in a store.
    Provision,
    /// Reads a lane of the log at the start.
    LaneReader,
    /// Starts the gateway, waits for its end, and ends it.
    Gateway,
    /// Writes diagnostics to standard error.
    Diagnostics,
    /// The process's first thread: watches signals and all other threads.
    Main,
}

/// Each kind with the name of its threads, and its name in tests.
const NAMES: [(Kind, &str); 14] = [
    (Kind::Shard, "prism-shard"),
    (Kind::StoreWriter, "prism-writer"),
    (Kind::StoreReader, "prism-reader"),
    (Kind::Checkpointer, "prism-checkpoint"),
    (Kind::Sidecar, "prism-sidecar"),
    (Kind::Keeper, "prism-keeper"),
    (Kind::LogWriter, "prism-log"),
    (Kind::Control, "prism-control"),
    (Kind::Catalog, "prism-catalog"),
    (Kind::Provision, "prism-provision"),
    (Kind::LaneReader, "prism-read"),
    (Kind::Gateway, "prism-gateway"),
    (Kind::Diagnostics, "prism-diagnostics"),
    (Kind::Main, "main"),
];

impl Kind {
    /// The name of all threads of the kind; where there are several, they have a number as well.
    fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("prism", |(_, name)| name)
    }

    fn numbered(self, number: Option<u32>) -> String {
        number.map_or_else(
            || self.name().to_owned(),
            |number| format!("{}-{number}", self.name()),
        )
    }
}

/// The first unexpected end of a thread, as a sentence. Set once.
#[derive(Debug, Default)]
pub(crate) struct Failure(OnceLock<String>);

impl Failure {
    /// The sentence; `None` while all threads work.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The receiver of thread ends; one for each running gateway.
#[derive(Clone)]
pub(crate) struct Supervisor(Arc<Inner>);

struct Inner {
    failure: Arc<Failure>,
    /// Whether threads may return.
    ending: AtomicBool,
    on_failure: Box<dyn Fn() + Send + Sync>,
}

thread_local! {
    /// The supervisor of this thread, and of the threads that it starts.
    static SUPERVISOR: RefCell<Option<Supervisor>> = const { RefCell::new(None) };
}

impl Supervisor {
    /// Makes a supervisor that calls `on_failure`, on the failing thread, at each unexpected end of
    /// a thread. It must neither wait nor panic.
    pub(crate) fn new(on_failure: impl Fn() + Send + Sync + 'static) -> Self {
        note_panics();
        Self(Arc::new(Inner {
            failure: Arc::default(),
            ending: AtomicBool::new(false),
            on_failure: Box::new(on_failure),
        }))
    }

    /// The failure, for reports on the health of the gateway.
    pub(crate) fn failure(&self) -> Arc<Failure> {
        self.0.failure.clone()
    }

    /// Lets threads return: the gateway ends. A panic is a failure all the same.
    pub(crate) fn expect_ends(&self) {
        self.0.ending.store(true, Ordering::SeqCst);
    }

    /// Makes this the supervisor of all threads that the calling thread starts, as long as the
    /// guard lives.
    pub(crate) fn enter(&self) -> Entered {
        Entered(SUPERVISOR.replace(Some(self.clone())))
    }

    fn fail(&self, sentence: String) {
        // The first failure explains the others.
        let _ = self.0.failure.0.set(sentence.clone());
        (self.0.on_failure)();
        tracing::error!("{sentence}");
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = self.0.failure.get();
        formatter
            .debug_struct("Supervisor")
            .field("failure", &failure)
            .finish()
    }
}

/// A guard that restores the previous supervisor when dropped.
pub(crate) struct Entered(Option<Supervisor>);

impl Drop for Entered {
    fn drop(&mut self) {
        SUPERVISOR.replace(self.0.take());
    }
}

/// Starts a thread under the supervisor of the calling thread. `body` returns when its owner asks
/// it to, at the end of the gateway; everything else is a failure.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn(
    kind: Kind,
    number: Option<u32>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (name, supervisor) = (kind.numbered(number), current());
    let thread = thread::Builder::new().name(name.clone());
    thread.spawn(move || {
        let _entered = supervisor.as_ref().map(Supervisor::enter);
        let ended = panic::catch_unwind(AssertUnwindSafe(body));
        let Some(supervisor) = supervisor else { return };
        match ended {
            Ok(Err(cause)) => supervisor.fail(format!("the thread {name} failed: {cause}")),
            Ok(Ok(())) if !supervisor.0.ending.load(Ordering::SeqCst) => {
                supervisor.fail(format!("the thread {name} ended by itself"));
            }
            // The panic hook has noted the panic.
            Ok(Ok(())) | Err(_) => {}
        }
    })
}

/// Starts a thread that ends by itself and is joined within `scope`; the joining thread gets a
/// panic.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    kind: Kind,
    number: u32,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let thread = thread::Builder::new().name(kind.numbered(Some(number)));
    thread.spawn_scoped(scope, body)
}

/// Notes that the calling thread can no longer do its work, before it drops values that other
/// threads wait for.
pub(crate) fn fail(cause: &str) {
    if let Some(supervisor) = current() {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        supervisor.fail(format!("the thread {name} failed: {cause}"));
    }
}

/// Whether the end of the calling thread is noticed.
pub(crate) fn is_supervised() -> bool {
    SUPERVISOR
        .try_with(|current| current.try_borrow().is_ok_and(|current| current.is_some()))
        .unwrap_or_default()
}

fn current() -> Option<Supervisor> {
    SUPERVISOR.with_borrow(Clone::clone)
}

/// Makes the process's panic hook note the panics of supervised threads.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let supervisor = SUPERVISOR.try_with(|current| current.try_borrow().ok()?.clone());
            if let Ok(Some(supervisor)) = supervisor {
                supervisor.fail(describe(panic));
            }
            previous(panic);
        }));
    });
}

/// A panic as a sentence.
pub(crate) fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name").to_owned();
    let place = panic
        .location()
        .map(|place| format!(" at {place}"))
        .unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    format!("the thread {name} panicked{place}: {message}")
}

/// Ends the calling thread as a fault would, if a test has asked for it: panics, or returns `true`
/// for the thread to return. Always `false` in release builds.
///
/// `PRISM_TEST_END=prism-writer:panic:FILE` makes the threads of that kind, or the one of that
/// name, panic (`return`: return, `stall`: never continue) at their next fault point after FILE was
/// made.
#[inline]
pub(crate) fn fault_point(kind: Kind) -> bool {
    #[cfg(debug_assertions)]
    return faults::due(kind);
    #[cfg(not(debug_assertions))]
    {
        let _ = kind;
        false
    }
}

#[cfg(debug_assertions)]
mod faults {
    use std::{path::PathBuf, sync::OnceLock};

    use super::Kind;

    struct Fault {
        name: String,
        how: String,
        file: PathBuf,
    }

    pub(super) fn due(kind: Kind) -> bool {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        let fault = FAULT.get_or_init(|| {
            let text = std::env::var("PRISM_TEST_END").ok()?;
            let [name, how, file] = text.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
            Some(Fault {
                name: name.to_owned(),
                how: how.to_owned(),
                file: file.into(),
            })
        });
        let Some(fault) = fault else { return false };
        let is_meant = || fault.name == kind.name() || std::thread::current().name() == Some(&fault.name);
        if !is_meant() || !fault.file.exists() {
            return false;
        }
        match fault.how.as_str() {
            "panic" => panic!("a test has asked for this panic"),
            "stall" => loop {
                std::thread::park();
            },
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Runs a body under a supervisor. Returns the failure that it leaves.
    fn failure_of(ending: bool, body: impl FnOnce() -> io::Result<()> + Send + 'static) -> Option<String> {
        let (sender, failed) = channel();
        let supervisor = Supervisor::new(move || sender.send(()).unwrap_or_default());
        if ending {
            supervisor.expect_ends();
        }
        let entered = supervisor.enter();
        let thread = spawn(Kind::Keeper, Some(7), body).expect("a thread");
        drop(entered);
        assert!(thread.join().is_ok(), "a panic does not leave the thread");
        let failure = supervisor.failure().get().map(str::to_owned);
        assert_eq!(failed.try_recv().is_ok(), failure.is_some());
        failure
    }

    #[test]
    fn every_end_that_nobody_asked_for_is_a_failure() {
        assert_eq!(
            failure_of(false, || Ok(())).as_deref(),
            Some("the thread prism-keeper-7 ended by itself")
        );
        let error = || Err(io::Error::other("no disk"));
        assert_eq!(
            failure_of(true, error).as_deref(),
            Some("the thread prism-keeper-7 failed: no disk")
        );
        assert_eq!(failure_of(true, || Ok(())), None);
        for ending in [false, true] {
            let sentence = failure_of(ending, || panic!("for {}", "the test")).expect("a failure");
            assert!(
                sentence.starts_with("the thread prism-keeper-7 panicked at "),
                "{sentence}"
            );
            assert!(sentence.ends_with(": for the test"), "{sentence}");
        }
    }

    #[test]
    fn a_thread_of_a_thread_has_the_same_supervisor() {
        let grandchild = failure_of(true, || {
            let child = spawn(Kind::LogWriter, None, || panic!("deep inside"))?;
            child.join().map_err(|_| io::Error::other("not caught"))
        });
        assert!(grandchild.expect("a failure").ends_with(": deep inside"));
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for (kind, name) in NAMES {
            assert_eq!(kind.name(), name);
            assert_eq!(NAMES.iter().filter(|(_, other)| *other == name).count(), 1);
        }
    }
}
