#!/usr/bin/env python3
"""Seeds bugs into a copy of the log, one at a time, and checks that the tests notice each.

    wal/mutants/run.py                  all of them
    wal/mutants/run.py 3 7 ack          those with these numbers, or with these words in their name
    wal/mutants/run.py --list           what there is
    wal/mutants/run.py --check          only whether each still applies

Most are in the log itself; those in the gateway's part of it are tried with the tests of that part alone.
A bug is a text replacement (below), with the test that should notice it; when that does not, the others are tried. A bug
that no longer applies is an error: then the code moved, and this list must follow. The copy lives in a temporary
directory and is built into CARGO_TARGET_DIR, one bug after the other, so only the log itself is compiled anew.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMIT, DECIDE, WALK = "group_commit/mod.rs", "recovery/mod.rs", "recovery/walk.rs"
RESERVE, ROOM = "group_commit/reserve.rs", "group_commit/room.rs"
# A crate's name and a colon stand before a file of another crate than the log's.
SHARD_LOG = "core:log/shard_log.rs"

# Not here, because no crash can tell: leaving out the sync between the zeros and the headers of a new segment. The sync
# behind the headers makes both durable before the manifest lists the segment; the one between is a second line.
# (name, test that should notice, file below wal/src, text, replacement)
MUTANTS = [
    ("ack on submit", "random", COMMIT, "            durable: false,\n            attempts: 1,", "            durable: true,\n            attempts: 1,"),
    ("ack out of order", "random", COMMIT, "while self.in_flight.front().is_some_and(|write| write.durable) {\n            let Some(write) = self.in_flight.pop_front() else {",
     "while let Some(at) = self.in_flight.iter().position(|write| write.durable) {\n            let Some(write) = self.in_flight.remove(at) else {"),
    ("durable prefix jumps to the newest completion", "random", COMMIT, "        self.recycle_buffer(buffer);\n        self.advance_durable(now);",
     "        self.durable_lsn = self.durable_lsn.max(self.in_flight[position].last_lsn);\n        self.recycle_buffer(buffer);\n        self.advance_durable(now);"),
    ("witness is the sealed group instead of the durable one", "random", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: self.last_group,\n            previous_tag"),
    ("no witness at all", "damage", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: GroupNumber::NONE,\n            previous_tag"),
    ("witness one too high", "random", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: self.durable_group.next().min(self.last_group),\n            previous_tag"),
    ("a short write counts as whole", "io_errors", COMMIT, "WriteResult::Durable(bytes) if bytes == write.blocks as usize * BLOCK_BYTES => false,", "WriteResult::Durable(_) => false,"),
    ("a failed write is ignored", "io_errors", COMMIT, "WriteResult::Failed(number) => return self.poison(PoisonReason::WriteFailed(number)),", "WriteResult::Failed(_) => false,"),
    ("a failed write is tried again", "io_errors", COMMIT, "WriteResult::Failed(number) => return self.poison(PoisonReason::WriteFailed(number)),", "WriteResult::Failed(_) => true,"),
    ("acknowledges after poison", "random", COMMIT, "            // Durable or not, nobody learns it from here: what was not acknowledged before stays\n            // unknown.\n            return;", ""),
    ("writes after poison", "lane", COMMIT, "        if self.poison.is_some() {\n            return None;\n        }\n        if let Some(action)", "        if let Some(action)"),
    ("appends after poison", "io_errors", ROOM, "            return Err(AppendError::Poisoned);", ""),
    ("the chain is not kept", "random", COMMIT, "previous_tag: self.last_tag,", "previous_tag: GroupTag::default(),"),
    ("two groups share a block", "random", COMMIT, "active.next_block += blocks;", "active.next_block += blocks.min(1);"),
    ("no mark", "lane", COMMIT, "self.quiet_since.filter(|_| unwitnessed)?", "self.quiet_since.filter(|_| unwitnessed && false)?"),
    ("admits without a place", "random", ROOM, "if self.has_room(bytes, kept_blocks) {", "if self.has_room(bytes, kept_blocks) || true {"),
    ("a checkpoint that frees nothing takes the last place", "reserve", RESERVE, "Frees::Nothing => self.behind_record(),", "Frees::Nothing => SEAL_BLOCKS,"),
    ("a checkpoint that frees too little takes the last place", "reserve", RESERVE, "Frees::Some => self.checkpoint_blocks + SEAL_BLOCKS,", "Frees::Some => SEAL_BLOCKS,"),
    ("records leave one place for a checkpoint", "reserve", RESERVE, "MARK_BLOCKS + self.checkpoint_blocks + self.behind_mark()", "MARK_BLOCKS + self.behind_mark()"),
    ("marks take the place of a checkpoint", "random", ROOM, "GroupKind::Mark if ready_behind == 0 => self.reserve.behind_mark(),", "GroupKind::Mark if ready_behind == 0 => 1,"),
    ("the place for a checkpoint does not grow with the targets", "reserve", "tail.rs", "Checkpoint::encoded_bytes(self.targets.len() + usize::from(new))", "Checkpoint::encoded_bytes(usize::from(new))"),
    ("a new target makes no place for its cursor", "reserve", "tail.rs", "Checkpoint::encoded_bytes(self.targets.len() + usize::from(new))", "Checkpoint::encoded_bytes(self.targets.len() + usize::from(new && false))"),
    ("a checkpoint on its way is not counted", "lib", "cursor.rs", "self.pending.back().or(self.durable.as_ref())", "self.durable.as_ref()"),
    ("no bound on pending bytes", "lane", ROOM, "            return Err(AppendError::Full);", ""),
    ("a stalled disk is not noticed", "io_errors", COMMIT, "            self.poison(PoisonReason::Stalled);", ""),
    ("the padding keeps an old buffer's bytes", "random", "group.rs", "bytes[GROUP_HEADER_BYTES + header.payload_bytes as usize..].fill(0);", ""),
    ("the nonce leaves out the epoch", "lib", "cipher.rs", "nonce[..4].copy_from_slice(&epoch.0.to_le_bytes());", "let _ = epoch;"),
    ("the header is not authenticated", "lib", "cipher.rs", ".encrypt_inout_detached(&nonce, header, body.into())", ".encrypt_inout_detached(&nonce, &header[..0], body.into())"),
    ("the header checksum is not checked", "lib", "group.rs", "if crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) != u32_at(bytes, HEADER_CRC_OFFSET) {", "if false {"),
    ("the body is not encrypted", "random", "cipher.rs", "            .encrypt_inout_detached(&nonce, header, body.into())", "            .encrypt_inout_detached(&nonce, header, body.to_vec().as_mut_slice().into())"),
    ("the block index is not checked", "accept_loss", WALK, "            && header.block == block\n", ""),
    ("the lane is not checked", "images", WALK, "header.lane == lane\n            && ", ""),
    ("the segment number is not checked", "images", WALK, "            && header.segment == number\n", ""),
    ("a group may reach beyond its segment", "images", WALK, "            && header.blocks <= blocks - block\n", ""),
    ("the flag of a segment's first group is not checked", "images", WALK, "\n            && header.flags.open == (block == SEGMENT_HEADER_BLOCKS);", ";"),
    ("witnesses of earlier epochs count", "images", WALK, "                if header.epoch < epoch {\n                    continue;\n                }\n", ""),
    ("the chain is not checked", "images", WALK, "header.previous_tag != self.tip.tag || header.first_lsn", "header.first_lsn"),
    ("witnesses behind the hole are not looked for", "damage", WALK, "beyond.witness = beyond.witness.max(header.durable_group);", ""),
    ("a later group is proof enough", "crash_states", WALK, "beyond.witness = beyond.witness.max(header.durable_group);", "beyond.witness = beyond.witness.max(header.group);"),
    ("the stores' cursors are no evidence", "damage", WALK, "|| self.tip.lsn < evidence.durable_lsn", ""),
    ("suspect is called torn", "lib", DECIDE, "(Content::NoSectorZero | Content::Unreadable, false, _) => Verdict::Suspect,", "(Content::NoSectorZero | Content::Unreadable, false, _) => Verdict::Torn,"),
    ("corrupt is called torn", "lib", DECIDE, "(_, true, _) => Verdict::Corrupt,", "(_, true, _) => Verdict::Torn,"),
    ("an earlier cut is not respected", "random", WALK, "                self.resume_at(start.index, &start.header);", "                let _ = start;"),
    ("a sealed segment does not lead to the next", "random", WALK, "        (tip.index, tip.block) = if header.flags.seal {", "        (tip.index, tip.block) = if false {"),
    ("only the first copy of a header is read", "lib", "segment.rs", "(Err(error), Some(second)) => Self::decode(second).map_err(|_| error),", "(Err(error), Some(_)) => Err(error),"),
    ("the epoch is not raised", "random", "start.rs", "epoch: recovery.epoch_max.max(manifest.epoch).next(),", "epoch: recovery.epoch_max.max(manifest.epoch).max(Epoch(1)),"),
    ("files are believed without a sync", "random", "start.rs", "    disk.sync(&file)?;\n    let header = match read_header", "    let header = match read_header"),
    ("the cut is not made durable", "random", "start.rs", "    disk.write(&active.file, write.offset(), write.bytes())?;\n    disk.sync(&active.file)?;", "    disk.write(&active.file, write.offset(), write.bytes())?;"),
    ("another incarnation is accepted", "damage", "start.rs", "(config.lane, number, listed.incarnation)", "(config.lane, number, header.incarnation)"),
    ("an unlisted segment in use is taken for free", "damage", "start.rs", "if prepared && used && *number > newest {", "if prepared && used && *number > newest && false {"),
    ("a segment that a start dropped is held against the next", "io_errors", "start.rs", " && header.epoch >= manifest.epoch", ""),
    ("a wiped directory starts afresh", "damage", "start.rs", "let fresh_allowed = !segments_present && !config.expect_existing;", "let fresh_allowed = !segments_present;"),
    ("a recycled file keeps its old groups", "random", "pool.rs", "        if !blank {", "        if false {"),
    ("headers are not durable before the manifest", "random", "pool.rs", "self.disk.write(&file, 0, headers.as_slice())?;\n        self.disk.sync(&file)?;", "self.disk.write(&file, 0, headers.as_slice())?;"),
    ("the directory is not synced", "random", "pool.rs", "        self.disk.sync_directory()?;\n        Ok(PreparedSegment {", "        Ok(PreparedSegment {"),
    ("the manifest is not synced", "random", "pool.rs", "        self.disk.sync(&self.manifest_file)?;\n", ""),
    ("the good manifest slot is overwritten after a failure", "io_errors", "pool.rs", "if self.manifest_unknown { 2 } else { 1 }", "1"),
    ("keys of recycled segments are not destroyed first, files are reused before the manifest", "random", "pool.rs", "        self.manifest_unknown = true;\n", "        self.manifest_unknown = true;\n        self.release();\n"),
    ("a segment with torn remains is taken for blank", "random", WALK, "blank &= zero;", "blank &= zero || block > first;"),
    ("a clean stop is believed wherever the log seems to end", "damage", WALK, "evidence.clean_end == Some(self.tip.group)", "evidence.clean_end.is_some()"),
    ("the mark of a clean stop is not unset", "damage", "pool.rs", "        manifest.clean = false;\n", ""),
    ("the base is not moved", "random", "pool.rs", "        self.manifest.base = segment.end;\n", ""),
    ("a segment is freed by a checkpoint that is not durable", "lib", "cursor.rs", "while self.pending.front().is_some_and(|(at, _)| *at <= lsn) {", "let _ = lsn;\n        while !self.pending.is_empty() {"),
    ("a segment is freed before its records are applied", "random", "cursor.rs", "segment.end.lsn <= floor && segment.end.lsn < checkpoint", "segment.end.lsn < checkpoint"),
    ("a segment is freed while one target is behind", "lib", "tail.rs", "filter_map(Queue::first_unsynced).min();", "filter_map(Queue::first_unsynced).max();"),
    ("records are applied before they are durable", "lib", "tail.rs", "*lsn <= durable && (first || bytes <= bytes_max)", "(*lsn <= durable || true) && (first || bytes <= bytes_max)"),
    ("the cursor is one too high", "lib", "tail.rs", "self.handle_applied(target, lsn);\n        self.checkpoint.advance(target, lsn);", "self.handle_applied(target, lsn);\n        self.checkpoint.advance(target, lsn.next());"),
    ("the cursor moves when the store has not synced", "lib", "tail.rs", "        if let Some(queue) = queue {\n            queue.apply_until(lsn, durable);\n        }", "        if let Some(queue) = queue {\n            queue.apply_until(lsn, durable);\n            queue.sync_until(lsn);\n            self.checkpoint.advance(target, lsn);\n        }"),
    ("a segment is freed by what is applied and not synced", "lib", "tail.rs", "self.unsynced_from.into_iter().chain(waiting).min()", "waiting"),
    ("eventual records hold nothing", "lane", "lane.rs", "        self.tail.push_applied(lsn, target);\n", ""),
    ("eventual records are not replayed", "lane", "lane.rs", "RecordKind::Strong | RecordKind::Eventual => {", "RecordKind::Eventual => {}\n            RecordKind::Strong => {"),
    ("a lane does not say that a mark is due", "lane", COMMIT, "stall.into_iter().chain(group).min()", "stall.into_iter().chain(group.filter(|_| self.pending_bytes > 0)).min()"),
    ("a lane asks for a turn that has nothing to do", "random", COMMIT, "(self.has_place(blocks, kind) || self.must_close(blocks)).then_some(due)", "Some(due)"),
    ("what was given up is held against the lane again", "accept_loss", WALK, "                self.skip(&lost);", "                let _ = lost;"),
    ("the cut does not say what was given up", "accept_loss", "start.rs", "lost: recovery.lost.clone(),", "lost: Vec::new(),"),
    ("good groups behind the damage are given up", "accept_loss", WALK, "!all && self.is_whole(*index, header)", "!all && self.is_whole(*index, header) && false"),
    ("a damaged group behind the damage is believed", "accept_loss", WALK, "!all && self.is_whole(*index, header)", "!all && (self.is_whole(*index, header) || true)"),
    ("groups that were cut off come back with a loss", "accept_loss", WALK, "later.into_iter().all(|(_, lowest)| *lowest > header.group)", "later.into_iter().all(|(_, lowest)| *lowest > header.group || true)"),
    ("damaged segments are dropped before the cut is durable", "accept_loss", "start.rs", "        keep_damaged(&manifest, &recovery, &mut ends);\n", "        let _ = (keep_damaged, &mut ends);\n"),
    ("a judged call is acknowledged when it is durable", "shard_log", SHARD_LOG, "let judged = call.is_judged();", "let judged = call.is_judged() && false;"),
    ("what is given up counts as durable before the cut is", "accept_loss", "start.rs", "    if recovery.lost.is_empty() {", "    if true {"),
]

# Enough for a bug to show, and quick.
QUICK = {
    "WAL_CRASH_STATES": "6000",
    "WAL_DAMAGE_STRIDE": "2999",
    "WAL_SIM_COUNT": "200",
    "WAL_BIT_STRIDE": "97",
    "WAL_TORN_IMAGES": "300",
    "WAL_LOSS_SEEDS": "20",
}
# What is tried, in this order, when the test that should notice does not.
TESTS = ["lib", "random", "io_errors", "lane", "reserve", "damage", "crash_states", "accept_loss", "images"]
HANGS_SECONDS = 240


def select(words):
    chosen = []
    for number, mutant in enumerate(MUTANTS, 1):
        if not words or any(word == str(number) or (not word.isdigit() and word in mutant[0]) for word in words):
            chosen.append((number, mutant))
    return chosen


def run(test, copy, environment):
    """How a test fails, or None; raises when the bug does not compile."""
    command = ["cargo", "test", "--offline", "-q"]
    command += {"lib": ["-p", "prism-wal", "--lib"], "shard_log": ["-p", "prism-core", "--lib"]}.get(test, ["-p", "prism-wal", "--test", test])
    only = ["log::shard_log"] if test == "shard_log" else []
    built = subprocess.run([*command, "--no-run"], cwd=copy, env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        raise SystemExit(f"does not compile:\n{built.stderr[-3000:]}")
    try:
        result = subprocess.run(
            [*command, *only], cwd=copy, env=environment, capture_output=True, text=True, timeout=HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        return "hangs"
    if result.returncode == 0:
        return None
    output = result.stdout + result.stderr
    after = output.split("panicked at", 1)[-1].splitlines()
    return after[1].strip() if len(after) > 1 else "fails"


def try_mutant(hint, copy, environment):
    """(test, how it failed) of the first test that notices, or None."""
    others = [test for test in TESTS if test != hint] if hint in TESTS else []
    for test in [hint, *others]:
        how = run(test, copy, environment)
        if how:
            return test, how
    return None


def path_of(root, file):
    crate, _, name = file.rpartition(":")
    return root / (crate or "wal") / "src" / name


def check(chosen, root):
    for number, (name, _, file, text, _) in chosen:
        times = path_of(root, file).read_text().count(text)
        if times != 1:
            raise SystemExit(f"bug {number} ({name}): its text stands {times} times in {file}; the list must follow the code")


def main():
    if sys.argv[1:] == ["--list"]:
        for number, (name, hint, file, *_) in enumerate(MUTANTS, 1):
            print(f"{number:3} {name} ({file}; {hint})")
        return 0
    if sys.argv[1:] == ["--check"]:
        check(select([]), ROOT)
        return 0
    environment = {**os.environ, **QUICK, "RUST_BACKTRACE": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
    environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
    rows, began_all = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wal-mutants-") as temporary:
        copy = pathlib.Path(temporary) / "prism"
        ignored = shutil.ignore_patterns("target", ".git", "node_modules")
        shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
        chosen = select(sys.argv[1:])
        check(chosen, copy)
        sources = {file: path_of(copy, file).read_text() for _, (_, _, file, _, _) in chosen}
        for number, (name, hint, file, text, replacement) in chosen:
            path = path_of(copy, file)
            began = time.monotonic()
            path.write_text(sources[file].replace(text, replacement))
            caught = try_mutant(hint, copy, environment)
            path.write_text(sources[file])
            test, how = caught or ("SURVIVED", "")
            rows.append((number, name, test))
            print(f"{number:3} {time.monotonic() - began:5.0f} s  {name}: {test}: {how}"[:200], flush=True)
    survivors = [name for _, name, test in rows if test == "SURVIVED"]
    print(f"\n{'bug':>3}  {'noticed by':12} what")
    for number, name, test in rows:
        print(f"{number:3}  {test:12} {name}")
    minutes = (time.monotonic() - began_all) / 60
    print(f"{len(rows)} bugs, {len(rows) - len(survivors)} caught, {len(survivors)} not, in {minutes:.0f} min")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
