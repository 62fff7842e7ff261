//! KeyValue in the file: one writer that applies mutations, readers next to it, and the parts that
//! free room.

mod change;
mod marks;
mod moment;
mod namespaces;
mod overlay;
pub(in crate::sqlite) mod reader;
pub(in crate::sqlite) mod relocation;
pub(in crate::sqlite) mod removals;
mod steps;
mod swap_table;
mod swaps;
mod sweep;
mod values;
pub(in crate::sqlite) mod writer;
