//! The bounded queue between threads, with an eventfd that wakes a *sleeping* receiver.
//!
//! ```text
//!   sender (any thread)                      receiver (one thread)
//!   push                                     sleeping = true
//!   fence(SeqCst)                            fence(SeqCst)
//!   if sleeping.swap(false): write eventfd   queue empty? then wait for the eventfd
//! ```
//!
//! The two fences make it impossible that the sender sees `sleeping == false` *and* the receiver sees an empty queue: one
//! of them comes first in the single total order. Without them a message could lie unseen for ever. A busy receiver costs
//! its senders no system call, and a burst of messages costs one wake-up.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{read, write},
};

use super::reactor::EventFd;

/// The atomic operations of the handshake; the model checker brings its own.
trait Flag {
    fn store(&self, value: bool);
    fn load(&self) -> bool;
    fn swap(&self, value: bool) -> bool;
    fn fence();
}

impl Flag for AtomicBool {
    fn store(&self, value: bool) {
        self.store(value, Ordering::SeqCst);
    }

    fn load(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::SeqCst)
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// The handshake itself.
#[derive(Debug)]
struct Sleeping<F>(F);

impl<F: Flag> Sleeping<F> {
    /// The sender's half, after its push: whether it must wake the receiver.
    fn must_wake(&self) -> bool {
        F::fence();
        self.0.load() && self.0.swap(false)
    }

    /// The receiver's half: announces sleep. `false` when `has_work` says that there is something to do after all.
    fn prepare(&self, has_work: impl Fn() -> bool) -> bool {
        self.0.store(true);
        F::fence();
        if has_work() {
            self.0.store(false);
            return false;
        }
        true
    }

    fn end(&self) {
        self.0.store(false);
    }
}

/// The sleep-and-wake handshake of one receiving thread; several queues may share it.
#[derive(Debug)]
pub struct Waker {
    sleeping: Sleeping<AtomicBool>,
    eventfd: OwnedFd,
}

impl Waker {
    /// A waker for one receiving thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self {
            sleeping: Sleeping(AtomicBool::new(false)),
            eventfd,
        }))
    }

    /// Called by senders after a push: wakes the receiver if it sleeps.
    pub fn wake(&self) {
        if self.sleeping.must_wake() {
            // The counter can only be full after 2^64 - 2 unread wake-ups; then the receiver is awake anyway.
            let _ = write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    fn clear(&self) {
        self.sleeping.end();
        let mut counter = [0; 8];
        // WouldBlock when no wake-up was pending: nothing to clear.
        let _ = read(&self.eventfd, &mut counter);
    }

    /// Waits on a plain thread until woken, or until `timeout`; returns at once when `has_work`.
    pub fn wait_blocking(&self, timeout: Option<Duration>, has_work: impl Fn() -> bool) {
        if !self.sleeping.prepare(has_work) {
            return;
        }
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        // An interrupted poll is a spurious wake-up; the caller looks at its queues and waits again.
        let _ = poll(&mut [PollFd::new(&self.eventfd, PollFlags::IN)], timeout.as_ref());
        self.clear();
    }
}

/// The receiving side of a [`Waker`] on a shard's reactor.
pub(crate) struct ShardSleeper {
    waker: Arc<Waker>,
    readable: EventFd,
}

impl ShardSleeper {
    /// Must be called on the shard's own thread, inside its reactor.
    pub(crate) fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let readable = EventFd::new(waker.eventfd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { waker, readable })
    }

    /// Waits until a sender wakes this shard; returns at once when `has_work`.
    pub(crate) async fn wait(&self, has_work: impl Fn() -> bool) -> io::Result<()> {
        if !self.waker.sleeping.prepare(has_work) {
            return Ok(());
        }
        let result = self.readable.readable().await;
        self.waker.clear();
        result
    }

    /// Lets the shard's other tasks run, then returns: for a receiver that has more to do.
    pub(crate) async fn yield_turn(&self) -> io::Result<()> {
        // A wake-up of our own goes through the kernel and so behind what the other tasks wait for.
        let _ = write(&self.waker.eventfd, &1u64.to_ne_bytes());
        let result = self.readable.readable().await;
        self.waker.clear();
        result
    }
}

/// A bounded queue into one thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: ArrayQueue<T>,
    waker: Arc<Waker>,
}

impl<T> Mailbox<T> {
    /// A queue of at most `capacity` messages.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
            waker,
        }
    }

    /// Queues a message and wakes the receiver if it sleeps.
    ///
    /// # Errors
    /// Hands the message back when the queue is full: the caller sheds, it never waits.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.push(message)?;
        self.waker.wake();
        Ok(())
    }

    /// Queues one of many messages: [`Mailbox::wake`] must follow the last.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub fn push(&self, message: T) -> Result<(), T> {
        self.queue.push(message)
    }

    /// Wakes the receiver if it sleeps and has not taken all messages yet.
    pub fn wake(&self) {
        if !self.is_empty() {
            self.waker.wake();
        }
    }

    /// The oldest message. Only the receiving thread calls this.
    pub fn receive(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn full_mailbox_hands_the_message_back() {
        let mailbox = Mailbox::new(2, Waker::new().unwrap());
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
        let waker = Waker::new().unwrap();
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
                // The bound turns a lost wake-up into a failure of the assertion below instead of a hang.
                waker.wait_blocking(Some(Duration::from_secs(20)), || !mailbox.is_empty());
                assert!(!mailbox.is_empty() || count > 0, "a wake-up was lost");
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(seen.into_iter().all(|flag| flag));
    }

    struct ModelFlag(loom::sync::atomic::AtomicBool);

    impl Flag for ModelFlag {
        fn store(&self, value: bool) {
            self.0.store(value, Ordering::SeqCst);
        }

        fn load(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn swap(&self, value: bool) -> bool {
            self.0.swap(value, Ordering::SeqCst)
        }

        fn fence() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// Two senders and a receiver that goes to sleep, under the C11 memory model: all interleavings of up to three
    /// preemptions.
    #[test]
    fn a_sleeping_receiver_is_always_woken() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sleeping =
                loom::sync::Arc::new(Sleeping(ModelFlag(loom::sync::atomic::AtomicBool::new(false))));
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
            let sleeps = sleeping.prepare(|| queue.load(Ordering::Acquire) > 0);
            let wakes = senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .filter(|woke| *woke)
                .count();
            assert!(
                !sleeps || wakes == 1,
                "asleep with messages in the queue: {wakes} wake-ups"
            );
        });
    }
}
