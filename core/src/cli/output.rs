//! Output of the command line: text for people or JSON for programs, colours only where a person
//! looks.
//!
//! Bytes that are not printable UTF-8 appear as `base64:…`, which every argument for a key or value
//! understands, so that what was printed can be given back. Control characters never reach a
//! terminal.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prism_codec::grpc::Code;
use prism_codec::proto::google::rpc::{ErrorInfo, Status};
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::namespace::Problem;
use prism_core::namespace::problem::{PROBLEM_TYPE_URL, suggestions};
use prost::Message;
use serde_json::{Map, Value, json};

use super::{Exit, Failure, Form};

/// Writes results to standard output and failures to standard error.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    form: Form,
    out_colours: bool,
    error_colours: bool,
    /// A failure has been printed, from which the next one is set apart.
    failed: bool,
}

impl Printer {
    pub(super) fn new(form: Form) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let out_colours = wanted && io::stdout().is_terminal();
        let error_colours = wanted && io::stderr().is_terminal();
        Self {
            out: BufWriter::new(io::stdout()),
            form,
            out_colours,
            error_colours,
            failed: false,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// One line of text.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// `✓ what`.
    pub(super) fn done(&mut self, what: &str) -> Result<(), Failure> {
        let (on, off) = if self.out_colours {
            ("\x1b[32m", "\x1b[0m")
        } else {
            ("", "")
        };
        Ok(writeln!(self.out, "{on}✓{off} {what}")?)
    }

    /// One JSON value in one line.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{value}")?)
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// A remark next to the result, on standard error, so that it is in nobody's way. None with
    /// JSON.
    pub(super) fn note(&mut self, note: &str) {
        if !self.is_json() {
            let (on, off) = if self.error_colours {
                ("\x1b[33m", "\x1b[0m")
            } else {
                ("", "")
            };
            // A terminal shows both streams: earlier output comes out first. Nothing is left to be
            // done when one of them is gone.
            let _ = self.out.flush();
            let _ = writeln!(io::stderr(), "{on}Note:{off} {note}");
        }
    }

    /// Everything out: at the end, and wherever a program may wait for what was printed.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Says why a command did not succeed. What had been printed before comes out first.
    pub(super) fn failure(&mut self, failure: &Failure) {
        let _ = self.out.flush();
        if failure.message.is_empty() {
            return;
        }
        let mut text = if self.is_json() {
            failure_json(failure).to_string() + "\n"
        } else {
            self.failure_text(failure)
        };
        if self.failed && !self.is_json() {
            text.insert(0, '\n');
        }
        self.failed = true;
        if failure.exit == Exit::Serve {
            // Nobody may read what a gateway says, and its process must end all the same.
            prism_core::serve::last_words(&text);
        } else {
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }

    /// One block for each problem, or one for a failure without any: `Error:`, `Solution:`,
    /// `Where:`.
    fn failure_text(&self, failure: &Failure) -> String {
        let blocks: Vec<String> = match failure.problems.as_slice() {
            [] => vec![self.block(&failure.message, &failure.solution, "")],
            problems => problems
                .iter()
                .map(|problem| {
                    let place = place_of(&failure.place, problem);
                    self.block(&problem.description, &problem.suggestion, &place)
                })
                .collect(),
        };
        let mut text = blocks.join("\n");
        if failure.more > 0 {
            let (more, file) = (failure.more, &failure.place);
            text.push_str(&printable(&format!(
                "\n{more} more problems are not shown; `prism namespace validate {file}` shows all\n"
            )));
        }
        text
    }

    fn block(&self, message: &str, solution: &str, place: &str) -> String {
        let (on, off) = if self.error_colours {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let mut text = format!("{on}Error:{off} {}\n", printable(message));
        for (title, line) in [("Solution", solution), ("Where", place)] {
            if !line.is_empty() {
                text.push_str(&format!("{title}: {}\n", printable(line)));
            }
        }
        text
    }
}

/// `a.yaml, line 4, needs.write_rps`, leaving out what is not known.
fn place_of(file: &str, problem: &Problem) -> String {
    let line = match problem.line {
        0 => String::new(),
        line => format!("line {line}"),
    };
    let parts = [file, &line, &problem.field];
    let known: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    known.join(", ")
}

fn failure_json(failure: &Failure) -> Value {
    let mut error = Map::new();
    error.insert("message".into(), json!(failure.message));
    if let Some((code, reason)) = failure.status.as_deref() {
        error.insert("code".into(), json!(code));
        error.insert("reason".into(), json!(reason));
    }
    if !failure.solution.is_empty() {
        error.insert("solution".into(), json!(failure.solution));
    }
    if !failure.problems.is_empty() {
        let problems: Vec<_> = failure.problems.iter().map(problem_json).collect();
        error.insert("problems".into(), Value::Array(problems));
    }
    json!({ "error": error })
}

/// A problem of a file as JSON.
pub(super) fn problem_json(problem: &Problem) -> Value {
    json!({
        "field": problem.field,
        "description": problem.description,
        "suggestion": problem.suggestion,
        "line": problem.line,
    })
}

/// Failure that stands for the gateway's refusal.
pub(super) fn status_failure(status: &Status) -> Failure {
    let decode_problem = |bytes: &[u8]| admin::Problem::decode(bytes).ok();
    let problems = status
        .details
        .iter()
        .filter(|any| any.type_url == PROBLEM_TYPE_URL);
    let problems: Vec<_> = problems
        .filter_map(|any| decode_problem(&any.value))
        .map(problem_from)
        .collect();
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.ErrorInfo"));
    let info = info
        .and_then(|any| ErrorInfo::decode(any.value.as_slice()).ok())
        .unwrap_or_default();
    let code = Code::from_i32(status.code).name();
    let solution = match (info.reason.as_str(), problems.as_slice()) {
        ("NAMESPACE_EXISTS", _) => "Choose different name or use existing namespace".to_owned(),
        ("NAMESPACE_UNSUPPORTED", found) => suggestions(found),
        (_, [only]) => only.suggestion.clone(),
        (_, []) => default_solution(code, &info),
        _ => String::new(),
    };
    let message = match status.message.as_str() {
        "" => format!("the gateway answered {code}"),
        message => message.to_owned(),
    };
    // The sentence of an unsupported namespace names its problems already.
    let problems = if info.reason == "NAMESPACE_UNSUPPORTED" {
        Vec::new()
    } else {
        problems
    };
    let found = info.metadata.get("problems").and_then(|count| count.parse().ok());
    let more = found.unwrap_or(0_usize).saturating_sub(problems.len());
    let exit = if matches!(code, "UNAVAILABLE" | "DEADLINE_EXCEEDED") {
        Exit::Unreachable
    } else {
        Exit::No
    };
    let failure = Failure::new(exit, message).solution(solution);
    Failure {
        problems,
        more,
        status: Some(Box::new((code.to_owned(), info.reason))),
        ..failure
    }
}

fn default_solution(code: &str, info: &ErrorInfo) -> String {
    match code {
        "NOT_FOUND" if info.metadata.contains_key("namespace") => {
            "`prism namespace list` shows what exists; `prism namespace create FILE` makes a new one"
                .to_owned()
        }
        "RESOURCE_EXHAUSTED" => "send less, or try again later".to_owned(),
        "UNAVAILABLE" => "try again; if that does not help, look at the gateway's diagnostics".to_owned(),
        "DEADLINE_EXCEEDED" => "look at the gateway, or allow more time with --timeout".to_owned(),
        "UNIMPLEMENTED" => "check that --server is a Prism gateway of this version".to_owned(),
        _ => String::new(),
    }
}

/// The problem in a message of the gateway.
pub(super) fn problem_from(problem: admin::Problem) -> Problem {
    let admin::Problem {
        field,
        description,
        suggestion,
        line,
    } = problem;
    Problem {
        field,
        description,
        suggestion,
        line,
    }
}

/// Text from elsewhere without control characters, since a terminal would act on them.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() && letter != '\n' {
                '\u{FFFD}'
            } else {
                letter
            }
        })
        .collect()
}

/// Prefix of bytes that are given or printed as base64.
const BASE64_PREFIX: &str = "base64:";

/// Bytes as one line of text that [`parse_bytes`] reads back.
pub(super) fn show_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with(BASE64_PREFIX) && !text.chars().any(char::is_control) => {
            text.to_owned()
        }
        _ => format!("{BASE64_PREFIX}{}", BASE64.encode(bytes)),
    }
}

/// Whether a value may be printed as it is, over several lines if need be.
pub(super) fn is_printable_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        !text.starts_with(BASE64_PREFIX)
            && !text
                .chars()
                .any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t'))
    })
}

/// Bytes of an argument: its UTF-8, or what `base64:…` says.
pub(super) fn parse_bytes(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix(BASE64_PREFIX) {
        None => Ok(text.as_bytes().to_vec()),
        Some(encoded) => BASE64
            .decode(encoded)
            .map_err(|error| format!("not base64 after \"{BASE64_PREFIX}\": {error}")),
    }
}

/// `name` as base64, and `name_text` as well where the bytes are UTF-8.
pub(super) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    object.insert(name.to_owned(), json!(BASE64.encode(bytes)));
    if let Ok(text) = std::str::from_utf8(bytes) {
        object.insert(format!("{name}_text"), json!(text));
    }
}

/// A time as RFC 3339 in UTC, to the second: `2025-10-19T10:30:00Z`. Years beyond 9999 are not cut.
pub(super) fn show_time(time: &prost_types::Timestamp) -> String {
    let (days, second) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    // Civil date from days since 1970 in eras of 400 years that start in March, when the leap day
    // is the last one.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era.saturating_mul(400) + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_so_that_they_can_be_given_back() {
        let cases: [&[u8]; 8] = [
            b"",
            b"plain",
            "grün ✓".as_bytes(),
            b"a\nb",
            b"\xff\x00",
            b"base64:AAAA",
            b"\x1b[31m",
            b"tab\t",
        ];
        for bytes in cases {
            assert_eq!(parse_bytes(&show_bytes(bytes)).as_deref(), Ok(bytes));
            assert!(!show_bytes(bytes).contains(char::is_control));
        }
        assert_eq!(show_bytes(b"\xff\x00"), "base64:/wA=");
        assert!(parse_bytes("base64:?").is_err());
        assert!(
            is_printable_text(b"two\nlines") && !is_printable_text(b"\x1b") && !is_printable_text(b"\xff")
        );
    }

    #[test]
    fn times() {
        let show = |seconds| show_time(&prost_types::Timestamp { seconds, nanos: 0 });
        assert_eq!(show(0), "1970-01-01T00:00:00Z");
        assert_eq!(show(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(show(1_760_869_800), "2025-10-19T10:30:00Z");
        assert_eq!(show(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(show(-1), "1969-12-31T23:59:59Z");
        show(i64::MAX);
        show(i64::MIN);
    }

    #[test]
    fn a_refusal_keeps_the_literal_sentence_and_says_what_to_do() {
        let problem = admin::Problem {
            field: "needs.write_rps".into(),
            description: "Requested write_rps (100000) exceeds limit (50000)".into(),
            suggestion: "Contact platform team for capacity increase".into(),
            line: 5,
        };
        let any = prost_types::Any {
            type_url: PROBLEM_TYPE_URL.into(),
            value: problem.encode_to_vec(),
        };
        let status = Status {
            code: 3,
            message: problem.description.clone(),
            details: vec![any],
        };
        let printer = Printer {
            out: BufWriter::new(io::stdout()),
            form: Form::Text,
            out_colours: false,
            error_colours: false,
            failed: false,
        };
        let failure = Failure {
            place: "a.yaml".into(),
            ..status_failure(&status)
        };
        assert_eq!(
            printer.failure_text(&failure),
            "Error: Requested write_rps (100000) exceeds limit (50000)\n\
             Solution: Contact platform team for capacity increase\n\
             Where: a.yaml, line 5, needs.write_rps\n"
        );
        assert_eq!(failure.exit, Exit::No);
        let evil = Failure::new(Exit::No, "\x1b]0;title\x07");
        assert!(!printer.failure_text(&evil).contains('\x1b'));
    }
}
