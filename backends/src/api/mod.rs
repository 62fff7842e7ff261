//! The APIs: for each the traits of its stores, by halves, and the closed enum of the stores that
//! serve it.

pub mod keyvalue;
pub mod pubsub;
pub mod queue;
