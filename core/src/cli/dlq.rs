//! `prism dlq`: list, show, redrive and drop dead letters, which are acknowledged writes that the
//! store refuses for ever.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Subcommand;
use prism_codec::method::DeadLettersMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use serde_json::{Value, json};

use super::output::{Printer, show_time};
use super::{Failure, Global, connect};

#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters, oldest first
    List {
        /// Only those of this namespace
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Show one dead letter and its request
    Show {
        /// Number of the letter, the first column of `prism dlq list`
        #[arg(value_parser = letter_number)]
        number: u64,
    },
    /// Apply the write once more; the letter is gone if the store takes it
    Redrive {
        /// Number of the letter, the first column of `prism dlq list`
        #[arg(value_parser = letter_number)]
        number: u64,
    },
    /// Give the write up
    Drop {
        /// Number of the letter, the first column of `prism dlq list`
        #[arg(value_parser = letter_number)]
        number: u64,
    },
}

pub(super) fn run(command: &DlqCommand, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        DlqCommand::List { namespace } => list(namespace.as_deref().unwrap_or_default(), global, printer),
        DlqCommand::Show { number } => show(*number, global, printer),
        DlqCommand::Redrive { number } => {
            let request = admin::DeadLettersRedriveRequest { number: *number };
            let _: admin::DeadLettersRedriveResponse =
                connect(global)?.unary(DeadLettersMethod::Redrive.spec().path, &request)?;
            tell(printer, *number, "redriven", "applied")
        }
        DlqCommand::Drop { number } => {
            let request = admin::DeadLettersDropRequest { number: *number };
            let _: admin::DeadLettersDropResponse =
                connect(global)?.unary(DeadLettersMethod::Drop.spec().path, &request)?;
            tell(printer, *number, "dropped", "dropped")
        }
    }
}

fn letter_number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| {
        "a dead letter's number is a whole number from 1, the first column of `prism dlq list`".to_owned()
    })
}

fn tell(printer: &mut Printer, number: u64, key: &str, verb: &str) -> Result<(), Failure> {
    if printer.is_json() {
        return printer.json(&json!({ key: number }));
    }
    printer.done(&format!("Dead letter {number} {verb}"))
}

fn list(namespace: &str, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = connect(global)?;
    let mut letters = Vec::new();
    let mut after = 0;
    loop {
        let request = admin::DeadLettersListRequest {
            namespace: namespace.to_owned(),
            page_size: 1_000,
            after,
        };
        let reply: admin::DeadLettersListResponse =
            client.unary(DeadLettersMethod::List.spec().path, &request)?;
        letters.extend(reply.dead_letters);
        after = reply.next_after;
        if after == 0 {
            break;
        }
    }
    if printer.is_json() {
        let all: Vec<_> = letters.iter().map(letter_json).collect();
        return printer.json(&json!({ "dead_letters": all }));
    }
    if letters.is_empty() {
        printer.note("there are no dead letters");
        return Ok(());
    }
    for letter in &letters {
        printer.line(&format!(
            "{}  {}  {} {}  {} bytes  {}  {}",
            letter.number,
            letter.namespace,
            letter.method,
            letter.id,
            letter.bytes,
            time(letter),
            letter.reason
        ))?;
    }
    Ok(())
}

fn show(number: u64, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = admin::DeadLettersGetRequest { number };
    let reply: admin::DeadLettersGetResponse =
        connect(global)?.unary(DeadLettersMethod::Get.spec().path, &request)?;
    let letter = reply.dead_letter.unwrap_or_default();
    if printer.is_json() {
        let mut value = letter_json(&letter);
        value["request"] = Value::String(STANDARD.encode(&reply.request));
        return printer.json(&value);
    }
    printer.line(&format!("number: {}", letter.number))?;
    printer.line(&format!("namespace: {}", letter.namespace))?;
    printer.line(&format!("lane: {}", letter.lane))?;
    printer.line(&format!("lsn: {}", letter.lsn))?;
    printer.line(&format!("refused: {}", time(&letter)))?;
    printer.line(&format!("reason: {}", letter.reason))?;
    printer.line(&format!("method: {}", letter.method))?;
    printer.line(&format!("id: {}", letter.id))?;
    printer.line(&format!("request: base64:{}", STANDARD.encode(&reply.request)))
}

fn time(letter: &admin::DeadLetter) -> String {
    letter.time.as_ref().map_or_else(|| "-".to_owned(), show_time)
}

fn letter_json(letter: &admin::DeadLetter) -> Value {
    json!({
        "number": letter.number,
        "namespace": letter.namespace,
        "lane": letter.lane,
        "lsn": letter.lsn,
        "time": letter.time.as_ref().map(show_time),
        "reason": letter.reason,
        "method": letter.method,
        "id": letter.id,
        "bytes": letter.bytes,
    })
}
