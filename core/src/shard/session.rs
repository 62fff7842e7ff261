//! The session of a connection: its calls, in the protocol of its first bytes.

use std::time::Instant;

use prism_codec::{
    grpc::Status,
    h2::{Config, ErrorCode},
};

use super::{
    h1_session::H1Session,
    h2_session::H2Session,
    lifetime::{Cause, View},
};
use crate::{
    call::{job::Answer, ticket::Ticket},
    dispatch::Dispatcher,
};

/// The first bytes of every HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most incomplete request bodies of one connection, in messages of the largest size.
const BODIES_MAX: usize = 4;

/// Payload of the PING that probes a client.
const KEEPALIVE: [u8; 8] = *b"prism-ka";

/// The session.
pub(super) enum Session {
    /// Too few bytes to know the protocol.
    Unknown,
    /// HTTP/1.1.
    H1(Box<H1Session>),
    /// HTTP/2.
    H2(Box<H2Session>),
}

impl Session {
    /// Distinguishes HTTP/2 and HTTP/1.1 by the first bytes. `None`: more are needed.
    pub(super) fn recognise(bytes: &[u8], address: Ticket, gateway: &Dispatcher) -> Option<Self> {
        let limits = gateway.limits();
        let known = bytes.len().min(PREFACE.len());
        if bytes[..known] != PREFACE[..known] {
            let session = H1Session::new(address, limits.message_bytes_max, limits.output_bytes_max);
            return Some(Self::H1(Box::new(session)));
        }
        if known < PREFACE.len() {
            return None;
        }
        let mut config = Config::server();
        config.output_max = limits.output_bytes_max;
        let session = H2Session::new(config, address, BODIES_MAX * limits.message_bytes_max);
        Some(Self::H2(Box::new(session)))
    }

    /// Takes the output, to be sent.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::H2(session) => session.take_output(),
            Self::H1(session) => session.take_output(),
            Self::Unknown => Vec::new(),
        }
    }

    /// Whether there is output to send.
    pub(super) fn has_output(&mut self) -> bool {
        match self {
            Self::H2(session) => !session.h2().output().is_empty(),
            Self::H1(session) => session.has_output(),
            Self::Unknown => false,
        }
    }

    /// Whether to receive more.
    pub(super) fn wants_read(&mut self) -> bool {
        match self {
            Self::H2(session) => session.h2().wants_read(),
            Self::H1(session) => session.wants_read(),
            Self::Unknown => true,
        }
    }

    /// Whether everything is answered and sent, and nothing more will come.
    pub(super) fn is_drained(&mut self) -> bool {
        match self {
            Self::H2(session) => session.h2().is_drained(),
            Self::H1(session) => session.is_drained(),
            Self::Unknown => false,
        }
    }

    /// Passes an answer to its call.
    pub(super) fn handle_reply(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        match self {
            Self::H2(session) => session.handle_reply(ticket, result, gateway),
            Self::H1(session) => session.handle_reply(ticket, result, gateway),
            Self::Unknown => {}
        }
    }

    /// Ends streams and waiting calls whose caller has lost its permission.
    pub(super) fn check_again(&mut self, gateway: &mut Dispatcher) {
        match self {
            Self::H2(session) => session.check_again(gateway),
            Self::H1(session) => session.check_again(gateway),
            Self::Unknown => {}
        }
    }

    /// Answers a call after its deadline.
    pub(super) fn handle_deadline(&mut self, ticket: Ticket, gateway: &mut Dispatcher) {
        match self {
            Self::H2(session) => session.handle_deadline(ticket, gateway),
            Self::H1(session) => session.handle_deadline(ticket, gateway),
            Self::Unknown => {}
        }
    }

    /// Advances the time by some seconds, and answers late requests. Returns the connection's
    /// state.
    pub(super) fn tick(
        &mut self,
        seconds: u32,
        now: Instant,
        sending: bool,
        gateway: &mut Dispatcher,
    ) -> View {
        match self {
            Self::Unknown => View {
                greeted: false,
                calls: 0,
                calls_begun: 0,
                sending,
                answers_pings: false,
            },
            Self::H1(session) => {
                session.tick(seconds, gateway.limits());
                View {
                    greeted: session.calls_begun() > 0,
                    calls: session.open_calls(),
                    calls_begun: session.calls_begun(),
                    sending,
                    answers_pings: false,
                }
            }
            Self::H2(session) => {
                session.tick(seconds, now, gateway);
                let h2 = session.h2();
                View {
                    greeted: h2.is_greeted(),
                    calls: h2.open_streams(),
                    calls_begun: u64::from(h2.last_peer_stream()),
                    sending,
                    answers_pings: true,
                }
            }
        }
    }

    /// Probes the client.
    pub(super) fn ping(&mut self) {
        if let Self::H2(session) = self {
            session.h2().ping(KEEPALIVE);
        }
    }

    /// Asks the client to begin no further call here; the second time without waiting for its
    /// consent.
    pub(super) fn go_away(&mut self, gateway: &mut Dispatcher) {
        match self {
            Self::H2(session) => session.h2().goaway(),
            Self::H1(session) => session.drain(gateway),
            Self::Unknown => {}
        }
    }

    /// Sends the reason for the connection's end, as far as the protocol can express it.
    pub(super) fn end(&mut self, cause: Cause) {
        match self {
            Self::H2(session) => session.h2().abort(match cause {
                Cause::NoGreeting => ErrorCode::SETTINGS_TIMEOUT,
                Cause::Incomplete => ErrorCode::PROTOCOL_ERROR,
                Cause::NotGone | Cause::Silent | Cause::Stalled | Cause::Outdated => ErrorCode::NO_ERROR,
            }),
            Self::H1(session) if matches!(cause, Cause::NoGreeting | Cause::Incomplete) => session.time_out(),
            Self::H1(_) | Self::Unknown => {}
        }
    }

    /// Forgets all calls: the connection is gone.
    pub(super) fn close(&mut self, gateway: &mut Dispatcher) {
        match self {
            Self::H2(session) => session.close(gateway),
            Self::H1(session) => session.close(gateway),
            Self::Unknown => {}
        }
    }
}
