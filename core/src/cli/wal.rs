//! `prism wal`: look at the log of a stopped gateway, verify it, save what a damaged one still
//! holds.
//!
//! Promises: the log's folder is never changed; a lane that a gateway has open is not read; exit
//! code 0 when every lane can start, 1 when one is held or something is lost, 2 when the folder,
//! the key or the arguments are wrong. Leaves to others: deciding (`prism_wal::recovery`), finding
//! (`prism_wal::inspect`), and the summary of a lane ([`report`]).

use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use prism_core::wal_key::read_key_file;
use prism_wal::cipher::{KeyEncryptionKey, KeyError};
use prism_wal::ids::{LaneId, Lsn};
use prism_wal::inspect::scan::{FoundGroup, GroupState};
use prism_wal::inspect::{LaneImage, LogDirectory, is_in_use};
use prism_wal::record::{Record, RecordKind};
use serde_json::json;

use self::report::{Emit, Report, hex};
use super::output::Printer;
use super::{Exit, Failure};

mod report;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
The log lies in the folder `wal` of the gateway's data folder. Stop the gateway first, or work on a
copy of the folder. Nothing here changes the folder.")]
pub(super) enum WalCommand {
    /// Show what lies in the log: manifest, segments, records, cursors
    Inspect(InspectArgs),
    /// Read the whole log and say whether each lane can start
    Verify(LogArgs),
    /// Write every record that is still readable to a file, and say what is lost
    Salvage(SalvageArgs),
}

/// Which log.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  every lane can start: it ends cleanly, or with a write that never completed and was never acknowledged
  1  a lane is held: what was durable is missing or changed; the lost records are named
  2  wrong usage, the log cannot be read, or a gateway has it open

Not known here is how far the stores are. If a store has a record of which the log has no trace,
only the gateway notices, when it starts.")]
pub(super) struct LogArgs {
    /// The log's folder: `wal` in the data folder
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only this lane
    #[arg(long, value_name = "N")]
    lane: Option<u32>,
    /// Key of an encrypted log: 32 bytes or 64 hexadecimal digits, accessible only to its owner
    #[arg(long, env = "PRISM_WAL_KEY_FILE", value_name = "FILE")]
    wal_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  shown, whatever state the log is in
  2  wrong usage, the log cannot be read, or a gateway has it open")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Every record, too: number, kind, target, length
    #[arg(long)]
    records: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each line of FILE is a JSON object: lane, epoch, lsn, kind, target, state, segment, group, payload (base64). The state is
  good      before any damage: the gateway replays it
  behind    behind the damage, or in flight when the gateway stopped: replayed only if the damage is given up
  recycled  already applied to its store
  cut       dropped by an earlier start

Exit codes:
  0  nothing is lost
  1  something is lost: what, is on standard error
  2  wrong usage, the log or FILE cannot be used, or a gateway has the log open")]
pub(super) struct SalvageArgs {
    #[command(flatten)]
    log: LogArgs,
    /// File to make; must not exist and not lie in DIR
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(super) fn run(command: &WalCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        WalCommand::Inspect(args) => inspect(args, printer),
        WalCommand::Verify(args) => verify(args, printer),
        WalCommand::Salvage(args) => salvage(args, printer),
    }
}

fn inspect(args: &InspectArgs, printer: &mut Printer) -> Result<(), Failure> {
    for image in open(&args.log)? {
        let report = if args.records {
            let lane = image.lane;
            let mut emit = |found: FoundGroup<'_>, lsn: Lsn, record: &Record<'_>| {
                show_record(printer, lane, found, lsn, record)
            };
            Report::make(&image, Some(&mut emit))?
        } else {
            Report::make(&image, None)?
        };
        if printer.is_json() {
            printer.json(&report.full_json())?;
        } else {
            printer.raw(report.full_text().as_bytes())?;
        }
        note_key(&image, printer);
    }
    Ok(())
}

fn show_record(
    printer: &mut Printer,
    lane: LaneId,
    found: FoundGroup<'_>,
    lsn: Lsn,
    record: &Record<'_>,
) -> Result<(), Failure> {
    let (kind, state) = (kind_word(record.kind), state_word(found.state));
    let (target, bytes) = (record.target, record.payload.len());
    if printer.is_json() {
        return printer.json(&json!({
            "lane": lane.0, "epoch": found.header.epoch.0, "lsn": lsn.0, "kind": kind, "target": target.0,
            "bytes": bytes, "state": state, "segment": found.header.segment.0, "group": found.header.group.0,
        }));
    }
    let (epoch, group) = (found.header.epoch, found.header.group);
    printer.line(&format!(
        "record {lsn}  {kind}  target {target}  {bytes} bytes  epoch {epoch}  group {group}  {state}"
    ))
}

fn verify(args: &LogArgs, printer: &mut Printer) -> Result<(), Failure> {
    let (mut lanes, mut held) = (0, Vec::new());
    for image in open(args)? {
        lanes += 1;
        let report = Report::make(&image, None)?;
        if report.is_held() {
            held.push(image.lane.0);
        }
        if printer.is_json() {
            printer.json(&report.verdict_json())?;
        } else {
            printer.raw(report.verdict_text().as_bytes())?;
        }
        note_key(&image, printer);
    }
    if held.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(
        Exit::No,
        format!("{} of {lanes} lanes held: {held:?}", held.len()),
    );
    let directory = args.directory.display();
    Err(failure.solution(format!(
        "save what is readable with `prism wal salvage {directory} --to FILE`; if the disk failed for a while or a file was \
         moved, mend that and verify again; {WITHOUT}"
    )))
}

/// How to go on when what is lost stays lost.
const WITHOUT: &str = "to start without what is lost, and with all that is readable: `prism serve --set \
                       wal.on_corruption=continue_and_report`; a lane that is refused for its files needs those files back";

/// Without the key less is checked, and that must not go unsaid.
fn note_key(image: &LaneImage, printer: &mut Printer) {
    if let Some(KeyError::KeyNeeded(id)) = image.key_problem() {
        printer.note(&format!(
            "lane {} is encrypted under key {}, which was not given: checksums, numbers and the chain of groups were \
             checked, records were not read, and a forgery would not be noticed; --wal-key-file FILE checks all",
            image.lane,
            hex(&id)
        ));
    }
}

fn salvage(args: &SalvageArgs, printer: &mut Printer) -> Result<(), Failure> {
    let images = open(&args.log)?;
    if let Some(KeyError::KeyNeeded(id)) = images.iter().find_map(LaneImage::key_problem) {
        let message = format!(
            "the log is encrypted under key {}: nothing can be salvaged without it",
            hex(&id)
        );
        return Err(Failure::new(Exit::Usage, message).solution("name its key file with --wal-key-file FILE"));
    }
    let unwritable = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Usage,
            format!("cannot write {}: {error}", args.to.display()),
        )
    };
    if lies_within(&args.to, &args.log.directory) {
        return Err(unwritable(&"it lies in the log's folder, which stays as it is")
            .solution("name a file elsewhere"));
    }
    // Holds data of the stores: for the owner only, and never over something else.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.to);
    let mut out =
        BufWriter::new(file.map_err(|error| unwritable(&error).solution("name a file that does not exist"))?);
    let mut lost = false;
    for image in &images {
        let lane = image.lane;
        let mut emit = |found: FoundGroup<'_>, lsn: Lsn, record: &Record<'_>| {
            let line = json!({
                "lane": lane.0, "epoch": found.header.epoch.0, "lsn": lsn.0, "kind": kind_word(record.kind),
                "target": record.target.0, "state": state_word(found.state), "segment": found.header.segment.0,
                "group": found.header.group.0, "payload": BASE64.encode(record.payload),
            });
            writeln!(out, "{line}").map_err(|error| unwritable(&error))
        };
        let emit: Emit<'_> = &mut emit;
        let report = Report::make(image, Some(emit))?;
        lost |= report.is_held();
        // Standard error is for people here; whoever closed it does not want to know.
        let _ = std::io::stderr().write_all(report.salvage_text().as_bytes());
        if printer.is_json() {
            printer.json(&report.verdict_json())?;
        }
    }
    let written = out.into_inner().map_err(|error| error.into_error());
    written
        .and_then(|file| file.sync_all())
        .map_err(|error| unwritable(&error))?;
    if lost {
        let _ = writeln!(std::io::stderr(), "Solution: {WITHOUT}");
        return Err(Failure::silent(Exit::No));
    }
    Ok(())
}

fn lies_within(file: &Path, directory: &Path) -> bool {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match (parent.canonicalize(), directory.canonicalize()) {
        (Ok(parent), Ok(directory)) => parent.starts_with(directory),
        // A parent that does not exist is reported when the file is made.
        _ => false,
    }
}

/// Opens the lanes that were asked for.
fn open(args: &LogArgs) -> Result<Vec<LaneImage>, Failure> {
    let key = args.wal_key_file.as_deref().map(read_key_file).transpose();
    let key = key.map_err(|error| Failure::new(Exit::Usage, error.to_string()).solution(error.solution()))?;
    let path = args.directory.display();
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("cannot read the log in {path}: {error}"))
    };
    let directory = LogDirectory::open(&args.directory)
        .map_err(|error| unreadable(&error).solution("name the folder `wal` of the gateway's data folder"))?;
    let mut lanes = directory.lanes().map_err(|error| unreadable(&error))?;
    if lanes.is_empty() {
        return Err(no_log(&args.directory));
    }
    if let Some(wanted) = args.lane {
        if !lanes.contains(&LaneId(wanted)) {
            let known: Vec<_> = lanes.iter().map(|lane| lane.0).collect();
            let failure = Failure::new(Exit::Usage, format!("there is no lane {wanted} in {path}"));
            return Err(failure.solution(format!("the lanes there are {known:?}")));
        }
        lanes = vec![LaneId(wanted)];
    }
    let mut images = Vec::new();
    for lane in lanes {
        let image = directory.lane(lane, key.as_ref()).map_err(|error| {
            if !is_in_use(&error) {
                return unreadable(&error);
            }
            let failure = Failure::new(Exit::Usage, format!("a gateway has lane {lane} of {path} open"));
            failure.solution("stop the gateway first, or work on a snapshot of its file system")
        })?;
        check_key(args, key.as_ref(), &image)?;
        images.push(image);
    }
    Ok(images)
}

fn no_log(directory: &Path) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("there is no log in {}", directory.display()));
    let inner = directory.join("wal");
    let has_lanes = LogDirectory::open(&inner).and_then(|inner| inner.lanes());
    if has_lanes.is_ok_and(|lanes| !lanes.is_empty()) {
        failure.solution(format!("the folder with the log is {}", inner.display()))
    } else {
        failure.solution("name the folder `wal` of the gateway's data folder; no gateway has made a log here")
    }
}

fn check_key(args: &LogArgs, key: Option<&KeyEncryptionKey>, image: &LaneImage) -> Result<(), Failure> {
    let (Some(key), Some(path)) = (key, &args.wal_key_file) else {
        return Ok(());
    };
    if let Some(KeyError::OtherKey(id)) = image.key_problem() {
        let (lane, given, wanted) = (image.lane, hex(&key.id), hex(&id));
        let message = format!(
            "lane {lane} is encrypted under key {wanted}, and {} holds key {given}",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, message)
            .solution("name the right key file, or none to check what can be checked without"));
    }
    Ok(())
}

fn kind_word(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Strong => "strong",
        RecordKind::Eventual => "eventual",
        RecordKind::Checkpoint => "checkpoint",
        RecordKind::Cut => "cut",
    }
}

fn state_word(state: GroupState) -> &'static str {
    match state {
        GroupState::Recycled => "recycled",
        GroupState::Good => "good",
        GroupState::Behind => "behind",
        GroupState::Cut => "cut",
    }
}
