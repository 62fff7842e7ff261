//! Lanes of shards that are no more: how their files go, and how a lane that is made anew is told
//! from the one before.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
};

use prism_wal::{ids::LaneId, manifest::manifest_file_name};

use super::{LogDirectory, Store};
use crate::log::keeper::fill_random;

/// Name of the file that says how often each lane has been made anew: its number and that, a line
/// each.
const LIVES: &str = "lives";

impl LogDirectory {
    /// Removes a lane whose records are all in the store. The mark comes first: with it on disk the
    /// files are refuse, whatever is left of them.
    pub(super) fn retire(&self, lane: LaneId, store: &mut Store<'_>) -> Result<(), String> {
        File::create(self.path.join(mark_name(lane)))
            .and_then(|mark| mark.sync_all())
            .and_then(|()| self.sync_directory())
            .map_err(|error| self.cannot_remove(lane, &error))?;
        tracing::info!(
            lane = lane.0,
            "removing the lane of a shard that is no more; the store has all its records"
        );
        self.remove_lane(lane, store)
    }

    fn remove_lane(&self, lane: LaneId, store: &mut Store<'_>) -> Result<(), String> {
        self.begin_life(lane)
            .and_then(|()| self.remove_files(lane))
            .map_err(|error| self.cannot_remove(lane, &error))?;
        // A lane of this number that is made later counts from 1 again: the store must not take its
        // records for old ones.
        store.forget(self.id, lane)?;
        self.sync_directory()
            .and_then(|()| fs::remove_file(self.path.join(mark_name(lane))))
            .and_then(|()| self.sync_directory())
            .map_err(|error| self.cannot_remove(lane, &error))
    }

    fn remove_files(&self, lane: LaneId) -> io::Result<()> {
        let (prefix, mark) = (format!("lane-{:08x}", lane.0), mark_name(lane));
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name != mark {
                fs::remove_file(self.path.join(&*name))?;
            }
        }
        Ok(())
    }

    fn cannot_remove(&self, lane: LaneId, error: &io::Error) -> String {
        format!("cannot remove lane {lane} from {}: {error}", self.path.display())
    }

    /// Goes on with removals that a crash interrupted.
    pub(super) fn finish_retired(&self, store: &mut Store<'_>) -> Result<(), String> {
        self.retired()?
            .into_iter()
            .try_for_each(|lane| self.remove_lane(lane, store))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    pub(super) fn lanes(&self) -> Result<Vec<LaneId>, String> {
        self.numbers(manifest_file_name)
    }

    pub(super) fn retired(&self) -> Result<Vec<LaneId>, String> {
        self.numbers(mark_name)
    }

    /// The lanes for which there is a file of the name that `name_of` gives.
    fn numbers(&self, name_of: impl Fn(LaneId) -> String) -> Result<Vec<LaneId>, String> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
        };
        let mut lanes = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?
                .file_name();
            let name = name.to_string_lossy();
            let number = name.strip_prefix("lane-").and_then(|rest| rest.get(..8));
            let lane = number
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .map(LaneId);
            lanes.extend(lane.filter(|lane| name == name_of(*lane)));
        }
        Ok(lanes)
    }

    /// How often a lane has been made anew after the first time.
    ///
    /// # Errors
    /// The directory cannot be read, or the file is damaged.
    pub(super) fn life_of(&self, lane: LaneId) -> io::Result<u16> {
        Ok(self.lives()?.get(&lane).copied().unwrap_or_default())
    }

    /// Notes that the lane that is made next under this number is another one: it counts from 1
    /// again, and a server may have positions of the one before.
    pub(super) fn begin_life(&self, lane: LaneId) -> io::Result<()> {
        let mut lives = self.lives()?;
        let before = match lives.get(&lane) {
            Some(life) => *life,
            // Perhaps the file is lost with the lanes that it counted.
            None if self.limits.accept_loss => {
                let mut bytes = [0; 2];
                fill_random(&mut bytes)?;
                u16::from_le_bytes(bytes) | 0x8000
            }
            None => 0,
        };
        lives.insert(lane, before.wrapping_add(1).max(1));
        let text: String = lives
            .iter()
            .map(|(lane, life)| format!("{:08x} {life}\n", lane.0))
            .collect();
        let new = self.path.join("lives.new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(LIVES))?;
        self.sync_directory()
    }

    fn lives(&self) -> io::Result<BTreeMap<LaneId, u16>> {
        let text = match fs::read_to_string(self.path.join(LIVES)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let damaged = || io::Error::other(format!("the file {LIVES} is damaged: bring the right one back"));
        let read = |line: &str| {
            let (lane, life) = line.split_once(' ')?;
            Some((LaneId(u32::from_str_radix(lane, 16).ok()?), life.parse().ok()?))
        };
        text.lines().map(|line| read(line).ok_or_else(damaged)).collect()
    }
}

fn mark_name(lane: LaneId) -> String {
    format!("lane-{:08x}.retired", lane.0)
}
