//! KeyValue in the file: one writer that applies mutations, readers beside it, and what gives room
//! back.

mod marks;
mod overlay;
pub(in crate::sqlite) mod reader;
mod swap_table;
mod sweep;
pub(in crate::sqlite) mod writer;
