//! A load generator for gRPC gateways: open and closed loop, HdrHistogram latencies, checked
//! answers, SLO verdicts.
//!
//! Pure modules decide what to send, when it is due, whether an answer is right and how a run is
//! judged; thin drivers move the bytes. Latency in an open loop runs from the time at which a
//! request was *due*, never from when it left, so a server that stalls is charged for everybody who
//! would have waited.
//!
//! ```text
//!   options -> app -> run -> worker (a thread each) -> connection -> codec::h2        drivers
//!              |       |       |          |
//!           report   tally  schedule   workload -> keys, mix, values, checker, journal  pure
//!          slo, sweep
//!          pubsub, queue: loads of their own, a thread with a connection for each publisher,
//!                         subscriber, sender and worker, over books that are pure
//! ```

pub mod app;
pub mod blocking;
pub mod call;
pub mod checker;
pub mod connection;
pub mod journal;
pub mod keys;
pub mod messages;
pub mod mix;
pub mod options;
pub mod outcome;
pub mod plan;
pub mod pubsub;
pub mod queue;
pub mod random;
pub mod report;
pub mod run;
pub mod schedule;
pub mod setup;
pub mod side;
pub mod slo;
pub mod socket;
pub mod sweep;
pub mod tally;
pub mod units;
pub mod values;
pub mod worker;
pub mod workload;
