//! The log that one writes in an afternoon: a growing file, buffered writes, `fdatasync` for each
//! group.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::Failure;
use super::grouped::{Group, Grouped, Sink};

struct GrowingFile {
    file: File,
    buffer: Vec<u8>,
}

/// Opens the log.
pub(crate) fn open(path: &Path) -> Result<impl super::Log + use<>, Failure> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path.join("log"))?;
    File::open(path)?.sync_all()?;
    let buffer = Vec::new();
    Ok(Grouped::new(GrowingFile { file, buffer }))
}

impl Sink for GrowingFile {
    fn commit(&mut self, group: &Group) -> Result<(), Failure> {
        self.buffer.clear();
        let mut start = 0;
        for end in &group.ends {
            let record = &group.bytes[start..*end];
            self.buffer
                .extend_from_slice(&(record.len() as u32).to_le_bytes());
            self.buffer
                .extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
            self.buffer.extend_from_slice(record);
            start = *end;
        }
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        Ok(())
    }
}
