//! One TCP connection on its shard: moves bytes between the kernel and the session, without
//! interpreting them.
//!
//! Two tasks: the *reader* receives, lets the session process all received bytes, and sends the
//! replies; the *sender* waits for later replies (from a store, another shard) and sends those. At
//! most one send is in flight: a task that finds one leaves its bytes in the session's output, and
//! the sending task picks them up before it stops.
//!
//! An idle connection holds a small receive buffer and no output buffer; busy ones borrow large
//! buffers from the shard.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use prism_backends::NamespaceId;

use super::{
    Shard,
    ending::Ending,
    foreign,
    lifetime::{Cause, Lifetime, Step, View},
    session::Session,
    tls::{Opened, Tls},
};
use crate::{
    call::{
        job::Reply,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::Dispatcher,
    identity::{self, CallerId},
    runtime::{
        notify::Notify,
        reactor::{self, Descriptor, Receiver, Sender},
    },
};

/// Size of the receive buffer of an idle connection. Must hold everything that the HTTP/2 machine
/// needs in one piece.
const RECEIVE_BYTES_MIN: usize = 4 << 10;
/// Size of the receive buffer of a busy connection.
const RECEIVE_BYTES_MAX: usize = 64 << 10;
/// A send buffer above this size goes back to the allocator, not to the pool.
const POOLED_BYTES_MAX: usize = 256 << 10;
/// Buffers that one shard keeps for later use.
const POOLED_BUFFERS_MAX: usize = 64;
/// Time for which a client may go on sending after its last answer: in all, without a pause, and
/// while the gateway drains.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);
const LINGER_DRAINING: Duration = Duration::from_secs(1);
/// Bytes that it may send in that time.
const LINGER_BYTES: usize = 1 << 30;
/// A connection.
pub(crate) struct Connection {
    shard: Rc<Shard>,
    address: Ticket,
    peer: SocketAddr,
    /// The socket, open as long as the connection is in the shard's table.
    descriptor: Descriptor,
    session: RefCell<Session>,
    /// Encryption, on a port that has it.
    tls: Option<Box<RefCell<Tls>>>,
    /// Who is at the other end, and when its proof ends.
    caller: Cell<CallerId>,
    until: Cell<Option<SystemTime>>,
    /// The sending half, while no task sends.
    sender: RefCell<Option<Sender>>,
    /// Raised when the session has output unknown to its reader.
    output_waits: Notify,
    /// Raised when output has been sent.
    output_left: Notify,
    ending: Ending,
    lifetime: RefCell<Lifetime>,
}

/// Step after the session has processed a receive.
enum Next {
    Receive,
    /// Send the pending output, then close.
    Close,
}

impl Connection {
    /// Registers a connection and starts its tasks, unless the shard has reached its maximum.
    pub(crate) fn start(shard: &Rc<Shard>, receiver: Receiver, sender: Sender, peer: SocketAddr) {
        let descriptor = sender.descriptor();
        let mut sender = Some(sender);
        let settings = shard.tls.borrow().clone();
        let mut tls = match settings.map(Tls::new).transpose() {
            Ok(tls) => tls.map(|tls| Box::new(RefCell::new(tls))),
            Err(error) => {
                tracing::error!(%error, "cannot begin TLS; closing a connection");
                return;
            }
        };
        let connection = shard
            .connections
            .borrow_mut()
            .insert(peer.ip(), |slot, generation| {
                let call = CallId::Request(0);
                Rc::new(Self {
                    shard: shard.clone(),
                    address: Ticket {
                        shard: shard.number,
                        slot,
                        generation,
                        call,
                        namespace: NamespaceId(0),
                        caller: CallerId::NOBODY,
                    },
                    peer,
                    descriptor,
                    session: RefCell::new(Session::Unknown),
                    tls: tls.take(),
                    caller: Cell::new(CallerId::NOBODY),
                    until: Cell::new(None),
                    sender: RefCell::new(sender.take()),
                    output_waits: Notify::default(),
                    output_left: Notify::default(),
                    ending: Ending::default(),
                    lifetime: RefCell::new(Lifetime::new(u32::from(peer.port()))),
                })
            });
        let gateway = shard.gateway.borrow();
        let metrics = gateway.metrics();
        match connection {
            Ok(connection) => {
                metrics.connections_accepted.add(1);
                metrics
                    .connections_open
                    .set(shard.connections.borrow().len() as u64);
                reactor::spawn(connection.clone().send_later());
                reactor::spawn(connection.read(receiver));
            }
            // Dropping both halves closes it: the client sees the refusal at once.
            Err(refusal) => {
                tracing::debug!(%peer, ?refusal, "refusing a connection");
                metrics.connections_refused.add(1);
            }
        }
    }

    pub(crate) fn address(&self) -> &Ticket {
        &self.address
    }

    /// The client whose places it takes.
    pub(crate) fn client(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The reader task: until the peer closes, breaks the protocol, or the shard ends the
    /// connection.
    async fn read(self: Rc<Self>, mut receiver: Receiver) {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES_MIN);
        let mut is_over = false;
        // Whether the session has left requests in the buffer until there is room for the answers.
        let mut is_held = false;
        loop {
            if !self.wants_read() {
                // The client does not read its replies, so its requests are not read.
                let Some(()) = self.ending.while_open(self.output_left.notified()).await else {
                    return self.end(Some(receiver)).await;
                };
            } else if !is_held {
                let filled = buffer.len();
                let Some((result, filled_buffer)) =
                    self.ending.while_open(receiver.recv(buffer, filled)).await
                else {
                    return self.end(Some(receiver)).await;
                };
                buffer = filled_buffer;
                match result {
                    Ok(0) | Err(_) => {
                        self.recycle(buffer);
                        return self.end(None).await;
                    }
                    Ok(_) => {}
                }
                if let Some(tls) = &self.tls {
                    match self.open(tls, &mut buffer, filled) {
                        Some(opened) => is_over = opened == Opened::Closed,
                        None => {
                            self.flush().await;
                            break;
                        }
                    }
                }
            }
            let received = buffer.len();
            let next = self.process(&mut buffer);
            // The flush may make the room that the session lacks now, and no byte may follow.
            is_held = !buffer.is_empty() && !self.wants_read();
            self.flush().await;
            if is_over {
                self.recycle(buffer);
                return self.end(None).await;
            }
            // The bytes that this task has just sent for the other one may complete the drain.
            if matches!(next, Next::Close) || (self.is_drained() && !self.is_sending()) {
                break;
            }
            buffer = self.fit(buffer, received);
        }
        self.recycle(buffer);
        self.end(Some(receiver)).await;
    }

    /// Decrypts the bytes of the buffer after its first `filled`. `None`: the connection is to end
    /// after the output.
    fn open(&self, tls: &RefCell<Tls>, buffer: &mut Vec<u8>, filled: usize) -> Option<Opened> {
        let mut tls = tls.borrow_mut();
        let foreign = match tls.has_begun() {
            true => None,
            false => foreign::protocol_without_tls(buffer),
        };
        if let Some(protocol) = foreign {
            foreign::mention(self.peer, protocol, true);
            tls.refuse(foreign::answer_without_tls(buffer));
        } else {
            let mut plain = self.pooled();
            let opened = tls.open(buffer, filled, &mut plain);
            self.recycle(plain);
            match opened {
                Ok(opened) => return Some(opened),
                Err(error) => tracing::debug!(peer = %self.peer, %error, "closing a connection: TLS failed"),
            }
        }
        self.shard.gateway.borrow().metrics().connections_failed.add(1);
        None
    }

    /// The caller whom the client's certificate names.
    fn caller(&self, gateway: &mut Dispatcher) -> CallerId {
        let known = self.caller.get();
        let (Some(tls), Some(rules), CallerId::NOBODY) = (&self.tls, gateway.callers.rules(), known) else {
            return known;
        };
        let tls = tls.borrow();
        // The handshake has refused certificates that name nobody.
        let caller = tls.client_certificate().map(|leaf| identity::read(leaf, rules));
        if let Some(Ok(caller)) = caller {
            self.until.set(Some(caller.until));
            self.caller.set(gateway.callers.enter(caller));
        }
        self.caller.get()
    }

    /// Ends streams and waiting calls whose caller has lost its permission.
    pub(crate) fn check_again(&self, gateway: &mut Dispatcher) {
        if self.caller.get() != CallerId::NOBODY {
            self.session.borrow_mut().check_again(gateway);
            self.wake_sender();
        }
    }

    /// The number of its caller.
    pub(crate) fn caller_id(&self) -> CallerId {
        self.caller.get()
    }

    /// The session's output in encrypted form, after what the handshake has to send.
    fn seal(&self, tls: &RefCell<Tls>) -> Vec<u8> {
        let plain = self.session.borrow_mut().take_output();
        let mut tls = tls.borrow_mut();
        if plain.is_empty() && !tls.wants_write() {
            return plain;
        }
        let mut wire = self.pooled();
        if let Err(error) = tls.seal(&plain, &mut wire) {
            tracing::error!(peer = %self.peer, %error, "closing a connection: cannot encrypt");
            self.ending.close();
        }
        self.recycle(plain);
        wire
    }

    /// Lets the session process the received bytes, and removes the consumed ones from the buffer.
    fn process(&self, buffer: &mut Vec<u8>) -> Next {
        let now = Instant::now();
        let mut gateway = self.shard.gateway.borrow_mut();
        gateway.begin_batch();
        let mut session = self.session.borrow_mut();
        if matches!(*session, Session::Unknown) {
            if let Some(protocol) = foreign::protocol_of(buffer) {
                foreign::mention(self.peer, protocol, self.tls.is_some());
                gateway.metrics().connections_failed.add(1);
                return Next::Close;
            }
            let address = Ticket {
                caller: self.caller(&mut gateway),
                ..self.address
            };
            match Session::recognise(buffer, address, &gateway) {
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
                    tracing::debug!(peer = %self.peer, "closing a connection: it broke HTTP/2 or used up an allowance");
                    gateway.metrics().connections_failed.add(1);
                }
                (used, go_on && !session.h2().is_drained())
            }
            Session::H1(session) => session.handle_recv(buffer, now, &mut gateway),
            Session::Unknown => (0, true),
        };
        gateway.end_batch(now);
        self.shard.poller.note(gateway.outstanding());
        // The rest is the start of a frame, so this moves little.
        buffer.drain(..used);
        let partial = match &mut *session {
            Session::H2(session) => !buffer.is_empty() || session.h2().is_within_frame(),
            // This session measures the time of its requests itself.
            Session::H1(_) | Session::Unknown => false,
        };
        let partial = partial
            || self
                .tls
                .as_ref()
                .is_some_and(|tls| tls.borrow().is_within_record());
        self.lifetime.borrow_mut().received(partial, used > 0);
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

    /// The sender task: sends the output of answers from elsewhere.
    async fn send_later(self: Rc<Self>) {
        while let Some(()) = self.ending.unless_closed(1, self.output_waits.notified()).await {
            self.flush().await;
            // While the reader sends, ending would cut off its bytes; it ends by itself afterwards.
            if self.is_drained() && !self.is_sending() {
                self.ending.end();
            }
        }
    }

    /// Sends until the session's output is empty. Returns at once when the other task is sending:
    /// that one takes the new output.
    async fn flush(&self) {
        let Some(mut sender) = self.sender.borrow_mut().take() else {
            return;
        };
        let mut something_left = false;
        loop {
            self.refill();
            let output = match &self.tls {
                None => self.session.borrow_mut().take_output(),
                Some(tls) => self.seal(tls),
            };
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
            self.lifetime.borrow_mut().sent();
            let sent = sender.send_all(output, |left| self.note_sent(left));
            let sent = self.ending.unless_closed(2, sent).await;
            self.note_sent(0);
            let Some((result, output)) = sent else { break };
            something_left = true;
            self.recycle(output);
            if result.is_err() {
                self.ending.close();
                break;
            }
        }
        *self.sender.borrow_mut() = Some(sender);
        if something_left {
            self.output_left.notify();
        }
    }

    /// Lets a streaming reply of HTTP/1.1 continue, as there is room for it again. HTTP/2 has
    /// windows for that.
    fn refill(&self) {
        if let Session::H1(session) = &mut *self.session.borrow_mut() {
            session.pump(&mut self.shard.gateway.borrow_mut());
        }
    }

    /// Notes that the kernel has taken all but `left` bytes of the output, and lets work continue
    /// that waited for that.
    fn note_sent(&self, left: usize) {
        self.lifetime.borrow_mut().sent();
        let mut session = self.session.borrow_mut();
        match &mut *session {
            Session::H2(session) => {
                session.h2().set_sending(left);
                if session.holds_any() {
                    let mut gateway = self.shard.gateway.borrow_mut();
                    session.resume(Instant::now(), &mut gateway);
                    self.shard.poller.note(gateway.outstanding());
                }
                if !session.h2().wants_read() {
                    return;
                }
            }
            Session::H1(session) => session.set_sending(left),
            Session::Unknown => {}
        }
        self.output_left.notify();
    }

    /// The end of the reader: forgets all calls, sends the last output, closes. With a `receiver`
    /// it is this side that ends the connection.
    async fn end(self: Rc<Self>, receiver: Option<Receiver>) {
        self.session
            .borrow_mut()
            .close(&mut self.shard.gateway.borrow_mut());
        self.flush().await;
        // The other task may be sending the last output; closing now would cut it off.
        while self.is_sending() {
            let left = self.output_left.notified();
            if self.ending.unless_closed(0, left).await.is_none() {
                break;
            }
        }
        let sender = self.sender.borrow_mut().take();
        if let Some(mut sender) = sender {
            if let Some(tls) = &self.tls {
                let goodbye = tls.borrow_mut().close();
                let sent = sender.send_all(goodbye, |_| {});
                self.ending.unless_closed(0, sent).await;
            }
            sender.shutdown().await;
            if let Some(receiver) = receiver {
                self.ending.end();
                self.ending.unless_closed(0, self.linger(receiver)).await;
            }
        }
        self.ending.close();
        self.shard.forget(&self);
    }

    /// Disconnects the peer without a turn of the tasks: the shard's thread has ended.
    pub(crate) fn abandon(&self) {
        self.descriptor.shutdown();
    }

    /// Receives and drops the client's remaining bytes, until it closes as well. Closing a socket
    /// while data arrives makes the kernel send RST, and the last answer would be lost on its way
    /// to a client that is still sending (RFC 9112 section 9.6).
    async fn linger(&self, mut receiver: Receiver) {
        let end = Instant::now()
            + if self.shard.draining.get() {
                LINGER_DRAINING
            } else {
                LINGER
            };
        let mut buffer = self.pooled();
        buffer.reserve(RECEIVE_BYTES_MAX);
        let mut left = LINGER_BYTES;
        loop {
            let until = end.min(Instant::now() + LINGER_SILENCE);
            let received = reactor::value_before(until, receiver.recv(std::mem::take(&mut buffer), 0)).await;
            let Some((Ok(count @ 1..), filled)) = received else {
                break;
            };
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
            buffer = filled;
            buffer.clear();
        }
        self.recycle(buffer);
    }

    /// Passes an answer to its call; the caller wakes the sender.
    pub(crate) fn handle_reply(&self, reply: Reply, gateway: &mut Dispatcher) {
        let mut session = self.session.borrow_mut();
        session.handle_reply(reply.ticket, reply.result, gateway);
    }

    /// Answers a call after its deadline; the caller wakes the sender.
    pub(crate) fn handle_deadline(&self, ticket: Ticket, gateway: &mut Dispatcher) {
        self.session.borrow_mut().handle_deadline(ticket, gateway);
    }

    /// Wakes the sender: there is output unknown to the reader.
    pub(crate) fn wake_sender(&self) {
        self.output_waits.notify();
    }

    /// Stops taking new calls; closes when the open ones are answered.
    pub(crate) fn drain(&self, gateway: &mut Dispatcher) {
        match &mut *self.session.borrow_mut() {
            Session::H2(session) => session.drain(gateway),
            Session::H1(session) => session.drain(gateway),
            Session::Unknown => self.ending.close(),
        }
        if self.ending.has_begun() {
            self.ending.close();
        }
    }

    /// Once a second: advances the session's time, and ends parts that its client does not use.
    pub(crate) fn tick(&self, seconds: u32, now: Instant, limits: &ServeLimits) {
        if self.ending.has_begun() {
            // The rest is to send the last output, or to wait for the client to close; sending may
            // take as long as ever.
            return self.tick_ending(seconds, limits);
        }
        let is_outdated = self.until.get().is_some_and(|until| SystemTime::now() >= until);
        let mut gateway = self.shard.gateway.borrow_mut();
        let mut session = self.session.borrow_mut();
        let view = session.tick(seconds, now, self.is_sending(), &mut gateway);
        let step = match is_outdated {
            true => Step::End(Cause::Outdated),
            false => self.lifetime.borrow_mut().tick(seconds, view, limits),
        };
        match step {
            Step::Stay => {}
            Step::Ping => session.ping(),
            Step::GoAway => session.go_away(&mut gateway),
            Step::End(why) => {
                tracing::debug!(peer = %self.peer, why = why.sentence(), "ending a connection");
                session.end(why);
                self.ending.end();
            }
            Step::Close(why) => {
                tracing::debug!(peer = %self.peer, why = why.sentence(), "closing a connection");
                self.ending.close();
            }
        }
        if session.has_output() || session.is_drained() {
            self.output_waits.notify();
        }
    }

    fn tick_ending(&self, seconds: u32, limits: &ServeLimits) {
        let view = View {
            sending: self.is_sending(),
            ..View::ENDING
        };
        if let Step::Close(_) = self.lifetime.borrow_mut().tick(seconds, view, limits) {
            self.ending.close();
        }
    }

    /// Whether a send is in flight, here or in the other task.
    fn is_sending(&self) -> bool {
        self.sender.borrow().is_none()
    }

    fn wants_read(&self) -> bool {
        self.session.borrow_mut().wants_read()
    }

    fn is_drained(&self) -> bool {
        self.session.borrow_mut().is_drained()
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

/// Used in diagnostics only, but a connection without a name cannot be debugged.
impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
