//! Borrowed views and encoders of the data-plane messages: no copy, no allocation, one pass to
//! validate.
//!
//! A view's `decode` walks the bytes once, checks everything (wire types, UTF-8, nesting, then the
//! limits of [`crate::limits`]) and keeps slices. Repeated fields stay on the wire: [`Repeated`]
//! remembers where they lie and its iterator reads them again, which cannot fail any more. The
//! semantics are those of proto3 as `prost` has them: the last scalar wins, split sub-messages
//! merge, the last member of a oneof wins, unknown fields are skipped, enums are open.
//!
//! Requests are checked against the limits; responses, which only our own clients read, are not.
//! Leaves to the caller: limits of a namespace, permissions, and meaning.

pub mod common;
pub mod keyvalue;
pub mod pubsub;
pub mod queue;
pub mod receipt;

mod repeated;

pub use repeated::{Element, Iter, Repeated};
