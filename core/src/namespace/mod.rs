//! Namespaces: the file in which a service declares what it needs, the catalog that remembers it, and the
//! admin calls.
//!
//! ```text
//! YAML text --file--> NamespaceConfig (checked) --service--> catalog --> shards
//!                \--> Problems (all of them)
//! ```
//!
//! Promises: a [`NamespaceConfig`] exists only if its file was legal. Leaves to others: handing
//! configurations to the shards, and the stores' own tables.

pub mod catalog;
mod combinations;
pub mod file;
pub mod model;
pub mod problem;
pub mod service;
pub mod units;

pub use model::{ClientApi, Durability, NamespaceConfig};
pub use problem::Problem;
