//! Fuzz targets: one function each, which asserts what must hold for any bytes.
//!
//! Shared by the libFuzzer binaries in `fuzz_targets/` and by the stable runner
//! `codec/tests/fuzz_brief.rs`. A target returns normally for every input; a broken promise is a
//! panic.

#[path = "targets/h2.rs"]
mod h2;
#[path = "targets/hpack.rs"]
mod hpack;
#[path = "targets/messages.rs"]
mod messages;
#[path = "targets/text.rs"]
mod text;

pub use h2::{h2_client, h2_server};
pub use hpack::hpack;
pub use messages::{grpc, views};
pub use text::{connect_json, http1};

/// A target: takes any bytes, panics where a promise is broken.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const ALL: [(&str, Target); 7] = [
    ("h2_server", h2_server),
    ("h2_client", h2_client),
    ("hpack", hpack),
    ("grpc", grpc),
    ("http1", http1),
    ("connect_json", connect_json),
    ("views", views),
];

/// Cuts `bytes` into pieces whose lengths follow from `seed`. Joined, the pieces are `bytes` again.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, u32::from(seed) | 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly short pieces, now and then a long one.
        let longest = if state >> 30 == 0 {
            4_000
        } else {
            1 + usize::from(seed)
        };
        let (piece, after) = rest.split_at(rest.len().min(1 + (state >> 8) as usize % longest));
        rest = after;
        Some(piece)
    })
}
