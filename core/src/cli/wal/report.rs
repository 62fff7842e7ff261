//! The summary of one lane: read once, printed as text or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prism_wal::buffer::BLOCK_BYTES;
use prism_wal::cipher::StoredKey;
use prism_wal::cursor::Checkpoint;
use prism_wal::cut::Lost;
use prism_wal::ids::{Epoch, Lsn, SegmentNumber};
use prism_wal::inspect::scan::{Finder, FoundGroup, GroupState, Loss, Scan, scan};
use prism_wal::inspect::{LaneImage, SegmentImage};
use prism_wal::manifest::Manifest;
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::{Recovery, Verdict, Visitor};
use serde_json::{Value, json};

use super::super::Failure;
use super::super::output::show_time;
use super::{kind_word, state_word};

/// Receives every record that is readable.
pub(super) type Emit<'a> = &'a mut dyn FnMut(FoundGroup<'_>, Lsn, &Record<'_>) -> Result<(), Failure>;

/// Knowledge about a lane.
pub(super) struct Report<'a> {
    image: &'a LaneImage,
    recovery: Option<Recovery>,
    scan: Scan,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    segments: BTreeMap<SegmentNumber, SegmentTally>,
    /// Records by state and kind.
    records: BTreeMap<(GroupState, &'static str), u64>,
    groups: BTreeMap<GroupState, u64>,
    checkpoint: Option<(Lsn, Checkpoint)>,
    /// First and last record of what stands after the end.
    behind: Option<(Lsn, Lsn)>,
}

#[derive(Default)]
struct SegmentTally {
    groups: u64,
    records: u64,
    blocks: u64,
    lsns: Option<(Lsn, Lsn)>,
    sealed: bool,
}

struct Collector<'a> {
    tally: Tally,
    emit: Option<Emit<'a>>,
    failure: Option<Failure>,
}

impl Finder for Collector<'_> {
    fn group(&mut self, found: FoundGroup<'_>) {
        let header = found.header;
        let tally = &mut self.tally;
        *tally.groups.entry(found.state).or_default() += 1;
        let segment = tally.segments.entry(header.segment).or_default();
        segment.groups += 1;
        segment.records += u64::from(header.record_count);
        segment.blocks += u64::from(header.blocks);
        segment.sealed |= header.flags.seal;
        if header.record_count > 0 {
            let widen = |lsns: &mut Option<(Lsn, Lsn)>| {
                let (first, last) = (header.first_lsn, header.last_lsn());
                *lsns = Some(lsns.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
            };
            widen(&mut segment.lsns);
            if found.state == GroupState::Behind {
                widen(&mut tally.behind);
            }
        }
    }

    fn record(&mut self, found: FoundGroup<'_>, lsn: Lsn, record: &Record<'_>) {
        let counted = (found.state, kind_word(record.kind));
        *self.tally.records.entry(counted).or_default() += 1;
        if (record.kind, found.state) == (RecordKind::Checkpoint, GroupState::Good)
            && let Ok(checkpoint) = Checkpoint::decode(record.payload)
        {
            self.tally.checkpoint = Some((lsn, checkpoint));
        }
        if let (Some(emit), None) = (&mut self.emit, &self.failure) {
            self.failure = emit(found, lsn, record).err();
        }
    }
}

struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _: Epoch, _: Lsn, _: &Record<'_>) {}
}

impl<'a> Report<'a> {
    /// Reads the lane; `emit` gets every readable record.
    pub(super) fn make(image: &'a LaneImage, emit: Option<Emit<'_>>) -> Result<Self, Failure> {
        let recovery = image.walk(&mut Nobody);
        let mut collector = Collector {
            tally: Tally::default(),
            emit,
            failure: None,
        };
        let scan = scan(image, recovery.as_ref(), &mut collector);
        match collector.failure {
            Some(failure) => Err(failure),
            None => Ok(Self {
                image,
                recovery,
                scan,
                tally: collector.tally,
            }),
        }
    }

    /// Whether a start would stop here.
    pub(super) fn is_held(&self) -> bool {
        !matches!(self.verdict(), "clean end" | "torn")
    }

    fn verdict(&self) -> &'static str {
        match self.recovery.as_ref().map(|recovery| recovery.verdict) {
            Some(Verdict::CleanEnd) => "clean end",
            Some(Verdict::Torn) => "torn",
            Some(Verdict::Suspect) => "suspect",
            Some(Verdict::Corrupt) => "corrupt",
            // The walk ends only where nothing follows.
            Some(Verdict::Next) | None => "refused",
        }
    }

    /// Why the lane is held.
    fn reason(&self) -> Option<String> {
        let damage = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.damage.as_ref());
        damage
            .map(ToString::to_string)
            .or_else(|| self.image.refusal().map(|refusal| refusal.to_string()))
    }

    fn checked(&self) -> &'static str {
        match self.image.key_problem() {
            Some(_) => "checksums",
            None => "records",
        }
    }

    /// The verdict, for `verify`.
    pub(super) fn verdict_text(&self) -> String {
        let lane = self.image.lane;
        let mut text = String::new();
        let mark = if self.is_held() { "✗" } else { "✓" };
        let held = if self.is_held() { "held, " } else { "" };
        let _ = write!(text, "{mark} lane {lane}: {held}{}", self.verdict());
        if let Some(reason) = self.reason() {
            let _ = write!(text, ": {reason}");
        }
        text.push('\n');
        if let Some(recovery) = &self.recovery {
            let (tip, checked) = (&recovery.tip, self.checked());
            let _ = writeln!(
                text,
                "    good up to record {} (group {}, epoch {}); {} groups and {} records read, {checked} checked",
                tip.lsn, tip.group, tip.epoch, recovery.groups, recovery.records
            );
        }
        if self.is_held() {
            for line in self.loss_lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
        text
    }

    /// Summary of what was saved and what was not, for `salvage`.
    pub(super) fn salvage_text(&self) -> String {
        let lane = self.image.lane;
        let mut text = String::new();
        let mut saved: BTreeMap<GroupState, u64> = BTreeMap::new();
        for ((state, _), count) in &self.tally.records {
            *saved.entry(*state).or_default() += count;
        }
        let saved: Vec<_> = saved
            .iter()
            .map(|(state, count)| format!("{count} {}", state_word(*state)))
            .collect();
        let saved = if saved.is_empty() {
            "none".to_owned()
        } else {
            saved.join(", ")
        };
        let _ = writeln!(text, "lane {lane}: {}; records saved: {saved}", self.verdict());
        if let Some(reason) = self.reason() {
            let _ = writeln!(text, "lane {lane}: {reason}");
        }
        if self.is_held() {
            for line in self.loss_lines() {
                let _ = writeln!(text, "lane {lane}: {line}");
            }
        }
        text
    }

    fn loss_lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.scan.losses.iter().map(loss_text).collect();
        if self.image.manifest.is_err() {
            lines.push(
                "lost: nothing says which records came before and after those that are left".to_owned(),
            );
        } else if lines.is_empty() {
            lines.push("no group that is known to have been durable is lost".to_owned());
        }
        for lost in &self.scan.given_up {
            lines.push(format!("given up at an earlier start: {lost}"));
        }
        if let Some((first, last)) = self.tally.behind {
            lines.push(format!("readable behind it: {}", records_text(first, last)));
        }
        lines
    }

    /// The verdict, as one JSON object.
    pub(super) fn verdict_json(&self) -> Value {
        let tip = self.recovery.as_ref().map(|recovery| {
            let tip = &recovery.tip;
            json!({ "epoch": tip.epoch.0, "group": tip.group.0, "lsn": tip.lsn.0 })
        });
        // What was in flight is no loss, whatever holes it has.
        let losses: &[Loss] = if self.is_held() { &self.scan.losses } else { &[] };
        let losses: Vec<_> = losses
            .iter()
            .map(|loss| {
                json!({
                    "first_group": loss.groups.start(), "last_group": loss.groups.end(),
                    "first_lsn": loss.first_lsn.0, "last_lsn": loss.last_lsn.map(|lsn| lsn.0),
                })
            })
            .collect();
        let behind = self
            .tally
            .behind
            .map(|(first, last)| json!({ "first_lsn": first.0, "last_lsn": last.0 }));
        json!({
            "lane": self.image.lane.0, "verdict": self.verdict(), "held": self.is_held(), "reason": self.reason(),
            "checked": self.checked(), "tip": tip, "witness": self.scan.witness.0, "losses": losses, "behind": behind,
            "given_up": self.scan.given_up.iter().map(given_up_json).collect::<Vec<_>>(), "records": self.record_counts(),
        })
    }

    /// Records by state and kind; empty without the key.
    fn record_counts(&self) -> Value {
        let mut counts = json!({});
        for ((state, kind), count) in &self.tally.records {
            counts[state_word(*state)][kind] = json!(count);
        }
        counts
    }

    /// All of it, as one JSON object.
    pub(super) fn full_json(&self) -> Value {
        let mut value = self.verdict_json();
        value["manifest"] = match &self.image.manifest {
            Ok(manifest) => json!({
                "generation": manifest.generation, "epoch": manifest.epoch.0, "clean": manifest.clean,
                "base_group": manifest.base.group.0, "base_lsn": manifest.base.lsn.0,
                "durable_group": manifest.durable_group.0, "durable_lsn": manifest.durable_lsn.0,
            }),
            Err(_) => Value::Null,
        };
        value["slots"] = json!(self.slot_words());
        let segments = self.image.segments.iter().map(|image| self.segment_json(image));
        value["segments"] = Value::Array(segments.collect());
        value["reserve_bytes"] = json!(self.image.reserve_bytes);
        value["checkpoint"] = match &self.tally.checkpoint {
            Some((lsn, checkpoint)) => {
                let cursor = |(target, lsn): (prism_wal::ids::TargetId, Lsn)| json!({ "target": target.0, "lsn": lsn.0 });
                json!({ "lsn": lsn.0, "cursors": checkpoint.iter().map(cursor).collect::<Vec<_>>() })
            }
            None => Value::Null,
        };
        value
    }

    fn segment_json(&self, image: &SegmentImage) -> Value {
        let none = SegmentTally::default();
        let tally = self.tally.segments.get(&image.segment).unwrap_or(&none);
        let file = image.file.as_ref();
        let header = file.and_then(|file| file.good_header());
        let key = header.map(|header| match header.key {
            StoredKey::Clear(_) => "clear".to_owned(),
            StoredKey::Wrapped { key_id, .. } => hex(&key_id),
        });
        json!({
            "segment": image.segment.0, "state": self.segment_word(image), "listed": image.listed.is_some(),
            "bytes": file.map(|file| file.bytes), "bytes_used": tally.blocks * BLOCK_BYTES as u64,
            "epoch": header.map(|header| header.epoch.0), "key": key,
            "incarnation": header.map(|header| hex(&header.incarnation)),
            "prepared_at": header.map(|header| time(header.prepared_at_ms)),
            "groups": tally.groups, "records": tally.records,
            "first_lsn": tally.lsns.map(|(first, _)| first.0), "last_lsn": tally.lsns.map(|(_, last)| last.0),
        })
    }

    fn segment_word(&self, image: &SegmentImage) -> &'static str {
        let Some(file) = &image.file else { return "missing" };
        if file.good_header().is_none() {
            return if image.listed.is_some() {
                "bad header"
            } else {
                "free"
            };
        }
        match self.tally.segments.get(&image.segment) {
            Some(tally) if tally.sealed => "full",
            Some(_) => "written",
            None => "empty",
        }
    }

    fn slot_words(&self) -> Vec<String> {
        let slots = self.image.slots.iter().flatten();
        slots
            .map(|slot| match slot {
                Ok(manifest) => format!("generation {}", manifest.generation),
                Err(error) => format!("{error:?}"),
            })
            .collect()
    }

    /// All of it, as text.
    pub(super) fn full_text(&self) -> String {
        let mut text = self.verdict_text();
        match &self.image.manifest {
            Ok(manifest) => self.manifest_text(manifest, &mut text),
            Err(_) => text.push_str("  manifest  none that is good\n"),
        }
        let _ = writeln!(
            text,
            "  witness   groups up to {} were durable",
            self.scan.witness
        );
        self.record_text(&mut text);
        if let Some((lsn, checkpoint)) = &self.tally.checkpoint {
            let cursors: Vec<_> = checkpoint
                .iter()
                .map(|(target, lsn)| format!("target {target} has up to {lsn}"))
                .collect();
            let _ = writeln!(
                text,
                "  cursors   {} (checkpoint, record {lsn})",
                cursors.join(", ")
            );
        }
        if let Some(bytes) = self.image.reserve_bytes {
            let _ = writeln!(text, "  reserve   {}", size(bytes));
        }
        text.push_str("  segment           state       epoch     length       used   groups  records  first..last record   key\n");
        for image in &self.image.segments {
            self.segment_text(image, &mut text);
        }
        text
    }

    fn manifest_text(&self, manifest: &Manifest, text: &mut String) {
        let clean = if manifest.clean { ", closed cleanly" } else { "" };
        let _ = writeln!(
            text,
            "  manifest  generation {} (slots: {}), epoch {}{clean}; recycled up to record {} (group {}); durable up to \
             record {} (group {}) when written",
            manifest.generation,
            self.slot_words().join(", "),
            manifest.epoch,
            manifest.base.lsn,
            manifest.base.group,
            manifest.durable_lsn,
            manifest.durable_group
        );
    }

    fn record_text(&self, text: &mut String) {
        for (state, groups) in &self.tally.groups {
            let kinds = self.tally.records.iter().filter(|((of, _), _)| of == state);
            let kinds: Vec<_> = kinds
                .map(|((_, kind), count)| format!("{count} {kind}"))
                .collect();
            let kinds = if kinds.is_empty() {
                "no records read".to_owned()
            } else {
                kinds.join(", ")
            };
            let _ = writeln!(text, "  {:<9} {groups} groups: {kinds}", state_word(*state));
        }
    }

    fn segment_text(&self, image: &SegmentImage, text: &mut String) {
        let none = SegmentTally::default();
        let tally = self.tally.segments.get(&image.segment).unwrap_or(&none);
        let file = image.file.as_ref();
        let header = file.and_then(|file| file.good_header());
        let unlisted = if image.listed.is_some() { "" } else { "*" };
        let state = format!("{}{unlisted}", self.segment_word(image));
        let key = match header.map(|header| header.key) {
            Some(StoredKey::Wrapped { key_id, .. }) => hex(&key_id),
            Some(StoredKey::Clear(_)) => "clear".to_owned(),
            None => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "  {:<16}  {state:<10}  {:>5} {:>10} {:>10} {:>8} {:>8}  {:<20} {key}",
            image.segment,
            header.map_or("-".to_owned(), |header| header.epoch.to_string()),
            file.map_or("-".to_owned(), |file| size(file.bytes)),
            size(tally.blocks * BLOCK_BYTES as u64),
            tally.groups,
            tally.records,
            tally
                .lsns
                .map_or("-".to_owned(), |(first, last)| format!("{first}..{last}")),
        );
    }
}

fn given_up_json(lost: &Lost) -> Value {
    json!({
        "first_group": lost.first_group.0, "last_group": lost.last_group.0,
        "first_lsn": lost.first_lsn.0, "last_lsn": lost.last_lsn.0, "exact": lost.exact,
    })
}

fn loss_text(loss: &Loss) -> String {
    let (first, last) = (loss.groups.start(), loss.groups.end());
    let groups = if first == last {
        format!("group {first}")
    } else {
        format!("groups {first} to {last}")
    };
    match loss.last_lsn {
        _ if !loss.has_records() => format!("lost: no records ({groups})"),
        Some(last) => format!("lost: {} ({groups})", records_text(loss.first_lsn, last)),
        None => format!(
            "lost: record {} and those behind it ({groups}); nothing that is left says how many",
            loss.first_lsn
        ),
    }
}

fn records_text(first: Lsn, last: Lsn) -> String {
    if first == last {
        format!("record {first}")
    } else {
        format!("records {first} to {last}")
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

fn time(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    show_time(&prost_types::Timestamp { seconds, nanos: 0 })
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
