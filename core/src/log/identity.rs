//! Identity of a log: 128 random bits, made with its directory and kept in it as `log.id`.
//!
//! Stores note their position in a log under its identity, since several gateways may share a
//! store; it also separates the stamps of gateways.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use prism_backends::LogId;

use super::keeper::fill_random;

const FILE_NAME: &str = "log.id";

/// The identity in a log's directory; `None` if there is none yet.
///
/// # Errors
/// If the file cannot be read, or holds something else.
pub(super) fn read(directory: &Path) -> io::Result<Option<LogId>> {
    let text = match fs::read_to_string(directory.join(FILE_NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let number = u128::from_str_radix(text.trim(), 16).ok();
    match number.filter(|number| *number != 0) {
        Some(number) => Ok(Some(LogId(number))),
        None => Err(io::Error::other(format!(
            "{FILE_NAME} does not hold a log's identity, 32 hexadecimal digits: bring the right file back"
        ))),
    }
}

/// Draws a new identity.
///
/// # Errors
/// When the kernel has no randomness, which it always has once the machine is up.
pub(super) fn draw() -> io::Result<LogId> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    // In stores 0 stands for logs of programs without identities.
    Ok(LogId(u128::from_be_bytes(bytes).max(1)))
}

/// Stores an identity in a log's directory, durably: the whole file or none.
///
/// # Errors
/// If the directory cannot be written to.
pub(super) fn keep(directory: &Path, LogId(number): LogId) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let new = directory.join("log.id.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{number:032x}")?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}

/// Number of a gateway in its stamps, from the identity of its log; never 0.
pub(crate) fn gateway_number(LogId(number): LogId) -> u32 {
    // The identity is random already; folding uses all of its bits.
    let folded = (number ^ (number >> 64)) as u64;
    ((folded ^ (folded >> 32)) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_whole_and_nothing_else_is_taken_for_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("wal");
        assert_eq!(read(&log).expect("no file"), None);
        let id = draw().expect("randomness");
        assert_ne!(id, draw().expect("randomness"));
        keep(&log, id).expect("a file");
        assert_eq!(read(&log).expect("a file"), Some(id));
        for wrong in ["", "0", "no number", "00000000000000000000000000000000\n"] {
            fs::write(log.join(FILE_NAME), wrong).expect("a file");
            let error = read(&log).expect_err("no identity");
            assert!(error.to_string().contains(FILE_NAME), "{error}");
        }
    }

    #[test]
    fn every_bit_of_an_identity_counts_for_the_gateways_number() {
        let id = LogId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
        for bit in 0..128 {
            let other = LogId(id.0 ^ (1 << bit));
            assert_ne!(gateway_number(id), gateway_number(other), "bit {bit}");
        }
        assert_eq!(
            gateway_number(id),
            PINNED,
            "stamps that were given stay what they are"
        );
        assert_ne!(gateway_number(LogId(0)), 0);
    }

    const PINNED: u32 = 0xcccc_cccc;
}
