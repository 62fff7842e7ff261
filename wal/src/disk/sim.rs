//! A disk in memory that keeps *written* and *durable* apart, for simulation.
//!
//! ```text
//!  write ──► volatile ──sync──► durable          what a read sees:   durable + volatile
//!  submit ─► in flight ─complete─► durable       what a kill keeps:  durable + volatile + any sectors in flight
//!                                                what a cut keeps:   durable + any sectors of the other two
//! ```
//!
//! The unit that is kept or lost is a 512-byte sector. Names are kept or lost as a prefix of the
//! changes since the last directory sync, as a journaling file system does. Faults: the k-th
//! operation fails with a chosen error, a completed write that changed nothing or was misdirected,
//! flipped bits, zeroed sectors, unreadable sectors, a full disk.
//!
//! [`SimDisk`] is a handle: clones are the same disk. Deterministic: the caller makes every choice.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::buffer::{BLOCK_BYTES, SECTOR_BYTES};
use crate::group_commit::{WriteAction, WriteResult};
use crate::ids::GroupNumber;

use super::{Completion, Disk, DiskError, DiskErrorKind, GroupWriter};

mod medium;

use medium::{Inode, Piece};

/// Fate of the operation chosen by [`SimDisk::fail_operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error; its bytes may or may not stay.
    Error(DiskErrorKind),
    /// A group write ends early after this many sectors, without an error. Other operations fail
    /// with EIO.
    Short(usize),
    /// A group write is interrupted. Other operations fail with EIO.
    Interrupted,
    /// It reports success and does nothing at all.
    Lost,
    /// A write reports success and lands this many blocks later in the same file.
    Misdirected(u64),
}

/// Losses of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the machine runs on. Only operations in flight are affected.
    Kill,
    /// The machine loses power: everything that was not durable is at stake.
    PowerCut,
}

/// Number of an open file.
pub type SimFile = usize;

/// The simulated disk. See the module.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Name tables after each change since the last directory sync.
    name_history: Vec<BTreeMap<String, usize>>,
    in_flight: VecDeque<InFlight>,
    completed: VecDeque<(GroupNumber, WriteResult)>,
    buffers: Vec<(GroupNumber, WriteActionBuffer)>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    sticky: Option<(u64, Fault)>,
    capacity_bytes: Option<u64>,
    /// The state before every operation, if it is kept.
    history: Option<Vec<State>>,
}

/// A buffer cannot be cloned cheaply and need not be: a cloned disk (a crash image) completes no
/// writes.
#[derive(Debug, Default)]
struct WriteActionBuffer(Option<crate::buffer::AlignedBuffer>);

impl Clone for WriteActionBuffer {
    fn clone(&self) -> Self {
        Self(None)
    }
}

#[derive(Clone, Debug)]
struct InFlight {
    group: GroupNumber,
    inode: usize,
    piece: Piece,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a separate disk with the same state (a crash image to experiment on); it keeps no
    /// history.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut state = self.state();
        let history = state.history.take();
        let copy = state.clone();
        state.history = history;
        Self(Rc::new(RefCell::new(copy)))
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Starts to keep the state of the disk before every operation, for [`SimDisk::take_history`].
    pub fn keep_history(&self) {
        self.state().history = Some(Vec::new());
    }

    /// The states before every operation since the last call, oldest first: the points at which to
    /// try a crash.
    pub fn take_history(&self) -> Vec<Self> {
        let states = self.state().history.as_mut().map(core::mem::take);
        let disk = |state| Self(Rc::new(RefCell::new(state)));
        states.into_iter().flatten().map(disk).collect()
    }

    // --- crashes ---------------------------------------------------------------------------------

    /// Number of sectors at stake in a crash now: [`SimDisk::crash`] asks its `keep` once for each.
    #[must_use]
    pub fn sectors_at_stake(&self, crash: Crash) -> usize {
        let state = self.state();
        let in_flight: usize = state
            .in_flight
            .iter()
            .map(|write| write.piece.bytes.len() / SECTOR_BYTES)
            .sum();
        let volatile: usize = match crash {
            Crash::Kill => 0,
            Crash::PowerCut => {
                let pieces = state.inodes.iter().flat_map(|inode| &inode.volatile);
                pieces.map(|piece| piece.bytes.len() / SECTOR_BYTES).sum()
            }
        };
        in_flight + volatile
    }

    /// Number of name changes at stake in a power cut now.
    #[must_use]
    pub fn names_at_stake(&self) -> usize {
        self.state().name_history.len()
    }

    /// Crashes. `keep` decides for the n-th sector at stake whether it reached the medium,
    /// `names_kept` how many changes of names did. Bytes that were in flight and stayed after a
    /// kill are *written* but not durable.
    pub fn crash(&self, crash: Crash, names_kept: usize, mut keep: impl FnMut(usize) -> bool) {
        let mut state = self.state();
        let mut number = 0;
        let mut kept = |piece: &Piece, keep_sector: &mut dyn FnMut(u64, &[u8])| {
            for (index, sector) in piece.bytes.chunks(SECTOR_BYTES).enumerate() {
                if keep(number) {
                    keep_sector(piece.offset + (index * SECTOR_BYTES) as u64, sector);
                }
                number += 1;
            }
        };
        if crash == Crash::PowerCut {
            for inode in &mut state.inodes {
                let volatile = core::mem::take(&mut inode.volatile);
                for piece in &volatile {
                    kept(piece, &mut |offset, sector| inode.durable.write(offset, sector));
                }
            }
        }
        let in_flight = core::mem::take(&mut state.in_flight);
        for write in &in_flight {
            let inode = &mut state.inodes[write.inode];
            kept(&write.piece, &mut |offset, sector| match crash {
                Crash::PowerCut => inode.durable.write(offset, sector),
                Crash::Kill => inode.write_volatile(Piece {
                    offset,
                    bytes: sector.into(),
                }),
            });
        }
        if crash == Crash::PowerCut {
            let mut history = core::mem::take(&mut state.name_history);
            history.truncate(names_kept);
            if let Some(names) = history.pop() {
                state.durable_names = names;
            }
            state.names = state.durable_names.clone();
            state
                .inodes
                .iter_mut()
                .for_each(|inode| inode.written = inode.durable.clone());
        }
        state.completed.clear();
        state.buffers.clear();
        (state.faults, state.sticky) = (BTreeMap::new(), None);
    }

    // --- faults ----------------------------------------------------------------------------------

    /// Operations so far, of every kind (a group write counts when it completes).
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes the `number`-th operation (from 0) fail, once.
    pub fn fail_operation(&self, number: u64, fault: Fault) {
        self.state().faults.insert(number, fault);
    }

    /// Makes every operation from the `number`-th on fail.
    pub fn fail_from(&self, number: u64, fault: Fault) {
        self.state().sticky = Some((number, fault));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.faults, state.sticky) = (BTreeMap::new(), None);
    }

    /// Limits the bytes of all files together; creating beyond it fails with "no space".
    pub fn limit_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Flips one bit of a file, on the medium and for reads.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        self.change(name, bit / 8, 1, |bytes| bytes[0] ^= 1 << (bit % 8));
    }

    /// Changes bytes of a file without the log's knowledge.
    pub fn change(&self, name: &str, offset: u64, length: usize, change: impl Fn(&mut [u8])) {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else {
            return;
        };
        let inode = &mut state.inodes[inode];
        for image in [&mut inode.durable, &mut inode.written] {
            let mut bytes = vec![0; length];
            image.read(offset, &mut bytes);
            change(&mut bytes);
            image.write(offset, &bytes);
        }
    }

    /// Makes a sector of a file unreadable.
    pub fn make_unreadable(&self, name: &str, sector: u64) {
        let mut state = self.state();
        if let Some(inode) = state.names.get(name).copied() {
            state.inodes[inode].unreadable.insert(sector);
        }
    }

    /// The contents of a file as a read returns them; empty if there is none.
    #[must_use]
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.names.get(name).map_or_else(Vec::new, |inode| {
            let inode = &state.inodes[*inode];
            let mut bytes = vec![0; inode.bytes as usize];
            inode.written.read(0, &mut bytes);
            bytes
        })
    }

    // --- completions -----------------------------------------------------------------------------

    /// Group writes in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Completes the `index`-th group write in flight: durably, unless a fault decides otherwise.
    /// [`GroupWriter::poll_completion`] then returns the completion.
    pub fn complete(&self, index: usize) {
        let mut state = self.state();
        let fault = state.next_fault();
        let Some(write) = state.in_flight.remove(index) else {
            return;
        };
        let length = write.piece.bytes.len();
        let result = match fault {
            None => {
                state.inodes[write.inode].write_durable(&write.piece);
                WriteResult::Durable(length)
            }
            Some(Fault::Error(kind)) => {
                if state.failed_reaches_the_device() {
                    state.inodes[write.inode].write_volatile(write.piece);
                }
                WriteResult::Failed(error_number(kind))
            }
            Some(Fault::Short(sectors)) => {
                let short = (sectors * SECTOR_BYTES).min(length - SECTOR_BYTES);
                let bytes = write.piece.bytes[..short].into();
                state.inodes[write.inode].write_durable(&Piece { bytes, ..write.piece });
                WriteResult::Durable(short)
            }
            Some(Fault::Interrupted) => WriteResult::Interrupted,
            Some(Fault::Lost) => WriteResult::Durable(length),
            Some(Fault::Misdirected(blocks)) => {
                let offset = write.piece.offset + blocks * BLOCK_BYTES as u64;
                state.inodes[write.inode].write_durable(&Piece {
                    offset,
                    ..write.piece
                });
                WriteResult::Durable(length)
            }
        };
        state.completed.push_back((write.group, result));
    }
}

fn error_number(kind: DiskErrorKind) -> i32 {
    match kind {
        DiskErrorKind::NoSpace => 28,
        DiskErrorKind::Io(number) => number,
        DiskErrorKind::NotFound
        | DiskErrorKind::Exists
        | DiskErrorKind::Locked
        | DiskErrorKind::NoDescriptor
        | DiskErrorKind::TooLarge => 5,
    }
}

const EIO: DiskErrorKind = DiskErrorKind::Io(5);

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        if let Some(mut history) = self.history.take() {
            history.push(self.clone());
            self.history = Some(history);
        }
        let number = self.operations;
        self.operations += 1;
        let sticky = self
            .sticky
            .filter(|(from, _)| number >= *from)
            .map(|(_, fault)| fault);
        self.faults.remove(&number).or(sticky)
    }

    /// Counts an operation and fails it if it is the chosen one. `Ok(false)`: it reports success
    /// and does nothing.
    fn operate(&mut self, operation: &'static str, name: &str) -> Result<bool, DiskError> {
        let kind = match self.next_fault() {
            None => return Ok(true),
            Some(Fault::Lost) => return Ok(false),
            Some(Fault::Error(kind)) => kind,
            Some(Fault::Short(_) | Fault::Interrupted | Fault::Misdirected(_)) => EIO,
        };
        Err(DiskError {
            operation,
            name: name.to_owned(),
            kind,
        })
    }

    /// Whether the bytes of a failed operation reached the device all the same: every other time
    /// they do.
    fn failed_reaches_the_device(&self) -> bool {
        self.operations.is_multiple_of(2)
    }

    fn name_of(&self, inode: usize) -> String {
        let found = self.names.iter().find(|(_, number)| **number == inode);
        found.map_or_else(String::new, |(name, _)| name.clone())
    }

    fn change_names(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        change(&mut self.names);
        self.name_history.push(self.names.clone());
    }
}

fn error(operation: &'static str, name: &str, kind: DiskErrorKind) -> DiskError {
    DiskError {
        operation,
        name: name.to_owned(),
        kind,
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let mut state = self.state();
        state.operate("list", "")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str, bytes: u64) -> Result<SimFile, DiskError> {
        let mut state = self.state();
        state.operate("create", name)?;
        if state.names.contains_key(name) {
            return Err(error("create", name, DiskErrorKind::Exists));
        }
        let used: u64 = state.names.values().map(|inode| state.inodes[*inode].bytes).sum();
        if state
            .capacity_bytes
            .is_some_and(|capacity| used + bytes > capacity)
        {
            return Err(error("create", name, DiskErrorKind::NoSpace));
        }
        state.inodes.push(Inode {
            bytes,
            ..Inode::default()
        });
        let inode = state.inodes.len() - 1;
        state.change_names(|names| {
            names.insert(name.to_owned(), inode);
        });
        Ok(inode)
    }

    fn open(&mut self, name: &str) -> Result<SimFile, DiskError> {
        let mut state = self.state();
        state.operate("open", name)?;
        state
            .names
            .get(name)
            .copied()
            .ok_or_else(|| error("open", name, DiskErrorKind::NotFound))
    }

    fn length(&mut self, file: &SimFile) -> Result<u64, DiskError> {
        Ok(self.state().inodes[*file].bytes)
    }

    fn read(&mut self, file: &SimFile, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        let name = state.name_of(*file);
        state.operate("read", &name)?;
        let inode = &state.inodes[*file];
        let end = offset + out.len() as u64;
        let first = offset / SECTOR_BYTES as u64;
        let last = end.div_ceil(SECTOR_BYTES as u64);
        if end > inode.bytes || inode.unreadable.range(first..last).next().is_some() {
            return Err(error("read", &name, EIO));
        }
        inode.written.read(offset, out);
        Ok(())
    }

    fn write(&mut self, file: &SimFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        let name = state.name_of(*file);
        let outcome = state.operate("write", &name);
        // A failed write may have written all the same.
        if outcome == Ok(true) || outcome.is_err() && state.failed_reaches_the_device() {
            state.inodes[*file].write_volatile(Piece {
                offset,
                bytes: bytes.into(),
            });
        }
        outcome.map(|_| ())
    }

    /// Zeros over zeros change nothing that a crash could lose, so only differing bytes are
    /// written.
    fn write_zeros(&mut self, file: &SimFile, offset: u64, bytes: u64) -> Result<(), DiskError> {
        let mut state = self.state();
        let name = state.name_of(*file);
        if !state.operate("write", &name)? {
            return Ok(());
        }
        let pages = offset / BLOCK_BYTES as u64..(offset + bytes) / BLOCK_BYTES as u64;
        let inode = &mut state.inodes[*file];
        inode.replace_sectors(offset, bytes);
        let mut used: Vec<u64> = inode.written.used(pages.clone()).collect();
        used.extend(inode.durable.used(pages));
        used.sort_unstable();
        used.dedup();
        for page in used {
            let bytes: Rc<[u8]> = [0; BLOCK_BYTES].into();
            inode.write_volatile(Piece {
                offset: page * BLOCK_BYTES as u64,
                bytes,
            });
        }
        Ok(())
    }

    fn sync(&mut self, file: &SimFile) -> Result<(), DiskError> {
        let mut state = self.state();
        let name = state.name_of(*file);
        let outcome = state.operate("sync", &name);
        match &outcome {
            Ok(true) => state.inodes[*file].sync(),
            Ok(false) => {}
            Err(_) => {
                let reached = state.failed_reaches_the_device();
                state.inodes[*file].fail_sync(reached);
            }
        }
        outcome.map(|_| ())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        if !state.operate("rename", from)? {
            return Ok(());
        }
        if state.names.contains_key(to) {
            return Err(error("rename", to, DiskErrorKind::Exists));
        }
        let Some(inode) = state.names.get(from).copied() else {
            return Err(error("rename", from, DiskErrorKind::NotFound));
        };
        state.change_names(|names| {
            names.remove(from);
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        if !state.operate("remove", name)? {
            return Ok(());
        }
        if !state.names.contains_key(name) {
            return Err(error("remove", name, DiskErrorKind::NotFound));
        }
        state.change_names(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        let mut state = self.state();
        if state.operate("sync", "")? {
            state.durable_names = state.names.clone();
            state.name_history.clear();
        }
        Ok(())
    }
}

impl GroupWriter for SimDisk {
    type File = SimFile;

    fn submit(&mut self, file: &SimFile, write: WriteAction) {
        let mut state = self.state();
        let piece = Piece {
            offset: write.offset(),
            bytes: write.bytes().into(),
        };
        state.in_flight.push_back(InFlight {
            group: write.group,
            inode: *file,
            piece,
        });
        state
            .buffers
            .push((write.group, WriteActionBuffer(Some(write.buffer))));
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        let mut state = self.state();
        let (group, result) = state.completed.pop_front()?;
        let position = state.buffers.iter().position(|(number, _)| *number == group)?;
        let buffer = state.buffers.swap_remove(position).1.0?;
        Some(Completion {
            group,
            result,
            buffer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(disk: &mut SimDisk, bytes: &[u8]) -> SimFile {
        let file = disk.create("file", 8 * BLOCK_BYTES as u64).unwrap();
        disk.sync_directory().unwrap();
        disk.write(&file, 0, bytes).unwrap();
        file
    }

    #[test]
    fn what_was_not_synced_is_lost_or_kept_by_sector() {
        let mut disk = SimDisk::new();
        file_with(&mut disk, &[7; 2 * SECTOR_BYTES]);
        assert_eq!(disk.sectors_at_stake(Crash::PowerCut), 2);
        assert_eq!(disk.sectors_at_stake(Crash::Kill), 0);
        disk.crash(Crash::PowerCut, 0, |sector| sector == 1);
        let contents = disk.contents("file");
        assert_eq!(contents[..SECTOR_BYTES], [0; SECTOR_BYTES]);
        assert_eq!(contents[SECTOR_BYTES..2 * SECTOR_BYTES], [7; SECTOR_BYTES]);
    }

    #[test]
    fn what_was_synced_stays_and_a_failed_sync_keeps_everything_or_nothing() {
        let mut disk = SimDisk::new();
        let file = file_with(&mut disk, &[7; SECTOR_BYTES]);
        disk.sync(&file).unwrap();
        for (parity, kept) in [(0, 8), (1, 0)] {
            let mut image = disk.snapshot();
            while image.operations() % 2 != parity {
                image.list().unwrap();
            }
            image
                .write(&file, SECTOR_BYTES as u64, &[8; SECTOR_BYTES])
                .unwrap();
            image.fail_operation(image.operations(), Fault::Error(EIO));
            assert!(image.sync(&file).is_err());
            image.sync(&file).unwrap();
            assert_eq!(
                image.contents("file")[SECTOR_BYTES],
                kept,
                "what is visible after a sync is durable"
            );
            image.crash(Crash::PowerCut, 0, |_| false);
            let contents = image.contents("file");
            assert_eq!((contents[0], contents[SECTOR_BYTES]), (7, kept));
        }
    }

    #[test]
    fn names_are_lost_with_the_power_unless_the_directory_was_synced() {
        let mut disk = SimDisk::new();
        for name in ["a", "b", "c"] {
            disk.create(name, 0).unwrap();
            if name == "a" {
                disk.sync_directory().unwrap();
            }
        }
        let keeping = |kept| {
            let mut image = disk.snapshot();
            image.crash(Crash::PowerCut, kept, |_| false);
            image.list().unwrap()
        };
        assert_eq!(keeping(0), ["a"]);
        assert_eq!(keeping(1), ["a", "b"]);
        assert_eq!(keeping(2), ["a", "b", "c"]);
    }

    #[test]
    fn a_kill_keeps_what_was_written_but_not_as_durable() {
        let mut disk = SimDisk::new();
        file_with(&mut disk, &[7; SECTOR_BYTES]);
        disk.crash(Crash::Kill, 0, |_| false);
        assert_eq!(disk.contents("file")[0], 7);
        disk.crash(Crash::PowerCut, 0, |_| false);
        assert_eq!(disk.contents("file")[0], 0);
    }
}
