//! Namespaces: the file in which a service declares what it needs, and what follows from it.
//!
//! ```text
//! YAML text --yaml--> nodes --file--> NamespaceConfig (checked) --control--> catalog --> shards
//!                                \--> Problems (all of them)
//! ```
//!
//! Promises: a [`NamespaceConfig`] exists only if its file was legal. Leaves to others: the catalog
//! and the admin calls (`control`), and the stores' own tables.

pub(crate) mod access;
mod combinations;
pub mod file;
pub mod grant;
pub mod keys;
mod limits;
pub mod model;
pub mod problem;
pub(crate) mod rates;
pub mod schema;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod terms;
pub mod units;
mod values;
pub mod yaml;

pub use model::{ClientApi, Durability, NamespaceConfig};
pub use problem::Problem;
