//! Messages between a thread of the load and the one that waits for it: plan, pace and phases,
//! counts.

use std::{net::SocketAddr, time::Duration};

use prism_codec::method::KeyValueMethod;

use crate::{schedule::Schedule, socket::Tls, tally::Tally};

/// How a thread decides that the next request leaves.
#[derive(Clone, Debug)]
pub enum Pace {
    /// At its due time, whatever the server does.
    Open(Schedule),
    /// As soon as a stream is free.
    Closed,
}

/// When a thread stops, in nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Calls due before this moment do not count.
    pub measure_ns: u64,
    /// Calls that would be due from this moment on are not sent any more.
    pub end_ns: u64,
    /// How long after the end answers are waited for.
    pub drain_ns: u64,
    /// Stop after this many calls of this thread.
    pub calls_max: u64,
}

/// Instructions for a thread.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which thread this is, from 0.
    pub thread: usize,
    /// Where the server listens.
    pub address: SocketAddr,
    /// The `:authority` of requests.
    pub authority: String,
    /// Settings of TLS, if the target speaks it.
    pub tls: Option<Tls>,
    /// Further header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Connections of this thread.
    pub connections: usize,
    /// Streams of each connection.
    pub streams: usize,
    /// How long a call may take from when it is sent; `None`: for ever.
    pub deadline: Option<Duration>,
    /// The core to run on.
    pub core: Option<usize>,
}

impl Plan {
    /// The `:scheme` of requests.
    pub fn scheme(&self) -> &'static [u8] {
        match self.tls {
            None => b"http",
            Some(_) => b"https",
        }
    }
}

/// Counts of one thread in one interval.
#[derive(Debug)]
pub struct Interval {
    /// The thread.
    pub thread: usize,
    /// Whether the thread has nothing more to report of this second.
    pub complete: bool,
    /// The second of the run in which it was counted, from 0.
    pub second: u64,
    /// Whether it belongs to the measured time.
    pub measured: bool,
    /// The counts.
    pub tally: Tally,
}

/// Messages from a thread to the one that waits for it.
#[derive(Debug)]
pub enum Message {
    /// All connections are open, or why not.
    Ready(Result<(), String>),
    /// Another interval is over.
    Interval(Box<Interval>),
    /// The thread is through; an error if it gave up.
    Done {
        /// The thread.
        thread: usize,
        /// Why it gave up, if it did.
        result: Result<(), String>,
    },
}

/// The header fields of each method. The plan and the path live as long as the worker.
pub(crate) fn templates<'p>(plan: &'p Plan, timeout: &'p str) -> Vec<Vec<(&'p [u8], &'p [u8])>> {
    let template = |method: KeyValueMethod| {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", plan.scheme()),
            (b":path", method.spec().path.as_bytes()),
            (b":authority", plan.authority.as_bytes()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (
                b"user-agent",
                concat!("prism-loadgen/", env!("CARGO_PKG_VERSION")).as_bytes(),
            ),
        ];
        if !timeout.is_empty() {
            fields.push((b"grpc-timeout", timeout.as_bytes()));
        }
        fields.extend(
            plan.headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        fields
    };
    KeyValueMethod::ALL.iter().copied().map(template).collect()
}

/// A `grpc-timeout` value: at most eight digits and a unit ("gRPC over HTTP2", Timeout).
pub fn grpc_timeout(deadline: Duration) -> String {
    let units: [(u128, &str); 4] = [(1, "n"), (1_000, "u"), (1_000_000, "m"), (1_000_000_000, "S")];
    let ns = deadline.as_nanos();
    let fits = units.into_iter().find(|(scale, _)| ns / scale < 100_000_000);
    let (scale, unit) = fits.unwrap_or((1_000_000_000, "S"));
    format!("{}{unit}", (ns / scale).min(99_999_999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_millis(50)), "50000000n");
        assert_eq!(grpc_timeout(Duration::from_millis(250)), "250000u");
        assert_eq!(grpc_timeout(Duration::from_secs(60)), "60000000u");
        assert_eq!(grpc_timeout(Duration::from_secs(100)), "100000m");
        assert_eq!(grpc_timeout(Duration::from_secs(1 << 40)), "99999999S");
    }
}
