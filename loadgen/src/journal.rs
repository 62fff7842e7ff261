//! The journal of acknowledged writes, for tests that kill the server and then ask what survived.
//!
//! One line per finished write: `SEQUENCE KEY OPERATION STATUS LANE LSN`, space-separated, for
//! example `1763778000000000017 42 put OK 0 0`. The sequence is the write's generation time in
//! nanoseconds and the first half of its idempotency token; STATUS is the name of the gRPC code, or
//! `LOST` when the connection broke before an answer: such a write may or may not have happened.
//! All lines of one batch of answers are handed to the kernel before the next request of that
//! thread goes out, so the journal survives a crash of the load generator's process.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{mix::Operation, outcome::Outcome};

/// One finished write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Generation time of the write in nanoseconds; names the write and orders it among those of
    /// its key.
    pub sequence: u64,
    /// Number of the key that was written.
    pub key: u64,
    /// The kind of write.
    pub operation: Operation,
    /// The server's answer.
    pub outcome: Outcome,
    /// The log lane of the acknowledgement; 0 if none.
    pub lane: u32,
    /// The record's number in that lane; 0 if none.
    pub lsn: u64,
}

/// A thread's handle to the journal: collects a batch, then writes it in one call.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Arc<Mutex<File>>,
    batch: Vec<u8>,
}

impl Journal {
    /// Creates the file, or appends to one that exists, so that a series of runs can share a
    /// journal.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            batch: Vec::new(),
        })
    }

    /// Adds an entry to the batch.
    pub fn add(&mut self, entry: Entry) {
        let Entry {
            sequence,
            key,
            operation,
            outcome,
            lane,
            lsn,
        } = entry;
        // Writing into a Vec can not fail.
        let _ = writeln!(
            self.batch,
            "{sequence} {key} {} {} {lane} {lsn}",
            operation.name(),
            outcome.name()
        );
    }

    /// Hands the batch to the kernel in one write, so that lines of different threads do not mix.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let result = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&self.batch);
        self.batch.clear();
        result
    }
}

/// Reads a journal back. A last line that is cut off is left out, any other unreadable line is an
/// error with its number.
pub fn read(mut input: impl BufRead) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        line.clear();
        number += 1;
        input.read_until(b'\n', &mut line)?;
        // Without its line feed the last number may lack digits, so such a line is not even looked
        // at.
        let Some((b'\n', text)) = line.split_last() else {
            return Ok(entries);
        };
        match std::str::from_utf8(text).ok().and_then(parse) {
            Some(entry) => entries.push(entry),
            None => {
                let message = format!("line {number} of the journal is not readable");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let sequence = words.next()?.parse().ok()?;
    let key = words.next()?.parse().ok()?;
    let operation = words.next()?;
    let operation = Operation::ALL
        .into_iter()
        .find(|known| known.name() == operation)?;
    let outcome = Outcome::from_name(words.next()?)?;
    let lane = words.next()?.parse().ok()?;
    let lsn = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Entry {
        sequence,
        key,
        operation,
        outcome,
        lane,
        lsn,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64) -> Entry {
        Entry {
            sequence,
            key: sequence * 2,
            operation: Operation::Put,
            outcome: Outcome::OK,
            lane: 3,
            lsn: sequence,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).expect("journal");
        let mut second = journal.clone();
        let mut expected: Vec<Entry> = (1..50).map(entry).collect();
        expected[7].outcome = Outcome::LOST;
        expected[9].operation = Operation::Delete;
        expected[9].outcome = Outcome::from_code(14);
        for (index, &entry) in expected.iter().enumerate() {
            let handle = if index % 2 == 0 { &mut journal } else { &mut second };
            handle.add(entry);
            handle.flush().expect("flush");
        }
        let text = std::fs::read(&path).expect("file");
        assert_eq!(read(&text[..]).expect("readable"), expected);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let error = read(&b"1 2 put OK 0 0\n1 2 fly OK 0 0\n"[..]).expect_err("no such operation");
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(read(&b"1 2 put OK 0 0 9\n"[..]).is_err());
        assert!(read(&b"1 2 put\n"[..]).is_err());
        assert_eq!(
            read(&b"1 2 put OK 3 1\n2 4 put OK 3 1"[..]).expect("a cut line is left out"),
            [entry(1)]
        );
        assert!(read(&b""[..]).expect("empty").is_empty());
    }
}
