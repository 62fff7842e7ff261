//! `prism kv`: items of a keyvalue namespace, one command each for put, get, delete, scan, mutate
//! and cas.
//!
//! Keys and values are UTF-8 or `base64:…`, both ways; see [`super::output`].

mod mutate;
pub(super) mod token;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use prism_backends::limits::VALUE_BYTES_MAX;
use prism_codec::method::KeyValueMethod;
use prism_codec::proto::prism::common::v1::{Durability, WriteResult};
use prism_codec::proto::prism::keyvalue::v1 as keyvalue;
use prism_core::client::{Client, ClientError};
use serde_json::{Map, Value, json};

use keyvalue::{compare_and_swap_request::Expected, predicate::Kind};

use mutate::MutateArgs;
use token::TokenArgs;

use super::output::{Printer, insert_bytes, is_printable_text, parse_bytes, show_bytes};
use super::{Exit, Failure, Global, connect, duration};

/// Bytes of an argument.
#[derive(Clone, Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_bytes(text).map(Self)
    }
}

const BYTES_HELP: &str = "\
Keys and values are text, or base64:… for any bytes; what is not printable comes back as base64:…";

// Made by hand: clap would put a required choice of options before the namespace.
const DELETE_USAGE: &str = "\
prism kv delete [OPTIONS] <NAMESPACE> <ID> <KEY>...
       prism kv delete [OPTIONS] <NAMESPACE> <ID> --range <A..B>
       prism kv delete [OPTIONS] <NAMESPACE> <ID> --all";
const MUTATE_USAGE: &str = "\
prism kv mutate [OPTIONS] <NAMESPACE> --put <ID> <KEY=VALUE> --delete <ID> <KEY> ...
       prism kv mutate [OPTIONS] <NAMESPACE> --from <FILE>";
const CAS_USAGE: &str = "\
prism kv cas [OPTIONS] <NAMESPACE> <ID> <KEY> <VALUE> --expect <VALUE>
       prism kv cas [OPTIONS] <NAMESPACE> <ID> <KEY> <VALUE> --expect-absent
       prism kv cas [OPTIONS] <NAMESPACE> <ID> <KEY> <VALUE> --expect-version <VERSION>
       prism kv cas [OPTIONS] <NAMESPACE> <ID> <KEY> --delete --expect <VALUE>";

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Write items under one id
    #[command(after_help = BYTES_HELP)]
    Put(PutArgs),
    /// Read items of one id, in the order of their keys
    #[command(after_help = BYTES_HELP)]
    Get(GetArgs),
    /// Delete items of one id
    #[command(after_help = BYTES_HELP, override_usage = DELETE_USAGE)]
    Delete(DeleteArgs),
    /// Read a whole namespace
    #[command(after_help = BYTES_HELP)]
    Scan(ScanArgs),
    /// Write and delete items of many ids
    #[command(after_help = mutate::HELP, override_usage = MUTATE_USAGE)]
    Mutate(MutateArgs),
    /// Compare and swap: replace a value if it is what you expect
    #[command(after_help = BYTES_HELP, override_usage = CAS_USAGE)]
    Cas(CasArgs),
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The namespace
    namespace: String,
    /// The id that the items belong to
    id: String,
    /// Key of the item
    #[arg(required_unless_present = "item")]
    key: Option<Bytes>,
    /// Value of the item
    #[arg(required_unless_present_any = ["item", "value_file"])]
    value: Option<Bytes>,
    /// Take the value from a file; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "value", requires = "key")]
    value_file: Option<PathBuf>,
    /// One more item, in the same write; may be repeated. The key ends at the first "="
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    item: Vec<(Bytes, Bytes)>,
    /// The items disappear after this long, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The namespace
    namespace: String,
    /// The id that the items belong to
    id: String,
    /// Only these keys; with exactly one the value alone is printed
    #[arg(conflicts_with = "range")]
    key: Vec<Bytes>,
    /// Only keys from A up to, not including, B; either may be empty
    #[arg(long, value_name = "A..B", value_parser = range)]
    range: Option<(Bytes, Bytes)>,
    /// At most this many items
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Write the value of the one key byte for byte, without a line end
    #[arg(long, requires = "key")]
    raw: bool,
    /// Print the version of each item, and a tab, in front of it; `kv cas` takes it
    #[arg(long, conflicts_with = "raw")]
    with_version: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["key", "range", "all"])))]
pub(super) struct DeleteArgs {
    /// The namespace
    namespace: String,
    /// The id that the items belong to
    id: String,
    /// The keys
    key: Vec<Bytes>,
    /// All keys from A up to, not including, B; either may be empty
    #[arg(long, value_name = "A..B", value_parser = range)]
    range: Option<(Bytes, Bytes)>,
    /// All items of the id
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// The namespace
    namespace: String,
    /// At most this many items
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("expected").required(true).args(["expect", "expect_absent", "expect_version"])))]
pub(super) struct CasArgs {
    /// The namespace
    namespace: String,
    /// The id that the item belongs to
    id: String,
    /// Key of the item
    key: Bytes,
    /// The new value
    #[arg(required_unless_present = "delete")]
    value: Option<Bytes>,
    /// Swap if the item has exactly this value
    #[arg(long, value_name = "VALUE")]
    expect: Option<Bytes>,
    /// Swap if there is no such item
    #[arg(long)]
    expect_absent: bool,
    /// Swap if the item is as it was when `kv get` printed this version
    #[arg(long, value_name = "VERSION")]
    expect_version: Option<Bytes>,
    /// Delete the item instead of giving it a new value
    #[arg(long, conflicts_with_all = ["value", "expect_absent"])]
    delete: bool,
    /// The new item disappears after this long, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = ttl, conflicts_with = "delete")]
    ttl: Option<Duration>,
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) fn run(command: &KvCommand, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        KvCommand::Put(args) => put(args, global, printer),
        KvCommand::Get(args) => get(args, global, printer),
        KvCommand::Delete(args) => delete(args, global, printer),
        KvCommand::Scan(args) => scan(args, global, printer),
        KvCommand::Mutate(args) => mutate::run(args, global, printer),
        KvCommand::Cas(args) => cas(args, global, printer),
    }
}

fn put(args: &PutArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let ttl = args.ttl.map(duration_message);
    let item = |key: &[u8], value: Vec<u8>| keyvalue::Item {
        key: key.to_vec(),
        value,
        ttl,
        compression: 0,
        version: Vec::new(),
    };
    let mut items = Vec::new();
    if let Some(Bytes(key)) = &args.key {
        let value = match (&args.value, &args.value_file) {
            (Some(Bytes(value)), _) => value.clone(),
            (None, Some(path)) => read_value(path)?,
            (None, None) => {
                let failure = Failure::new(Exit::Usage, "the key has no value");
                return Err(failure.solution("give VALUE or --value-file, or only --item KEY=VALUE"));
            }
        };
        items.push(item(key, value));
    }
    items.extend(args.item.iter().map(|(key, value)| item(&key.0, value.0.clone())));
    let count = items.len();
    let request = keyvalue::PutRequest {
        namespace: args.namespace.clone(),
        id: args.id.clone(),
        idempotency_token: args.token.message(),
        items,
    };
    let reply: keyvalue::PutResponse = connect(global)?.unary(KeyValueMethod::Put.spec().path, &request)?;
    written(
        printer,
        &format!("{count} {} written", plural(count)),
        reply.result,
    )
}

fn get(args: &GetArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let single = args.key.len() == 1;
    if args.raw && !single {
        return Err(Failure::new(
            Exit::Usage,
            "--raw writes one value; name exactly one key",
        ));
    }
    let mut client = connect(global)?;
    let mut left = args.limit;
    let mut found = 0_usize;
    let mut all = Vec::new();
    let mut page_token = Vec::new();
    loop {
        let selection = keyvalue::Selection {
            page_bytes: 0,
            item_limit: left.unwrap_or(0),
            page_token,
        };
        let request = keyvalue::GetRequest {
            namespace: args.namespace.clone(),
            id: args.id.clone(),
            predicate: predicate(&args.key, args.range.as_ref()),
            selection: Some(selection),
        };
        let reply = client.unary(KeyValueMethod::Get.spec().path, &request);
        let reply: keyvalue::GetResponse = match reply {
            Err(error) if found > 0 && is_of_the_connection(&error) => {
                client = connect(global)?;
                client.unary(KeyValueMethod::Get.spec().path, &request)?
            }
            reply => reply?,
        };
        found += reply.items.len();
        for item in &reply.items {
            if args.with_version && !printer.is_json() {
                printer.raw(format!("{}\t", show_bytes(&item.version)).as_bytes())?;
            }
            match (printer.is_json(), single) {
                (true, _) => all.push(Value::Object(item_json(item))),
                (false, true) if args.raw => printer.raw(&item.value)?,
                (false, true) => print_value(printer, &item.value)?,
                (false, false) => {
                    printer.line(&format!("{}\t{}", show_bytes(&item.key), show_bytes(&item.value)))?
                }
            }
        }
        left = left.map(|left| left.saturating_sub(u32::try_from(reply.items.len()).unwrap_or(u32::MAX)));
        page_token = reply.next_page_token;
        if page_token.is_empty() || left == Some(0) {
            break;
        }
    }
    if printer.is_json() {
        printer.json(&json!({ "items": all }))?;
        return if found == 0 {
            Err(Failure::silent(Exit::No))
        } else {
            Ok(())
        };
    }
    if found == 0 {
        let what = format!(
            "nothing found in namespace {} under id {}",
            args.namespace,
            show_bytes(args.id.as_bytes())
        );
        return Err(Failure::new(Exit::No, what));
    }
    Ok(())
}

fn delete(args: &DeleteArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = keyvalue::DeleteRequest {
        namespace: args.namespace.clone(),
        id: args.id.clone(),
        idempotency_token: args.token.message(),
        predicate: predicate(&args.key, args.range.as_ref()),
    };
    let reply: keyvalue::DeleteResponse =
        connect(global)?.unary(KeyValueMethod::Delete.spec().path, &request)?;
    written(printer, "deleted", reply.result)
}

/// Prints a whole namespace. The reader of the output may take any time: where the connection ends
/// meanwhile, a new one goes on after the last page.
fn scan(args: &ScanArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut left = args.limit.map_or(u64::MAX, u64::from);
    let mut page_token = Vec::new();
    loop {
        let asked = page_token.clone();
        let ended = scan_from(args, connect(global)?, &mut page_token, &mut left, printer)?;
        match ended {
            Err(error) if left > 0 && page_token != asked && is_of_the_connection(&error) => {}
            Err(error) if left > 0 => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

/// Prints from `page_token` on, which becomes the token after the last page that was printed; how
/// the call ended.
fn scan_from(
    args: &ScanArgs,
    mut client: Client,
    page_token: &mut Vec<u8>,
    left: &mut u64,
    printer: &mut Printer,
) -> Result<Result<(), ClientError>, Failure> {
    let selection = keyvalue::Selection {
        page_bytes: 0,
        // Pages need not be larger than what is asked for.
        item_limit: args.limit.unwrap_or(0),
        page_token: page_token.clone(),
    };
    let request = keyvalue::ScanRequest {
        namespace: args.namespace.clone(),
        selection: Some(selection),
    };
    let mut printed = Ok(());
    let ended = client.server_streaming(
        KeyValueMethod::Scan.spec().path,
        &request,
        |page: keyvalue::ScanResponse| {
            printed = print_page(&page, left, printer);
            *page_token = page.next_page_token;
            if printed.is_err() || *left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    printed.map(|()| ended)
}

fn print_page(page: &keyvalue::ScanResponse, left: &mut u64, printer: &mut Printer) -> Result<(), Failure> {
    for entry in &page.entries {
        for item in &entry.items {
            if *left == 0 {
                return Ok(());
            }
            *left -= 1;
            print_entry(printer, &entry.id, item)?;
        }
    }
    Ok(())
}

/// Whether a read may be tried again on a new connection: nothing is wrong with the question
/// itself.
fn is_of_the_connection(error: &ClientError) -> bool {
    const DEADLINE_EXCEEDED: i32 = 4;
    const UNAVAILABLE: i32 = 14;
    match error {
        ClientError::TimedOut { .. } | ClientError::Broken { .. } => true,
        ClientError::Status(status) => matches!(status.code, DEADLINE_EXCEEDED | UNAVAILABLE),
        ClientError::Address { .. }
        | ClientError::Credentials { .. }
        | ClientError::Untrusted { .. }
        | ClientError::Unreachable { .. } => false,
    }
}

fn print_entry(printer: &mut Printer, id: &str, item: &keyvalue::Item) -> Result<(), Failure> {
    if printer.is_json() {
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(id));
        object.extend(item_json(item));
        return printer.json(&Value::Object(object));
    }
    let (id, key, value) = (
        show_bytes(id.as_bytes()),
        show_bytes(&item.key),
        show_bytes(&item.value),
    );
    printer.line(&format!("{id}\t{key}\t{value}"))
}

fn cas(args: &CasArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let expected = match (&args.expect, &args.expect_version) {
        (Some(Bytes(value)), _) => Expected::Value(value.clone()),
        (None, Some(Bytes(version))) => Expected::Version(version.clone()),
        (None, None) => Expected::Absent(keyvalue::Absent {}),
    };
    let item = args.value.as_ref().map(|Bytes(value)| keyvalue::Item {
        key: Vec::new(),
        value: value.clone(),
        ttl: args.ttl.map(duration_message),
        compression: 0,
        version: Vec::new(),
    });
    let request = keyvalue::CompareAndSwapRequest {
        namespace: args.namespace.clone(),
        id: args.id.clone(),
        key: args.key.0.clone(),
        idempotency_token: args.token.message(),
        expected: Some(expected),
        item,
    };
    let path = KeyValueMethod::CompareAndSwap.spec().path;
    let reply: keyvalue::CompareAndSwapResponse = connect(global)?.unary(path, &request)?;
    if printer.is_json() {
        let current = reply.current.as_ref().map(item_json);
        printer.json(
            &json!({ "swapped": reply.swapped, "current": current, "result": result_json(reply.result) }),
        )?;
        return if reply.swapped {
            Ok(())
        } else {
            Err(Failure::silent(Exit::No))
        };
    }
    if reply.swapped {
        return printer.done("swapped");
    }
    let current = match &reply.current {
        Some(item) => format!("the value is {}", show_bytes(&item.value)),
        None => "there is no such item".to_owned(),
    };
    Err(Failure::new(Exit::No, format!("not swapped: {current}")))
}

fn predicate(keys: &[Bytes], range: Option<&(Bytes, Bytes)>) -> Option<keyvalue::Predicate> {
    let kind = match range {
        Some((start, end)) => Kind::Range(keyvalue::KeyRange {
            start: start.0.clone(),
            end: end.0.clone(),
        }),
        None if keys.is_empty() => Kind::All(keyvalue::All {}),
        None => Kind::Keys(keyvalue::KeySet {
            keys: keys.iter().map(|key| key.0.clone()).collect(),
        }),
    };
    Some(keyvalue::Predicate { kind: Some(kind) })
}

fn print_value(printer: &mut Printer, value: &[u8]) -> Result<(), Failure> {
    if !is_printable_text(value) {
        return printer.line(&show_bytes(value));
    }
    printer.raw(value)?;
    printer.raw(b"\n")
}

fn written(printer: &mut Printer, what: &str, result: Option<WriteResult>) -> Result<(), Failure> {
    if printer.is_json() {
        printer.json(&result_json(result))
    } else {
        printer.done(what)
    }
}

pub(super) fn result_json(result: Option<WriteResult>) -> Value {
    let result = result.unwrap_or_default();
    let durability = match result.durability() {
        Durability::Unspecified => "unspecified",
        Durability::BestEffort => "best-effort",
        Durability::Eventual => "eventual",
        Durability::Strong => "strong",
    };
    json!({ "durability": durability, "applied": result.applied, "lane": result.lane, "lsn": result.lsn })
}

fn item_json(item: &keyvalue::Item) -> Map<String, Value> {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &item.key);
    insert_bytes(&mut object, "value", &item.value);
    if let Some(ttl) = &item.ttl {
        object.insert(
            "ttl_seconds".to_owned(),
            json!(ttl.seconds as f64 + f64::from(ttl.nanos) / 1e9),
        );
    }
    if !item.version.is_empty() {
        object.insert("version".to_owned(), json!(BASE64.encode(&item.version)));
    }
    let compression = match item.compression() {
        keyvalue::Compression::Unspecified => return object,
        keyvalue::Compression::Gzip => "gzip",
        keyvalue::Compression::Zstd => "zstd",
        keyvalue::Compression::Lz4 => "lz4",
        keyvalue::Compression::Snappy => "snappy",
    };
    object.insert("compression".to_owned(), json!(compression));
    object
}

fn read_value(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let limit = VALUE_BYTES_MAX as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut value)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))
    };
    let name = path.display();
    match read {
        Ok(_) if value.len() > VALUE_BYTES_MAX => Err(Failure::new(
            Exit::Usage,
            format!("{name} is larger than the {VALUE_BYTES_MAX} bytes that a value may have"),
        )),
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::new(Exit::Usage, format!("cannot read {name}: {error}"))),
    }
}

fn duration_message(duration: Duration) -> prost_types::Duration {
    // Durations of arguments are at most 100 years, so both conversions hold.
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration {
        seconds,
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    duration(text, "a ttl must be longer than zero")
}

fn pair(text: &str) -> Result<(Bytes, Bytes), String> {
    // "=" also ends base64, so look for the first one after its padding.
    let start = if text.starts_with("base64:") {
        text.find("==").or_else(|| text.find('=')).unwrap_or(0)
    } else {
        0
    };
    let split = |at: usize| Some((text.get(..at)?, text.get(at + 1..)?));
    for (at, _) in text.match_indices('=').filter(|(at, _)| *at >= start) {
        if let Some((key, value)) = split(at)
            && let Ok(key) = parse_bytes(key)
        {
            return Ok((Bytes(key), Bytes(parse_bytes(value)?)));
        }
    }
    Err("write KEY=VALUE".to_owned())
}

fn range(text: &str) -> Result<(Bytes, Bytes), String> {
    let Some((start, end)) = text.split_once("..") else {
        return Err("write A..B, A.. or ..B".to_owned());
    };
    let (start, end) = (parse_bytes(start)?, parse_bytes(end)?);
    if !end.is_empty() && start >= end {
        return Err("the range is empty: its start must come before its end".to_owned());
    }
    Ok((Bytes(start), Bytes(end)))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "item" } else { "items" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_ranges() {
        let read = |text| pair(text).map(|(key, value)| (key.0, value.0));
        assert_eq!(read("a=b"), Ok((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(read("a=b=c"), Ok((b"a".to_vec(), b"b=c".to_vec())));
        assert_eq!(read("=b"), Ok((Vec::new(), b"b".to_vec())));
        assert_eq!(
            read("base64:/w===x"),
            Ok((vec![0xFF], b"x".to_vec())),
            "padding belongs to the key"
        );
        assert_eq!(read("base64:AAAA=x"), Ok((vec![0, 0, 0], b"x".to_vec())));
        assert_eq!(read("base64:AAA==x"), Ok((vec![0, 0], b"x".to_vec())));
        assert!(read("a").is_err());
        let read = |text| range(text).map(|(start, end)| (start.0, end.0));
        assert_eq!(read("a..b"), Ok((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(read(".."), Ok((Vec::new(), Vec::new())));
        assert_eq!(read("a.."), Ok((b"a".to_vec(), Vec::new())));
        assert!(read("b..a").is_err() && read("a..a").is_err() && read("a").is_err());
    }
}
