//! The bounded queue between threads, with a bell that wakes a *sleeping* receiver.
//!
//! ```text
//!   sender (any thread)                         receiver (one thread)
//!   push                                        sleeping = how
//!   fence(SeqCst)                               fence(SeqCst)
//!   if sleeping.swap(awake) != awake: ring      queue empty? then wait for the bell
//! ```
//!
//! The two fences make it impossible that the sender sees `sleeping == awake` *and* the receiver
//! sees an empty queue: one of them comes first in the single total order. Without them a message
//! could stay unseen for ever. A busy receiver costs its senders no system call, and a burst of
//! messages costs one wake-up.
//!
//! The bell of a shard, which waits in its reactor, is an eventfd. A plain thread waits for the
//! word `sleeping` itself (a futex): two system calls fewer each time, and no descriptor.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use rustix::{
    event::{EventfdFlags, Timespec, eventfd},
    io::{read, write},
    thread::futex,
};

use super::{
    notify::Notify,
    reactor::{self, EventFd},
};

/// Atomic operations of the handshake; the model checker has its own implementation.
trait Word {
    fn store(&self, value: u32);
    fn load(&self) -> u32;
    fn swap(&self, value: u32) -> u32;
    fn fence();
}

impl Word for AtomicU32 {
    fn store(&self, value: u32) {
        self.store(value, Ordering::SeqCst);
    }

    fn load(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, value: u32) -> u32 {
        self.swap(value, Ordering::SeqCst)
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Values of the word: awake, or the way in which the receiver sleeps.
const AWAKE: u32 = 0;
const ON_FUTEX: u32 = 1;
const ON_EVENTFD: u32 = 2;

/// The handshake itself.
#[derive(Debug)]
struct Sleeping<W>(W);

impl<W: Word> Sleeping<W> {
    /// The sender's half, after its push. Returns how the receiver sleeps that it must wake, or
    /// `AWAKE`.
    fn must_wake(&self) -> u32 {
        W::fence();
        if self.0.load() == AWAKE {
            return AWAKE;
        }
        self.0.swap(AWAKE)
    }

    /// The receiver's half: announces sleep. `false` when there is work after all, as reported by
    /// `has_work`.
    fn prepare(&self, how: u32, has_work: impl Fn() -> bool) -> bool {
        self.0.store(how);
        W::fence();
        if has_work() {
            self.0.store(AWAKE);
            return false;
        }
        true
    }

    fn end(&self) {
        self.0.store(AWAKE);
    }
}

/// The sleep-and-wake handshake of one receiving thread; several queues may share it.
#[derive(Debug)]
pub struct Waker {
    sleeping: Sleeping<AtomicU32>,
    /// The bell of a shard.
    eventfd: Option<OwnedFd>,
}

impl Waker {
    /// Makes a waker for a shard, which waits in its reactor.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self::with(Some(eventfd)))
    }

    /// Makes a waker for a thread that waits by [`Waker::wait_blocking`] only.
    pub fn for_thread() -> Arc<Self> {
        Self::with(None)
    }

    fn with(eventfd: Option<OwnedFd>) -> Arc<Self> {
        Arc::new(Self {
            sleeping: Sleeping(AtomicU32::new(AWAKE)),
            eventfd,
        })
    }

    /// Called by senders after a push: wakes the receiver if it sleeps.
    pub fn wake(&self) {
        match self.sleeping.must_wake() {
            // Only a bad address could make it fail.
            ON_FUTEX => _ = futex::wake(&self.sleeping.0, futex::Flags::PRIVATE, 1),
            ON_EVENTFD => self.ring(),
            _ => {}
        }
    }

    /// The bell of a thread that waits in a reactor of its own; `None` for a thread that waits by
    /// [`Waker::wait_blocking`].
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.eventfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Announces that the receiver is about to wait for its bell; false when `has_work`.
    pub(crate) fn prepare_sleep(&self, has_work: impl Fn() -> bool) -> bool {
        self.sleeping.prepare(ON_EVENTFD, has_work)
    }

    /// Notes that the receiver is awake, whatever has woken it, and silences its bell.
    pub(crate) fn end_sleep(&self) {
        self.clear();
    }

    fn ring(&self) {
        if let Some(eventfd) = &self.eventfd {
            // The counter can only be full after 2^64 - 2 unread wake-ups; then the receiver is
            // awake anyway.
            let _ = write(eventfd, &1u64.to_ne_bytes());
        }
    }

    fn clear(&self) {
        self.sleeping.end();
        if let Some(eventfd) = &self.eventfd {
            let mut counter = [0; 8];
            // WouldBlock when no wake-up was pending: nothing to clear.
            let _ = read(eventfd, &mut counter);
        }
    }

    /// Waits on a plain thread until woken, or until `timeout`; returns at once when `has_work`.
    pub fn wait_blocking(&self, timeout: Option<Duration>, has_work: impl Fn() -> bool) {
        if !self.sleeping.prepare(ON_FUTEX, has_work) {
            return;
        }
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        // Returns at once if a sender has woken this thread since. An interrupted wait is a
        // spurious wake-up; the caller checks its queues and waits again.
        let _ = futex::wait(
            &self.sleeping.0,
            futex::Flags::PRIVATE,
            ON_FUTEX,
            timeout.as_ref(),
        );
        self.sleeping.end();
    }
}

/// The receiving side of a [`Waker`] on a shard's reactor.
///
/// One task waits for the eventfd, another for messages. So a task that polls for messages can wake
/// the latter without the eventfd, which stays watched meanwhile.
pub(crate) struct ShardSleeper {
    waker: Arc<Waker>,
    called: Rc<Called>,
    /// Whether a task polls for messages, so that their senders need not ring.
    attended: Cell<bool>,
}

/// The event for which the receiver waits.
#[derive(Default)]
struct Called {
    notify: Notify,
    /// The reason why no further event will come.
    failed: RefCell<Option<io::Error>>,
}

impl ShardSleeper {
    /// Makes a sleeper. Must be called on the shard's own thread, inside its reactor.
    pub(crate) fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let Some(eventfd) = &waker.eventfd else {
            return Err(io::Error::other("a thread's waker has no eventfd to wait for"));
        };
        let eventfd = EventFd::new(eventfd.as_fd().try_clone_to_owned()?)?;
        let called = Rc::new(Called::default());
        let (own, rung) = (called.clone(), waker.clone());
        reactor::spawn(async move {
            while !own.failed(eventfd.readable().await) {
                rung.clear();
                own.notify.notify();
            }
        });
        Ok(Self {
            waker,
            called,
            attended: Cell::new(false),
        })
    }

    /// Waits until a sender wakes this shard; returns at once when `has_work`.
    ///
    /// # Errors
    /// If the eventfd has failed: no message will be noticed any more.
    pub(crate) async fn wait(&self, has_work: impl Fn() -> bool) -> io::Result<()> {
        let sleeps = if self.attended.get() {
            !has_work()
        } else {
            self.waker.sleeping.prepare(ON_EVENTFD, has_work)
        };
        if !sleeps {
            return Ok(());
        }
        self.called.wait().await?;
        self.waker.sleeping.end();
        Ok(())
    }

    /// Lets the shard's other tasks run, then returns: for a receiver that has more to do.
    ///
    /// # Errors
    /// Those of [`ShardSleeper::wait`].
    pub(crate) async fn yield_turn(&self) -> io::Result<()> {
        // A wake-up of our own goes through the kernel, and so comes after the events that the
        // other tasks wait for.
        self.waker.ring();
        self.called.wait().await
    }

    /// Starts polling: the caller checks for messages, again and again, until it leaves.
    pub(crate) fn attend(&self) {
        self.attended.set(true);
        self.waker.sleeping.end();
    }

    /// Wakes the receiver when `has_work`.
    pub(crate) fn look(&self, has_work: impl Fn() -> bool) {
        if has_work() {
            self.called.notify.notify();
        }
    }

    /// Ends polling: senders ring again.
    pub(crate) fn leave(&self, has_work: impl Fn() -> bool) {
        self.attended.set(false);
        if !self.waker.sleeping.prepare(ON_EVENTFD, has_work) {
            self.called.notify.notify();
        }
    }
}

impl Called {
    async fn wait(&self) -> io::Result<()> {
        self.notify.notified().await;
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Notes a failure, if this is one.
    fn failed(&self, result: io::Result<()>) -> bool {
        let Err(error) = result else { return false };
        *self.failed.borrow_mut() = Some(error);
        self.notify.notify();
        true
    }
}

/// A bounded queue into one thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: ArrayQueue<T>,
    waker: Arc<Waker>,
}

impl<T> Mailbox<T> {
    /// Makes a queue of at most `capacity` messages.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
            waker,
        }
    }

    /// Queues a message and wakes the receiver if it sleeps.
    ///
    /// # Errors
    /// Returns the message when the queue is full: the caller sheds, it never waits.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.push(message)?;
        self.waker.wake();
        Ok(())
    }

    /// Queues one of many messages: [`Mailbox::wake`] must follow the last.
    ///
    /// # Errors
    /// Those of [`Mailbox::send`].
    pub fn push(&self, message: T) -> Result<(), T> {
        self.queue.push(message)
    }

    /// Wakes the receiver if it sleeps and has not taken all messages yet.
    pub fn wake(&self) {
        if !self.is_empty() {
            self.waker.wake();
        }
    }

    /// Takes the oldest message. Only the receiving thread calls this.
    pub fn receive(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::runtime::reactor::{DriverChoice, DriverInUse};

    #[test]
    fn full_mailbox_hands_the_message_back() {
        let mailbox = Mailbox::new(2, Waker::for_thread());
        assert_eq!(mailbox.send(1), Ok(()));
        assert_eq!(mailbox.send(2), Ok(()));
        assert_eq!(mailbox.send(3), Err(3));
        assert_eq!(mailbox.receive(), Some(1));
        assert_eq!(mailbox.send(3), Ok(()));
    }

    #[test]
    fn no_message_is_left_behind_by_a_sleeping_receiver() {
        const SENDERS: u64 = 3;
        const EACH: u64 = 20_000;
        let waker = Waker::for_thread();
        let mailbox = Arc::new(Mailbox::new(64, waker.clone()));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        let mut message = sender * EACH + number;
                        while let Err(back) = mailbox.send(message) {
                            message = back;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut seen = vec![false; (SENDERS * EACH) as usize];
        let mut count = 0;
        while count < SENDERS * EACH {
            while let Some(message) = mailbox.receive() {
                assert!(
                    !std::mem::replace(&mut seen[message as usize], true),
                    "message {message} came twice"
                );
                count += 1;
            }
            if count < SENDERS * EACH {
                // The bound turns a lost wake-up into a failure of the assertion below instead of a
                // hang.
                waker.wait_blocking(Some(Duration::from_secs(20)), || !mailbox.is_empty());
                assert!(!mailbox.is_empty() || count > 0, "a wake-up was lost");
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(seen.into_iter().all(|flag| flag));
    }

    /// Senders of messages that a task polls for leave the eventfd alone; before and after that,
    /// they ring.
    #[test]
    fn who_looks_for_messages_gets_them_without_a_ring_and_who_sleeps_is_woken() {
        let mut drivers = vec![DriverInUse::Epoll];
        drivers.extend(DriverInUse::choose(DriverChoice::Auto).ok());
        for driver in drivers {
            let waker = Waker::new().unwrap();
            let mailbox = Arc::new(Mailbox::new(8, waker.clone()));
            let received = reactor::run(driver, async {
                let sleeper = Rc::new(ShardSleeper::new(waker.clone()).unwrap());
                let received = Rc::new(RefCell::new(Vec::new()));
                let done = Rc::new(Notify::default());
                let (inbox, into, told, own) =
                    (mailbox.clone(), received.clone(), done.clone(), sleeper.clone());
                reactor::spawn(async move {
                    loop {
                        while let Some(message) = inbox.receive() {
                            into.borrow_mut().push(message);
                            told.notify();
                        }
                        own.wait(|| !inbox.is_empty()).await.unwrap();
                    }
                });
                for number in 0..30 {
                    let attended = number % 3 != 0;
                    if attended {
                        sleeper.attend();
                        mailbox.send(number).unwrap();
                        assert_eq!(Word::load(&waker.sleeping.0), AWAKE, "nobody has to ring");
                        sleeper.look(|| !mailbox.is_empty());
                    } else {
                        let mailbox = mailbox.clone();
                        thread::spawn(move || mailbox.send(number).unwrap());
                    }
                    // Whichever way the message came, the receiver takes it.
                    done.notified().await;
                    if attended {
                        sleeper.leave(|| !mailbox.is_empty());
                    }
                }
                received.take()
            });
            assert_eq!(received.unwrap(), (0..30).collect::<Vec<_>>());
        }
    }

    struct ModelWord(loom::sync::atomic::AtomicU32);

    impl Word for ModelWord {
        fn store(&self, value: u32) {
            self.0.store(value, Ordering::SeqCst);
        }

        fn load(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        fn swap(&self, value: u32) -> u32 {
            self.0.swap(value, Ordering::SeqCst)
        }

        fn fence() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// Two senders and a receiver that goes to sleep, under the C11 memory model: all interleavings
    /// of up to three preemptions.
    #[test]
    fn a_sleeping_receiver_is_always_woken() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sleeping =
                loom::sync::Arc::new(Sleeping(ModelWord(loom::sync::atomic::AtomicU32::new(AWAKE))));
            let queue = loom::sync::Arc::new(loom::sync::atomic::AtomicUsize::new(0));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let (sleeping, queue) = (sleeping.clone(), queue.clone());
                    loom::thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Release);
                        sleeping.must_wake()
                    })
                })
                .collect();
            let sleeps = sleeping.prepare(ON_FUTEX, || queue.load(Ordering::Acquire) > 0);
            let wakes = senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .filter(|woken| *woken == ON_FUTEX)
                .count();
            assert!(
                !sleeps || wakes == 1,
                "asleep with messages in the queue: {wakes} wake-ups"
            );
        });
    }
}
