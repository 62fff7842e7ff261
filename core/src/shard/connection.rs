//! One TCP connection on its shard: moves bytes between the kernel and the session, and knows nothing of what they mean.
//!
//! Two tasks: the *reader* receives, lets the session process all that came, and sends the replies; the *sender* waits for
//! replies that come later (from a store, another shard) and sends those. At most one send is in flight: whoever finds
//! one under way leaves its bytes in the session's output, and the task that sends picks them up before it stops.
//!
//! An idle connection holds a small receive buffer and no output buffer; busy ones borrow large buffers from the shard.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use prism_backends::NamespaceId;
use prism_codec::h2::Config;

use super::{Shard, h1_session::H1Session, h2_session::H2Session};
use crate::{
    call::{
        job::Reply,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::Dispatcher,
    runtime::{
        notify::Notify,
        reactor::{self, Descriptor, Receiver, Sender},
    },
};

/// The receive buffer of an idle connection. Must hold what the HTTP/2 machine wants to see in one piece.
const RECEIVE_BYTES_MIN: usize = 4 << 10;
/// The receive buffer of a busy connection.
const RECEIVE_BYTES_MAX: usize = 64 << 10;
/// A send buffer above this size goes back to the allocator, not to the pool.
const POOLED_BYTES_MAX: usize = 256 << 10;
/// Buffers that one shard keeps for later use.
const POOLED_BUFFERS_MAX: usize = 64;
/// A client that takes nothing for this long while there is something to send is gone.
const SEND_STALL_MAX: Duration = Duration::from_secs(60);
/// Incomplete request bodies of one connection: this many messages of the largest size.
const BODIES_MAX: usize = 4;

/// The first bytes of every HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection.
pub(crate) struct Connection {
    shard: Rc<Shard>,
    address: Ticket,
    peer: SocketAddr,
    /// Open as long as the connection is in the shard's table.
    descriptor: Descriptor,
    session: RefCell<Session>,
    /// The sending half, while nobody sends.
    sender: RefCell<Option<Sender>>,
    /// Raised when the session has output that its reader does not know of.
    output_waits: Notify,
    /// Raised when output has left.
    output_left: Notify,
    /// Set once: both tasks end.
    closed: Closed,
    opened: Instant,
    last_active: Cell<Instant>,
    send_began: Cell<Option<Instant>>,
}

enum Session {
    /// Not enough bytes to tell the protocol.
    Unknown,
    H1(Box<H1Session>),
    H2(Box<H2Session>),
}

/// What is to be done after the session has processed a receive.
enum Next {
    Receive,
    /// Send what there is, then close.
    Close,
}

impl Connection {
    /// Registers a connection and starts its tasks, unless the shard has as many as it may have.
    pub(crate) fn start(shard: &Rc<Shard>, receiver: Receiver, sender: Sender, peer: SocketAddr) {
        let now = Instant::now();
        let descriptor = sender.descriptor();
        let mut sender = Some(sender);
        let connection = shard.connections.borrow_mut().insert(|slot, generation| {
            let call = CallId::Request(0);
            Rc::new(Self {
                shard: shard.clone(),
                address: Ticket {
                    shard: shard.number,
                    slot,
                    generation,
                    call,
                    namespace: NamespaceId(0),
                },
                peer,
                descriptor,
                session: RefCell::new(Session::Unknown),
                sender: RefCell::new(sender.take()),
                output_waits: Notify::default(),
                output_left: Notify::default(),
                closed: Closed::default(),
                opened: now,
                last_active: Cell::new(now),
                send_began: Cell::new(None),
            })
        });
        let gateway = shard.gateway.borrow();
        let metrics = gateway.metrics();
        match connection {
            Some(connection) => {
                metrics.connections_accepted.add(1);
                metrics
                    .connections_open
                    .set(shard.connections.borrow().len() as u64);
                reactor::spawn(connection.clone().send_later());
                reactor::spawn(connection.read(receiver));
            }
            // Dropping both halves closes it: the client sees the refusal at once.
            None => metrics.connections_refused.add(1),
        }
    }

    pub(crate) fn address(&self) -> &Ticket {
        &self.address
    }

    /// The reader task: until the peer closes, breaks the protocol, or the shard wants the connection gone.
    async fn read(self: Rc<Self>, mut receiver: Receiver) {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES_MIN);
        loop {
            if !self.wants_read() {
                // The client does not take its replies: stop taking its requests.
                let Some(()) = self.closed.unless(0, self.output_left.notified()).await else {
                    break;
                };
            } else {
                let filled = buffer.len();
                let Some((result, filled_buffer)) =
                    self.closed.unless(0, receiver.recv(buffer, filled)).await
                else {
                    return self.end().await;
                };
                buffer = filled_buffer;
                match result {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let received = buffer.len();
            let next = self.process(&mut buffer);
            self.flush().await;
            // The drain may have been completed by what this task has just sent for the other one.
            if matches!(next, Next::Close) || (self.is_drained() && !self.is_sending()) {
                break;
            }
            buffer = self.fit(buffer, received);
        }
        self.recycle(buffer);
        self.end().await;
    }

    /// Lets the session process what has been received, and removes from the buffer what it used.
    fn process(&self, buffer: &mut Vec<u8>) -> Next {
        let now = Instant::now();
        self.last_active.set(now);
        let mut gateway = self.shard.gateway.borrow_mut();
        gateway.begin_batch();
        let mut session = self.session.borrow_mut();
        if matches!(*session, Session::Unknown) {
            match Session::recognise(buffer, self, &gateway) {
                Some(recognised) => *session = recognised,
                None => return Next::Receive,
            }
        }
        let metrics = gateway.metrics();
        metrics.received_bytes.add(buffer.len() as u64);
        let (used, go_on) = match &mut *session {
            Session::H2(session) => {
                if session.h2().output().capacity() == 0 {
                    *session.h2().output() = self.pooled();
                }
                let (used, go_on) = session.handle_recv(buffer, now, &mut gateway);
                if !go_on {
                    gateway.metrics().connections_failed.add(1);
                }
                (used, go_on && !session.h2().is_drained())
            }
            Session::H1(session) => session.handle_recv(buffer, now, &mut gateway),
            Session::Unknown => (0, true),
        };
        gateway.end_batch(now);
        self.shard.poller.note(gateway.outstanding());
        // What is left over is the start of a frame, so this moves little.
        buffer.drain(..used);
        if go_on { Next::Receive } else { Next::Close }
    }

    /// Gives the next receive a buffer that fits the connection's pace.
    fn fit(&self, mut buffer: Vec<u8>, received: usize) -> Vec<u8> {
        let busy = received >= RECEIVE_BYTES_MIN;
        if busy && buffer.capacity() < RECEIVE_BYTES_MAX {
            let mut larger = self.pooled();
            larger.reserve(RECEIVE_BYTES_MAX);
            larger.extend_from_slice(&buffer);
            return larger;
        }
        if received < RECEIVE_BYTES_MIN / 4 && buffer.capacity() >= RECEIVE_BYTES_MAX {
            let mut smaller = Vec::with_capacity(RECEIVE_BYTES_MIN);
            smaller.extend_from_slice(&buffer);
            self.recycle(buffer);
            return smaller;
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(RECEIVE_BYTES_MAX);
        }
        buffer
    }

    /// The sender task: sends what answers from elsewhere have put into the output.
    async fn send_later(self: Rc<Self>) {
        while let Some(()) = self.closed.unless(1, self.output_waits.notified()).await {
            self.flush().await;
            // While the reader sends, closing would cut off what it sends; it closes itself afterwards.
            if self.is_drained() && !self.is_sending() {
                self.closed.set();
            }
        }
    }

    /// Sends until the session's output is empty. Returns at once when the other task is sending: it takes what is new.
    async fn flush(&self) {
        let Some(mut sender) = self.sender.borrow_mut().take() else {
            return;
        };
        let mut something_left = false;
        loop {
            self.refill();
            let output = self.session.borrow_mut().take_output();
            if output.is_empty() {
                self.recycle(output);
                break;
            }
            self.shard
                .gateway
                .borrow()
                .metrics()
                .sent_bytes
                .add(output.len() as u64);
            self.send_began.set(Some(self.last_active.get()));
            let sent = self.closed.unless(2, sender.send_all(output)).await;
            self.send_began.set(None);
            let Some((result, output)) = sent else { break };
            something_left = true;
            self.recycle(output);
            if result.is_err() {
                self.closed.set();
                break;
            }
        }
        *self.sender.borrow_mut() = Some(sender);
        if something_left {
            self.output_left.notify();
        }
    }

    /// Lets a streaming reply of HTTP/1.1 go on: there is room for it again. HTTP/2 has windows for that.
    fn refill(&self) {
        if let Session::H1(session) = &mut *self.session.borrow_mut() {
            session.pump(&mut self.shard.gateway.borrow_mut());
        }
    }

    /// The end of the reader: forgets all calls, lets the last output go, closes.
    async fn end(self: Rc<Self>) {
        self.session
            .borrow_mut()
            .close(&mut self.shard.gateway.borrow_mut());
        self.flush().await;
        // The last output may be in the hands of the other task; closing now would cut it off.
        while self.is_sending() {
            if self.closed.unless(0, self.output_left.notified()).await.is_none() {
                break;
            }
        }
        self.closed.set();
        let sender = self.sender.borrow_mut().take();
        if let Some(mut sender) = sender {
            sender.shutdown().await;
        }
        self.shard.forget(&self);
    }

    /// Cuts the peer off without a turn of the tasks: the shard's thread has ended.
    pub(crate) fn abandon(&self) {
        self.descriptor.shutdown();
    }

    /// Hands an answer to its call; the caller wakes the sender.
    pub(crate) fn handle_reply(&self, reply: Reply, gateway: &mut Dispatcher) {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.handle_reply(reply.ticket, reply.result, gateway),
            Session::H1(session) => session.handle_reply(reply.ticket, reply.result, gateway),
            Session::Unknown => {}
        }
    }

    /// Answers a call whose deadline has passed; the caller wakes the sender.
    pub(crate) fn handle_deadline(&self, ticket: Ticket, gateway: &mut Dispatcher) {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.handle_deadline(ticket, gateway),
            Session::H1(session) => session.handle_deadline(ticket, gateway),
            Session::Unknown => {}
        }
    }

    /// There is output that the reader does not know of.
    pub(crate) fn wake_sender(&self) {
        self.output_waits.notify();
    }

    /// Takes no new calls; closes when the open ones are answered.
    pub(crate) fn drain(&self, gateway: &mut Dispatcher) {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.drain(gateway),
            Session::H1(session) => session.drain(gateway),
            Session::Unknown => self.closed.set(),
        }
    }

    /// Once a second: closes what is stuck, gives back budget to the defences of the protocol.
    pub(crate) fn tick(&self, now: Instant, limits: &ServeLimits) {
        let idle = now.duration_since(self.last_active.get());
        let stalled = self
            .send_began
            .get()
            .is_some_and(|began| now.duration_since(began) > SEND_STALL_MAX);
        let mut has_output = false;
        let (late, unused) = match &mut *self.session.borrow_mut() {
            Session::Unknown => (now.duration_since(self.opened) > limits.handshake_timeout, false),
            Session::H1(session) => {
                session.tick();
                has_output = session.has_output();
                (
                    session.is_incomplete() && idle > limits.handshake_timeout,
                    session.is_idle(),
                )
            }
            Session::H2(session) => {
                session.tick();
                has_output = !session.h2().output().is_empty();
                (false, session.h2().open_streams() == 0)
            }
        };
        if has_output {
            self.wake_sender();
        }
        let idle_too_long = unused && !limits.idle_timeout.is_zero() && idle > limits.idle_timeout;
        if stalled || late || idle_too_long {
            tracing::debug!(peer = %self.peer, stalled, late, idle_too_long, "closing a connection");
            self.closed.set();
        }
    }

    /// Whether a send is in flight, here or in the other task.
    fn is_sending(&self) -> bool {
        self.sender.borrow().is_none()
    }

    fn wants_read(&self) -> bool {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.h2().wants_read(),
            Session::H1(session) => session.wants_read(),
            Session::Unknown => true,
        }
    }

    fn is_drained(&self) -> bool {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.h2().is_drained(),
            Session::H1(session) => session.is_drained(),
            Session::Unknown => false,
        }
    }

    fn pooled(&self) -> Vec<u8> {
        self.shard.buffers.borrow_mut().pop().unwrap_or_default()
    }

    fn recycle(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.shard.buffers.borrow_mut();
        let useful = buffer.capacity() > RECEIVE_BYTES_MIN && buffer.capacity() <= POOLED_BYTES_MAX;
        if useful && buffers.len() < POOLED_BUFFERS_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

impl Session {
    /// Tells HTTP/2 from HTTP/1.1 by the first bytes. `None`: more are needed.
    fn recognise(bytes: &[u8], connection: &Connection, gateway: &Dispatcher) -> Option<Self> {
        let known = bytes.len().min(PREFACE.len());
        if bytes[..known] != PREFACE[..known] {
            let session = H1Session::new(connection.address, gateway.limits().message_bytes_max);
            return Some(Self::H1(Box::new(session)));
        }
        if known < PREFACE.len() {
            return None;
        }
        let limits = gateway.limits();
        let mut config = Config::server();
        config.output_max = limits.output_bytes_max;
        let session = H2Session::new(config, connection.address, BODIES_MAX * limits.message_bytes_max);
        Some(Self::H2(Box::new(session)))
    }

    fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::H2(session) => session.h2().take_output(Vec::new()),
            Self::H1(session) => session.take_output(),
            Self::Unknown => Vec::new(),
        }
    }

    fn close(&mut self, gateway: &mut Dispatcher) {
        match self {
            Self::H2(session) => session.close(gateway),
            Self::H1(session) => session.close(gateway),
            Self::Unknown => {}
        }
    }
}

/// A flag that is set once and ends the waits of all tasks of a connection.
#[derive(Default)]
struct Closed {
    set: Cell<bool>,
    waiters: [RefCell<Option<Waker>>; 3],
}

impl Closed {
    fn set(&self) {
        self.set.set(true);
        for waiter in &self.waiters {
            if let Some(waker) = waiter.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Runs `future` to its end, or drops it as soon as the flag is set. `place` names the waiting task: two waits at the
    /// same time must not share it.
    async fn unless<T>(&self, place: usize, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.set.get() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let mut waiter = self.waiters[place].borrow_mut();
            if !waiter
                .as_ref()
                .is_some_and(|known| known.will_wake(context.waker()))
            {
                *waiter = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Not used beyond diagnostics, but a connection that cannot be named cannot be debugged.
impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
