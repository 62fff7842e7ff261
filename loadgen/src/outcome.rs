//! How a request ended: a gRPC code, or one of the ends that no server announces.

use std::fmt;

use prism_codec::grpc::Code;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome(u8);

/// The ends that no server announces, after those of gRPC.
const OWN_NAMES: [&str; 4] = ["LOST", "UNSERVED", "WRONG", "CUT"];

impl Outcome {
    /// How many outcomes there are.
    pub const COUNT: usize = Code::ALL.len() + OWN_NAMES.len();
    /// Answered as asked.
    pub const OK: Self = Self(0);
    /// gRPC UNKNOWN.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline passed: the server answered so, or not in time.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// gRPC INTERNAL.
    pub const INTERNAL: Self = Self(13);
    /// gRPC UNAVAILABLE: not processed, may be sent again.
    pub const UNAVAILABLE: Self = Self(14);
    /// The connection broke before the answer; a write may or may not have happened.
    pub const LOST: Self = Self(17);
    /// Due in the measured time, but not answered by the end of the run.
    pub const UNSERVED: Self = Self(18);
    /// Answered, but not with what was asked for.
    pub const WRONG: Self = Self(19);
    /// Cancelled or disconnected by this program on purpose.
    pub const CUT: Self = Self(20);

    /// The outcome of a gRPC status code; codes that gRPC does not define are UNKNOWN.
    pub fn from_code(code: u32) -> Self {
        if code <= 16 {
            Self(code as u8)
        } else {
            Self::UNKNOWN
        }
    }

    /// Maps the error code of a stream that the peer reset, as gRPC over HTTP/2 does ("HTTP2
    /// Transport Mapping").
    pub fn from_reset(http2_code: u32) -> Self {
        match http2_code {
            0x7 => Self::UNAVAILABLE,  // REFUSED_STREAM: not processed
            0x8 => Self::from_code(1), // CANCEL
            0xb => Self::from_code(8), // ENHANCE_YOUR_CALM
            0xc => Self::from_code(7), // INADEQUATE_SECURITY
            _ => Self::INTERNAL,
        }
    }

    /// The outcome of an HTTP status other than 200 when there is no grpc-status ("HTTP to gRPC
    /// Status Code Mapping").
    pub fn from_http_status(status: u16) -> Self {
        Self::from_code(match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        })
    }

    /// The outcome with the given name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|outcome| outcome.name() == name)
    }

    /// The name: that of the gRPC code, or LOST, UNSERVED, WRONG or CUT.
    pub fn name(self) -> &'static str {
        match usize::from(self.0).checked_sub(Code::ALL.len()) {
            Some(own) => OWN_NAMES[own],
            None => Code::ALL[usize::from(self.0)].name(),
        }
    }

    /// The number, below `COUNT`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// All outcomes by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Whether it counts as an error. What this program cut on purpose does not.
    pub fn is_error(self) -> bool {
        self != Self::OK && self != Self::CUT
    }

    /// Whether nobody knows if the call took effect; the same call again, with its token, finds
    /// out.
    pub fn is_unknown(self) -> bool {
        let names = ["CANCELLED", "UNKNOWN", "ABORTED", "INTERNAL"];
        matches!(
            self,
            Self::CUT | Self::LOST | Self::DEADLINE_EXCEEDED | Self::UNAVAILABLE
        ) || names.contains(&self.name())
    }

    /// Whether its duration belongs into the latency: answers, and as lower bounds what took too
    /// long to be answered. Quick refusals do not, they would flatter it.
    pub fn counts_in_latency(self) -> bool {
        matches!(
            self,
            Self::OK | Self::DEADLINE_EXCEEDED | Self::LOST | Self::UNSERVED
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for outcome in Outcome::all() {
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
        }
        assert_eq!(Outcome::from_code(8).name(), "RESOURCE_EXHAUSTED");
        assert_eq!(Outcome::from_code(99), Outcome::UNKNOWN);
        assert_eq!((Outcome::LOST.name(), Outcome::CUT.name()), ("LOST", "CUT"));
        assert_eq!(
            (Outcome::WRONG.name(), Outcome::UNSERVED.name()),
            ("WRONG", "UNSERVED")
        );
        assert_eq!(Outcome::from_name("FINE"), None);
    }

    #[test]
    fn what_we_cut_is_no_error() {
        let errors = Outcome::all().filter(|outcome| outcome.is_error()).count();
        assert_eq!(errors, Outcome::COUNT - 2);
    }

    #[test]
    fn refused_streams_are_unavailable() {
        assert_eq!(Outcome::from_reset(7), Outcome::UNAVAILABLE);
        assert_eq!(Outcome::from_reset(8).name(), "CANCELLED");
        assert_eq!(Outcome::from_reset(2), Outcome::INTERNAL);
        assert_eq!(Outcome::from_http_status(404).name(), "UNIMPLEMENTED");
    }
}
