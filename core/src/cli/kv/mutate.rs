//! `prism kv mutate`: writes to many ids in few calls, from arguments or from JSON lines.
//!
//! Lines are those that `kv scan --output json` prints, so a namespace can be copied by a pipe.
//! Each mutation succeeds or fails by itself.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use prism_codec::grpc::Code;
use prism_codec::method::KeyValueMethod;
use prism_codec::proto::google::rpc::Status;
use prism_codec::proto::prism::keyvalue::v1 as keyvalue;
use prism_core::client::{Client, ClientError};
use prost::Message as _;
use serde_json::{Map, Value, json};

use keyvalue::{mutation::Operation, predicate::Kind};

use super::super::output::Printer;
use super::super::{Exit, Failure, Global, connect};
use super::token::TokenArgs;
use super::{duration_message, pair, parse_bytes, result_json, ttl};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["put", "delete", "delete_all", "from"])))]
pub(in crate::cli) struct MutateArgs {
    /// The namespace
    namespace: String,
    /// Write an item of an id; may be repeated. The key ends at the first "="
    #[arg(long, num_args = 2, value_names = ["ID", "KEY=VALUE"])]
    put: Vec<String>,
    /// Delete an item of an id; may be repeated
    #[arg(long, num_args = 2, value_names = ["ID", "KEY"])]
    delete: Vec<String>,
    /// Delete all items of an id; may be repeated
    #[arg(long, value_name = "ID")]
    delete_all: Vec<String>,
    /// Mutations as JSON lines, after those above; `-` for standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Items that bring no ttl of their own disappear after this long, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) const HELP: &str = "\
Each line of --from is one mutation, as `prism kv scan --output json` prints items:
  {\"id\": \"alice\", \"key_text\": \"theme\", \"value_text\": \"dark\", \"ttl_seconds\": 60}     write an item
  {\"id\": \"alice\", \"key_text\": \"theme\", \"delete\": true}                            delete an item
  {\"id\": \"alice\", \"delete\": true}                                               delete all items of the id
\"key\" and \"value\" hold base64 instead of text. Puts come before deletes; lines keep their order. More than 1,000
mutations are sent in several calls.

Example: prism kv scan old --output json | prism kv mutate new --from -";

/// Most mutations of one call; the gateway takes no more.
const MUTATIONS_MAX: usize = 1_000;
/// Bytes of mutations after which a call is sent although more would be allowed.
const CALL_BYTES: usize = 1 << 20;
/// Longest line, in bytes: a value of 16 MiB in base64, and its names.
const LINE_BYTES_MAX: usize = 24 << 20;

pub(super) fn run(args: &MutateArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut source = Source::open(args)?;
    let token = args.token.message();
    let mut client = connect(global)?;
    let mut tally = Tally::default();
    loop {
        let mutations = source.batch(token.is_some())?;
        if mutations.is_empty() {
            break;
        }
        let request = keyvalue::MutateRequest {
            namespace: args.namespace.clone(),
            idempotency_token: token.clone(),
            mutations,
        };
        let reply = send(&mut client, &request).map_err(|error| tally.stopped(Failure::from(error)))?;
        tally.take(&request, reply, printer)?;
    }
    tally.finish(printer)
}

fn send(
    client: &mut Client,
    request: &keyvalue::MutateRequest,
) -> Result<keyvalue::MutateResponse, ClientError> {
    client.unary(KeyValueMethod::Mutate.spec().path, request)
}

/// Results of the mutations so far.
#[derive(Default)]
struct Tally {
    sent: usize,
    refused: usize,
}

impl Tally {
    fn take(
        &mut self,
        request: &keyvalue::MutateRequest,
        reply: keyvalue::MutateResponse,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        for (mutation, result) in request.mutations.iter().zip(reply.results) {
            self.sent += 1;
            let status = result.status.unwrap_or_default();
            let refused = status.code != 0;
            self.refused += usize::from(refused);
            if printer.is_json() {
                printer.json(&outcome_json(&mutation.id, &status, result.result))?;
            } else if refused {
                printer.note(&format!(
                    "mutation {} (id {}) had no effect: {}",
                    self.sent, mutation.id, status.message
                ));
            }
        }
        Ok(())
    }

    /// A failure of a later call does not hide what the earlier ones did.
    fn stopped(&self, failure: Failure) -> Failure {
        if self.sent == 0 {
            return failure;
        }
        let message = format!("after {} mutations: {}", self.sent, failure.message);
        Failure { message, ..failure }
    }

    fn finish(&self, printer: &mut Printer) -> Result<(), Failure> {
        if self.refused > 0 && printer.is_json() {
            return Err(Failure::silent(Exit::No));
        }
        if self.refused > 0 {
            let what = format!("{} of {} mutations had no effect", self.refused, self.sent);
            return Err(Failure::new(Exit::No, what));
        }
        if printer.is_json() {
            return Ok(());
        }
        let plural = if self.sent == 1 { "" } else { "s" };
        printer.done(&format!("{} mutation{plural} done", self.sent))
    }
}

fn outcome_json(
    id: &str,
    status: &Status,
    result: Option<prism_codec::proto::prism::common::v1::WriteResult>,
) -> Value {
    if status.code == 0 {
        return json!({ "id": id, "result": result_json(result) });
    }
    json!({ "id": id, "error": { "code": Code::from_i32(status.code).name(), "message": status.message } })
}

/// Where mutations come from: arguments first, then lines.
struct Source {
    given: VecDeque<keyvalue::Mutation>,
    lines: Option<Box<dyn BufRead>>,
    name: String,
    line: usize,
    ttl: Option<prost_types::Duration>,
}

impl Source {
    fn open(args: &MutateArgs) -> Result<Self, Failure> {
        let ttl = args.ttl.map(duration_message);
        let lines: Option<Box<dyn BufRead>> = match args.from.as_deref() {
            None => None,
            Some(path) if path == Path::new("-") => Some(Box::new(BufReader::new(std::io::stdin()))),
            Some(path) => {
                let file = std::fs::File::open(path).map_err(|error| {
                    Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()))
                })?;
                Some(Box::new(BufReader::new(file)))
            }
        };
        Ok(Self {
            given: given(args, ttl)?,
            lines,
            name: match args.from.as_deref() {
                Some(path) if path != Path::new("-") => path.display().to_string(),
                _ => "standard input".to_owned(),
            },
            line: 0,
            ttl,
        })
    }

    /// The mutations of the next call; none at the end. `whole`: all there are, since they share a
    /// token.
    fn batch(&mut self, whole: bool) -> Result<Vec<keyvalue::Mutation>, Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < MUTATIONS_MAX && (whole || bytes < CALL_BYTES) {
            let Some(mutation) = self.next()? else {
                return Ok(batch);
            };
            bytes += mutation.encoded_len();
            batch.push(mutation);
        }
        if whole && self.next()?.is_some() {
            let what = format!("a token belongs to one call, which takes at most {MUTATIONS_MAX} mutations");
            return Err(Failure::new(Exit::Usage, what).solution("give fewer, or leave --token out"));
        }
        Ok(batch)
    }

    fn next(&mut self) -> Result<Option<keyvalue::Mutation>, Failure> {
        if let Some(mutation) = self.given.pop_front() {
            return Ok(Some(mutation));
        }
        loop {
            let Some(lines) = &mut self.lines else {
                return Ok(None);
            };
            let mut line = Vec::new();
            self.line += 1;
            let read = lines
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut line)
                .map_err(|error| self.wrong(&error.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(self.wrong(&format!("it has more than {LINE_BYTES_MAX} bytes")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match mutation(&line, self.ttl) {
                Ok(mutation) => Ok(Some(mutation)),
                Err(reason) => Err(self.wrong(&reason)),
            };
        }
    }

    fn wrong(&self, reason: &str) -> Failure {
        let failure = Failure::new(
            Exit::Usage,
            format!("{}, line {}: {reason}", self.name, self.line),
        );
        failure.solution("`prism kv mutate --help` shows what a line looks like")
    }
}

fn given(
    args: &MutateArgs,
    ttl: Option<prost_types::Duration>,
) -> Result<VecDeque<keyvalue::Mutation>, Failure> {
    let usage = |error: String| Failure::new(Exit::Usage, error);
    let mut all = VecDeque::new();
    for words in args.put.chunks_exact(2) {
        let (key, value) = pair(&words[1]).map_err(|error| usage(format!("--put {}: {error}", words[0])))?;
        all.push_back(put(words[0].clone(), key.0, value.0, ttl, 0));
    }
    for words in args.delete.chunks_exact(2) {
        let key = parse_bytes(&words[1]).map_err(|error| usage(format!("--delete {}: {error}", words[0])))?;
        all.push_back(delete(words[0].clone(), Some(key)));
    }
    for id in &args.delete_all {
        all.push_back(delete(id.clone(), None));
    }
    Ok(all)
}

fn put(
    id: String,
    key: Vec<u8>,
    value: Vec<u8>,
    ttl: Option<prost_types::Duration>,
    compression: i32,
) -> keyvalue::Mutation {
    let item = keyvalue::Item {
        key,
        value,
        ttl,
        compression,
        version: Vec::new(),
    };
    keyvalue::Mutation {
        id,
        operation: Some(Operation::Put(keyvalue::PutItems { items: vec![item] })),
    }
}

/// Deletes one key, or all of the id.
fn delete(id: String, key: Option<Vec<u8>>) -> keyvalue::Mutation {
    let kind = match key {
        Some(key) => Kind::Keys(keyvalue::KeySet { keys: vec![key] }),
        None => Kind::All(keyvalue::All {}),
    };
    let predicate = Some(keyvalue::Predicate { kind: Some(kind) });
    keyvalue::Mutation {
        id,
        operation: Some(Operation::Delete(keyvalue::DeleteItems { predicate })),
    }
}

/// Reads one line.
fn mutation(line: &[u8], ttl: Option<prost_types::Duration>) -> Result<keyvalue::Mutation, String> {
    // Lines of `kv scan` have a version, which a plain write does not look at.
    const KEYS: [&str; 9] = [
        "id",
        "key",
        "key_text",
        "value",
        "value_text",
        "ttl_seconds",
        "compression",
        "version",
        "delete",
    ];
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("it is no JSON object: {error}"))?;
    if let Some(unknown) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key {unknown:?}; allowed: {}", KEYS.join(", ")));
    }
    let id = match object.get("id") {
        Some(Value::String(id)) => id.clone(),
        _ => return Err("\"id\" must be a text".to_owned()),
    };
    let (key, value) = (bytes(&object, "key")?, bytes(&object, "value")?);
    let deletes = match object.get("delete") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err("\"delete\" must be true or false".to_owned()),
    };
    match (deletes, key, value) {
        (true, _, Some(_)) => Err("a line that deletes has no value".to_owned()),
        (true, key, None) => Ok(delete(id, key)),
        (false, Some(key), Some(value)) => {
            let ttl = line_ttl(&object)?.or(ttl);
            Ok(put(id, key, value, ttl, compression(&object)?))
        }
        (false, ..) => Err("a key and a value are needed, or \"delete\": true".to_owned()),
    }
}

/// The bytes of `name` in base64, or of `name_text` as they are.
fn bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let text = format!("{name}_text");
    match (object.get(name), object.get(&text)) {
        (Some(Value::String(encoded)), _) => match BASE64.decode(encoded) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!(
                "\"{name}\" is not base64: {error}; \"{text}\" takes text"
            )),
        },
        (Some(_), _) => Err(format!("\"{name}\" must be base64")),
        (None, Some(Value::String(text))) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(_)) => Err(format!("\"{text}\" must be a text")),
        (None, None) => Ok(None),
    }
}

fn line_ttl(object: &Map<String, Value>) -> Result<Option<prost_types::Duration>, String> {
    let Some(value) = object.get("ttl_seconds") else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match duration {
        Some(duration) => Ok(Some(duration_message(duration))),
        None => Err("\"ttl_seconds\" must be a number above zero".to_owned()),
    }
}

fn compression(object: &Map<String, Value>) -> Result<i32, String> {
    let kind = match object.get("compression").map(Value::as_str) {
        None => keyvalue::Compression::Unspecified,
        Some(Some("gzip")) => keyvalue::Compression::Gzip,
        Some(Some("zstd")) => keyvalue::Compression::Zstd,
        Some(Some("lz4")) => keyvalue::Compression::Lz4,
        Some(Some("snappy")) => keyvalue::Compression::Snappy,
        Some(_) => return Err("\"compression\" must be gzip, zstd, lz4 or snappy".to_owned()),
    };
    Ok(kind.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<keyvalue::Mutation, String> {
        mutation(line.as_bytes(), None)
    }

    #[test]
    fn lines_of_a_scan_are_read_back() {
        let line = r#"{"id":"a","key":"/w==","value":"AQI=","value_text":"ignored","ttl_seconds":1.5,"compression":"zstd"}"#;
        let ttl = Some(prost_types::Duration {
            seconds: 1,
            nanos: 500_000_000,
        });
        let zstd = keyvalue::Compression::Zstd.into();
        assert_eq!(read(line), Ok(put("a".into(), vec![0xFF], vec![1, 2], ttl, zstd)));
        assert_eq!(
            read(r#"{"id":"a","key_text":"k","value_text":""}"#),
            Ok(put("a".into(), b"k".to_vec(), Vec::new(), None, 0))
        );
        assert_eq!(
            read(r#"{"id":"a","key_text":"k","delete":true}"#),
            Ok(delete("a".into(), Some(b"k".to_vec())))
        );
        assert_eq!(read(r#"{"id":"a","delete":true}"#), Ok(delete("a".into(), None)));
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, word) in [
            ("[]", "no JSON object"),
            (r#"{"id":1}"#, "\"id\""),
            (r#"{"id":"a","key_text":"k"}"#, "a value"),
            (r#"{"id":"a","key":"?","value":""}"#, "not base64"),
            (r#"{"id":"a","key_text":1,"value":""}"#, "\"key_text\""),
            (r#"{"id":"a","delete":1}"#, "true or false"),
            (r#"{"id":"a","delete":true,"value":""}"#, "no value"),
            (r#"{"id":"a","key":"","value":"","ttl_seconds":0}"#, "above zero"),
            (r#"{"id":"a","key":"","value":"","compression":"br"}"#, "gzip"),
            (r#"{"id":"a","kee":"","value":""}"#, "unknown key"),
        ] {
            let reason = read(line).expect_err(line);
            assert!(reason.contains(word), "{line}: {reason}");
        }
    }
}
