//! The rows: for each API the traits of its stores, in halves, and the closed enum of the stores that serve it.

pub mod keyvalue;
pub mod pubsub;
pub mod queue;
