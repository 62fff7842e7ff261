//! The only module that names the runtime (monoio), so that it can be swapped.
//!
//! It offers only what a shard needs: run a future on a pinned thread, accept, receive, send, write
//! a file, wait for an eventfd, sleep. The driver in use (io_uring, or epoll where io_uring is
//! forbidden) is decided here and reported to the caller.
//!
//! Known traps of monoio 0.2.4 that this module avoids: a cancelled accept leaks the descriptor
//! (accept is never cancelled before the process drains), a task that yields goes to the front of
//! the queue (nothing here yields), timers have a resolution of 1 ms, and completions starve under
//! DEFER_TASKRUN (not set).

use std::{
    fs::File as StdFile,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    ops::Range,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    rc::Rc,
    time::{Duration, Instant},
};

use monoio::{
    IoUringDriver, LegacyDriver, RuntimeBuilder,
    buf::{IoBuf, IoBufMut},
    fs::File,
    io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable},
    net::{TcpStream, UnixStream},
};

use socket2::{SockRef, TcpKeepalive};

use super::notify::Notify;

/// Kernel interface by which the shards shall wait for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the kernel allows it, otherwise epoll.
    Auto,
    /// io_uring, or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// The kernel interface that a shard really runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverInUse {
    /// io_uring: completions.
    IoUring,
    /// epoll: readiness. Used where io_uring is forbidden, for example by a container's seccomp
    /// profile.
    Epoll,
}

impl DriverInUse {
    /// Decides the driver from the configured choice and the kernel's abilities.
    ///
    /// # Errors
    /// `Unsupported` when io_uring is demanded but the kernel refuses it.
    pub fn choose(wanted: DriverChoice) -> io::Result<Self> {
        match wanted {
            DriverChoice::Epoll => Ok(Self::Epoll),
            _ if monoio::utils::detect_uring() => Ok(Self::IoUring),
            DriverChoice::Auto => Ok(Self::Epoll),
            DriverChoice::IoUring => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel refuses io_uring here (a container's seccomp profile, or kernel.io_uring_disabled); \
                 use --driver auto or --driver epoll",
            )),
        }
    }

    /// The name that operators see: `io_uring` or `epoll`.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Submission queue entries of one shard's ring. Ring memory counts against RLIMIT_MEMLOCK, so it
/// stays small.
const RING_ENTRIES: u32 = 512;

/// Runs `future` to its end on this thread.
///
/// # Errors
/// When the kernel refuses the ring or the epoll instance (limits of memory or descriptors).
pub(crate) fn run<F: Future>(driver: DriverInUse, future: F) -> io::Result<F::Output> {
    match driver {
        DriverInUse::IoUring => {
            let mut runtime = match ring(true) {
                Ok(runtime) => runtime,
                // Kernels before 6.0 do not know the flags.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => ring(false)?,
                Err(error) => return Err(error),
            };
            Ok(runtime.block_on(future))
        }
        DriverInUse::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(future))
        }
    }
}

/// Makes a ring for one thread. With `cooperative` the kernel does not interrupt the shard to
/// deliver completions but waits until the shard enters the kernel anyway, and it knows that no
/// other thread submits.
fn ring(cooperative: bool) -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let mut flags = io_uring::IoUring::builder();
    if cooperative {
        flags
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag();
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(flags)
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
}

/// Pins the calling thread to one core.
///
/// # Errors
/// When the core does not exist or is outside this process's allowed set.
pub(crate) fn pin_to_core(core: usize) -> io::Result<()> {
    monoio::utils::bind_to_cpu_set([core]).map_err(|errno| io::Error::from_raw_os_error(errno as i32))
}

/// Starts a task on this shard. It ends with the shard at the latest.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    monoio::spawn(future);
}

/// A way to give all other tasks, and the ring, a turn without sleeping.
///
/// monoio puts a task that wakes itself in front of the others, which would starve. So it is woken
/// by a second task, which the first one wakes: both go to the end of the queue. Not for epoll,
/// whose driver polls only when it sleeps.
pub(crate) struct Turns(Rc<(Notify, Notify)>);

impl Turns {
    /// Starts the second task. It ends with the shard.
    pub(crate) fn start() -> Self {
        let turns = Rc::new((Notify::default(), Notify::default()));
        let other = turns.clone();
        spawn(async move {
            loop {
                other.0.notified().await;
                other.1.notify();
            }
        });
        Self(turns)
    }

    /// Resolves when the others have had their turn.
    pub(crate) async fn next(&self) {
        self.0.0.notify();
        self.0.1.notified().await;
    }
}

/// Sleeps for `duration`, rounded up to a millisecond.
pub(crate) async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// The value of `future` if it comes before `deadline`.
pub(crate) async fn value_before<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout_at(monoio::time::Instant::from_std(deadline), future)
        .await
        .ok()
}

/// The number of an open socket, for code that must shut it down from outside the reactor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor(RawFd);

impl Descriptor {
    /// Shuts the socket down in both directions; it stays open. The caller knows that it has not
    /// been closed yet.
    pub(crate) fn shutdown(self) {
        // This fails if the peer has gone, and then nothing is left to be done.
        let _ = nix::sys::socket::shutdown(self.0, nix::sys::socket::Shutdown::Both);
    }
}

/// Resolves to `true` when `future` ended before `deadline`, else drops it and resolves to `false`.
pub(crate) async fn before(deadline: Instant, future: impl Future<Output = ()>) -> bool {
    value_before(deadline, future).await.is_some()
}

/// Probes without an answer after which the kernel closes a connection.
const KEEPALIVE_PROBES: u32 = 4;

/// A listening socket.
pub(crate) struct Listener(monoio::net::TcpListener);

impl Listener {
    /// Takes over a bound, non-blocking socket. The kernel closes connections of machines that are
    /// silent for `interval` (zero: never) and then do not answer for `timeout`: they inherit that
    /// from the socket.
    pub(crate) fn new(listener: TcpListener, interval: Duration, timeout: Duration) -> io::Result<Self> {
        if !interval.is_zero() {
            let probes = (timeout / KEEPALIVE_PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new()
                .with_time(interval.max(Duration::from_secs(1)))
                .with_interval(probes)
                .with_retries(KEEPALIVE_PROBES);
            let socket = SockRef::from(&listener);
            socket.set_tcp_keepalive(&keepalive)?;
            // Keepalive does not probe while bytes are in flight; this timeout covers them.
            socket.set_tcp_user_timeout(Some(interval + timeout))?;
        }
        monoio::net::TcpListener::from_std(listener).map(Self)
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor(self.0.as_raw_fd())
    }

    /// The next connection, with Nagle's algorithm off.
    pub(crate) async fn accept(&self) -> io::Result<(Receiver, Sender, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        // This fails if the peer has already gone; the first receive will show it.
        let _ = stream.set_nodelay(true);
        let descriptor = Descriptor(stream.as_raw_fd());
        let (receiver, sender) = stream.into_split();
        Ok((Receiver(receiver), Sender(sender, descriptor), peer))
    }
}

/// The receiving half of a connection.
pub(crate) struct Receiver(OwnedReadHalf<TcpStream>);

impl Receiver {
    /// Receives into `buffer` after its first `filled` bytes, up to its capacity. Returns the
    /// number of bytes received; 0 at the end of the stream.
    pub(crate) async fn recv(&mut self, buffer: Vec<u8>, filled: usize) -> (io::Result<usize>, Vec<u8>) {
        debug_assert!(buffer.capacity() > filled);
        let capacity = buffer.capacity();
        let (result, slice) = self.0.read(IoBufMut::slice_mut(buffer, filled..capacity)).await;
        (result, slice.into_inner())
    }
}

/// The sending half of a connection.
pub(crate) struct Sender(OwnedWriteHalf<TcpStream>, Descriptor);

impl Sender {
    /// The connection's socket, open as long as this half.
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.1
    }

    /// Sends all of `buffer` and returns it. `on_progress` gets the number of bytes left each time
    /// that the kernel accepts some and not all.
    pub(crate) async fn send_all(
        &mut self,
        mut buffer: Vec<u8>,
        on_progress: impl Fn(usize),
    ) -> (io::Result<()>, Vec<u8>) {
        let total = buffer.len();
        let mut sent = 0;
        while sent < total {
            let (result, slice) = self.0.write(IoBuf::slice(buffer, sent..total)).await;
            buffer = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(count) => {
                    sent += count;
                    if sent < total {
                        on_progress(total - sent);
                    }
                }
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Ends the sending direction.
    pub(crate) async fn shutdown(&mut self) {
        // This fails if the peer is gone, and then no end needs to be sent.
        let _ = self.0.shutdown().await;
    }
}

/// A file that is written at given offsets, through the ring. Under epoll a write would block the
/// shard.
pub(crate) struct WriteFile(File);

impl WriteFile {
    /// Takes over a descriptor that is open for writing. The ring closes it, some time after the
    /// drop.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        File::from_std(StdFile::from(fd)).map(Self)
    }

    /// Writes the `range` of `buffer` at `offset`, with one operation. Returns the number of bytes
    /// written, and the buffer. The operation reaches the kernel when the shard's tasks have had
    /// their turn.
    ///
    /// Dropping this future does not cancel the write: it may happen or not. The shard must not end
    /// while a write is in flight, or the kernel writes from memory that has been reused.
    pub(crate) async fn write_at(
        &self,
        buffer: Vec<u8>,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        let (result, slice) = self.0.write_at(IoBuf::slice(buffer, range), offset).await;
        (result, slice.into_inner())
    }
}

/// An eventfd for the reactor: a descriptor that becomes readable.
pub(crate) struct EventFd(UnixStream);

impl EventFd {
    /// Takes over a non-blocking eventfd. The socket type is only a handle here: polling works on
    /// any descriptor.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(StdUnixStream::from(fd)).map(Self)
    }

    /// Waits until a peer has written.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable(false).await
    }
}
