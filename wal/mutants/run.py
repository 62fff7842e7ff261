#!/usr/bin/env python3
"""Seeds bugs into a copy of the log, one at a time, and checks that the tests notice each.

    wal/mutants/run.py                  all of them
    wal/mutants/run.py 3 7 ack          those with these numbers, or with these words in their name
    wal/mutants/run.py --list           what there is

A bug is a text replacement (below). One that no longer applies is an error: then the code moved, and this list must
follow. The copy lives in a temporary directory; compiled dependencies are shared through CARGO_TARGET_DIR.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMIT = "group_commit/mod.rs"

# (name, file below wal/src, text, replacement)
MUTANTS = [
    ("ack on submit", COMMIT, "            durable: false,\n            attempts: 1,", "            durable: true,\n            attempts: 1,"),
    ("ack out of order", COMMIT, "while self.in_flight.front().is_some_and(|write| write.durable) {\n            let Some(write) = self.in_flight.pop_front() else {",
     "while let Some(at) = self.in_flight.iter().position(|write| write.durable) {\n            let Some(write) = self.in_flight.remove(at) else {"),
    ("durable prefix jumps to the newest completion", COMMIT, "        self.recycle_buffer(buffer);\n        self.advance_durable(now);",
     "        self.durable_lsn = self.durable_lsn.max(self.in_flight[position].last_lsn);\n        self.recycle_buffer(buffer);\n        self.advance_durable(now);"),
    ("witness is the sealed group instead of the durable one", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: self.last_group,\n            previous_tag"),
    ("no witness at all", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: GroupNumber::NONE,\n            previous_tag"),
    ("witness one too high", COMMIT, "durable_group: self.durable_group,\n            previous_tag", "durable_group: self.durable_group.next().min(self.last_group),\n            previous_tag"),
    ("a short write counts as whole", COMMIT, "WriteResult::Durable(bytes) if bytes == write.blocks as usize * BLOCK_BYTES => false,", "WriteResult::Durable(_) => false,"),
    ("a failed write is ignored", COMMIT, "WriteResult::Failed(number) => return self.poison(PoisonReason::WriteFailed(number)),", "WriteResult::Failed(_) => false,"),
    ("a failed write is tried again", COMMIT, "WriteResult::Failed(number) => return self.poison(PoisonReason::WriteFailed(number)),", "WriteResult::Failed(_) => true,"),
    ("acknowledges after poison", COMMIT, "            // Durable or not, nobody learns it from here: what was not acknowledged before stays unknown.\n            return;", ""),
    ("writes after poison", COMMIT, "        if self.poison.is_some() {\n            return None;\n        }\n        if let Some(action)", "        if let Some(action)"),
    ("appends after poison", COMMIT, "            return Err(AppendError::Poisoned);", ""),
    ("the chain is not kept", COMMIT, "previous_tag: self.last_tag,", "previous_tag: GroupTag::default(),"),
    ("two groups share a block", COMMIT, "active.next_block += blocks;", "active.next_block += blocks.min(1);"),
    ("no mark", COMMIT, "self.quiet_since.filter(|_| unwitnessed)?", "self.quiet_since.filter(|_| unwitnessed && false)?"),
    ("admits without a place", COMMIT, "if self.has_room(record) {", "if self.has_room(record) || true {"),
    ("no bound on pending bytes", COMMIT, "            return Err(AppendError::Full);", ""),
    ("a stalled disk is not noticed", COMMIT, "            self.poison(PoisonReason::Stalled);", ""),
    ("the padding keeps an old buffer's bytes", "group.rs", "bytes[GROUP_HEADER_BYTES + header.payload_bytes as usize..].fill(0);", ""),
    ("the nonce leaves out the epoch", "cipher.rs", "nonce[..4].copy_from_slice(&epoch.0.to_le_bytes());", "let _ = epoch;"),
    ("the header is not authenticated", "cipher.rs", ".encrypt_inout_detached(&nonce, header, body.into())", ".encrypt_inout_detached(&nonce, &header[..0], body.into())"),
    ("the header checksum is not checked", "group.rs", "if crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) != u32_at(bytes, HEADER_CRC_OFFSET) {", "if false {"),
    ("the body is not encrypted", "cipher.rs", "            .encrypt_inout_detached(&nonce, header, body.into())", "            .encrypt_inout_detached(&nonce, header, body.to_vec().as_mut_slice().into())"),
    ("the block index is not checked", "recovery.rs", "            && header.block == block\n", ""),
    ("the chain is not checked", "recovery.rs", "header.previous_tag != self.tip.tag || header.first_lsn", "header.first_lsn"),
    ("witnesses behind the hole are not looked for", "recovery.rs", "beyond.witness = beyond.witness.max(header.durable_group);", ""),
    ("a later group is proof enough", "recovery.rs", "beyond.witness = beyond.witness.max(header.durable_group);", "beyond.witness = beyond.witness.max(header.group);"),
    ("the stores' cursors are no evidence", "recovery.rs", "|| self.tip.lsn < evidence.durable_lsn", ""),
    ("suspect is called torn", "recovery.rs", "(Content::NoSectorZero | Content::Unreadable, false, _) => Verdict::Suspect,", "(Content::NoSectorZero | Content::Unreadable, false, _) => Verdict::Torn,"),
    ("corrupt is called torn", "recovery.rs", "(_, true, _) => Verdict::Corrupt,", "(_, true, _) => Verdict::Torn,"),
    ("an earlier cut is not respected", "recovery.rs", "            walk.jump(start);", "            let _ = start;"),
    ("a sealed segment does not lead to the next", "recovery.rs", "        (tip.index, tip.block) = if header.flags.seal {", "        (tip.index, tip.block) = if false {"),
    ("only the first copy of a header is read", "segment.rs", "(Err(error), Some(second)) => Self::decode(second).map_err(|_| error),", "(Err(error), Some(_)) => Err(error),"),
    ("the epoch is not raised", "start.rs", "epoch: recovery.epoch_max.max(manifest.epoch).next(),", "epoch: recovery.epoch_max.max(manifest.epoch).max(Epoch(1)),"),
    ("files are believed without a sync", "start.rs", "    disk.sync(&file)?;\n    let header = match read_header", "    let header = match read_header"),
    ("the cut is not made durable", "start.rs", "    disk.write(&active.file, write.offset(), write.bytes())?;\n    disk.sync(&active.file)?;", "    disk.write(&active.file, write.offset(), write.bytes())?;"),
    ("another incarnation is accepted", "start.rs", "(config.lane, number, listed.incarnation)", "(config.lane, number, header.incarnation)"),
    ("an unlisted segment in use is taken for free", "start.rs", "if prepared && used && *number > newest {", "if prepared && used && *number > newest && false {"),
    ("a wiped directory starts afresh", "start.rs", "let fresh_allowed = !segments_present && !config.expect_existing;", "let fresh_allowed = !segments_present;"),
    ("zeros are not durable before the headers", "pool.rs", "self.disk.write_zeros(&file, 0, bytes)?;\n            self.disk.sync(&file)?;\n        }", "self.disk.write_zeros(&file, 0, bytes)?;\n        }"),
    ("a recycled file keeps its old groups", "pool.rs", "        if !blank {", "        if false {"),
    ("headers are not durable before the manifest", "pool.rs", "self.disk.write(&file, 0, headers.as_slice())?;\n        self.disk.sync(&file)?;", "self.disk.write(&file, 0, headers.as_slice())?;"),
    ("the directory is not synced", "pool.rs", "        self.disk.sync_directory()?;\n        Ok(Prepared {", "        Ok(Prepared {"),
    ("the manifest is not synced", "pool.rs", "        self.disk.sync(&self.manifest_file)?;\n", ""),
    ("the good manifest slot is overwritten after a failure", "pool.rs", "if self.manifest_unknown { 2 } else { 1 }", "1"),
    ("keys of recycled segments are not destroyed first, files are reused before the manifest", "pool.rs", "        self.manifest_unknown = true;\n", "        self.manifest_unknown = true;\n        self.release();\n"),
    ("a segment with torn remains is taken for blank", "recovery.rs", "blank &= zero;", "blank &= zero || block > first;"),
    ("a clean stop is believed wherever the log seems to end", "recovery.rs", "evidence.clean_end == Some(self.tip.group)", "evidence.clean_end.is_some()"),
    ("the mark of a clean stop is not unset", "pool.rs", "        manifest.clean = false;\n", ""),
    ("the base is not moved", "pool.rs", "        self.manifest.base = segment.end;\n", ""),
    ("a segment is freed by a checkpoint that is not durable", "cursor.rs", "while self.pending.front().is_some_and(|(at, _)| *at <= lsn) {", "let _ = lsn;\n        while !self.pending.is_empty() {"),
    ("a segment is freed before its records are applied", "cursor.rs", "segment.end.lsn <= floor && segment.end.lsn < checkpoint", "segment.end.lsn < checkpoint"),
    ("a segment is freed while one target is behind", "tail.rs", "filter_map(Queue::first_unsynced).min();", "filter_map(Queue::first_unsynced).max();"),
    ("records are applied before they are durable", "tail.rs", "*lsn <= durable && (first || bytes <= bytes_max)", "(*lsn <= durable || true) && (first || bytes <= bytes_max)"),
    ("the cursor is one too high", "tail.rs", "self.handle_applied(target, lsn);\n        self.checkpoint.advance(target, lsn);", "self.handle_applied(target, lsn);\n        self.checkpoint.advance(target, lsn.next());"),
    ("the cursor moves when the store has not synced", "tail.rs", "        if let Some(queue) = queue {\n            queue.apply_until(lsn, durable);\n        }", "        if let Some(queue) = queue {\n            queue.apply_until(lsn, durable);\n            queue.sync_until(lsn);\n            self.checkpoint.advance(target, lsn);\n        }"),
    ("a segment is freed by what is applied and not synced", "tail.rs", "self.unsynced_from.into_iter().chain(waiting).min()", "waiting"),
    ("eventual records hold nothing", "lane.rs", "        self.tail.push_applied(lsn, target);\n", ""),
    ("eventual records are not replayed", "lane.rs", "RecordKind::Strong | RecordKind::Eventual => {", "RecordKind::Eventual => {}\n            RecordKind::Strong => {"),
]

QUICK = {"WAL_CRASH_STATES": "4000", "WAL_DAMAGE_STRIDE": "2999", "WAL_SIM_COUNT": "200"}
# Two stages, the cheap one first: most bugs are found there.
STAGES = [["--test", "random", "--test", "io_errors"], ["--lib", "--test", "crash_states", "--test", "damage"]]


def select(words):
    chosen = []
    for number, mutant in enumerate(MUTANTS, 1):
        if not words or any(word == str(number) or (not word.isdigit() and word in mutant[0]) for word in words):
            chosen.append((number, mutant))
    return chosen


def run(copy, environment):
    """The first test that fails, or None; raises when the bug does not compile."""
    base = ["cargo", "test", "--offline", "-q", "-p", "prism-wal"]
    for tests in STAGES:
        built = subprocess.run([*base, "--no-run", *tests], cwd=copy, env=environment, capture_output=True, text=True)
        if built.returncode != 0:
            raise SystemExit(f"does not compile:\n{built.stderr[-3000:]}")
        try:
            result = subprocess.run(
                [*base, *tests], cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "a test hangs"
        if result.returncode != 0:
            output = result.stdout + result.stderr
            lines = [line for line in output.splitlines() if "panicked at" in line]
            after = output.split("panicked at", 1)[-1].splitlines()
            return (lines or ["a failure"])[0].strip() + " " + (after[1].strip() if len(after) > 1 else "")
    return None


def main():
    if sys.argv[1:] == ["--list"]:
        for number, mutant in enumerate(MUTANTS, 1):
            print(f"{number:3} {mutant[0]} ({mutant[1]})")
        return 0
    survivors = []
    environment = {**os.environ, **QUICK, "RUST_BACKTRACE": "0"}
    environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
    with tempfile.TemporaryDirectory(prefix="wal-mutants-") as temporary:
        copy = pathlib.Path(temporary) / "prism"
        ignored = shutil.ignore_patterns("target", ".git", "node_modules")
        shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
        chosen = select(sys.argv[1:])
        for number, (name, file, text, replacement) in chosen:
            path = copy / "wal" / "src" / file
            original = path.read_text()
            if original.count(text) != 1:
                raise SystemExit(f"mutant {number} ({name}): its text stands {original.count(text)} times in {file}")
            began = time.monotonic()
            path.write_text(original.replace(text, replacement))
            caught = run(copy, environment)
            path.write_text(original)
            took = time.monotonic() - began
            print(f"{number:3} {'caught' if caught else 'SURVIVED':8} {took:5.0f} s  {name}: {caught or ''}"[:240], flush=True)
            if not caught:
                survivors.append(name)
    print(f"{len(chosen)} bugs, {len(survivors)} not caught: {survivors}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
