//! `prism.admin.v1.DeadLetters`: what an operator may do with acknowledged writes that the store
//! refuses for ever.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use prism_backends::{NamespaceId, StoreError, sqlite::OwnedDeadLetter};
use prism_codec::{
    grpc::{Code, Status},
    method::DeadLettersMethod,
    proto::prism::admin::v1::{
        DeadLetter, DeadLettersDropRequest, DeadLettersDropResponse, DeadLettersGetRequest,
        DeadLettersGetResponse, DeadLettersListRequest, DeadLettersListResponse, DeadLettersRedriveRequest,
        DeadLettersRedriveResponse,
    },
};
use prost::Message;

use super::{Call, Control, decode, provision::Task};
use crate::{
    api,
    call::{error, job::DeadLetterJob, record::LoggedWrite, ticket::Ticket},
    control::service::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX},
};

/// Calls about dead letters that wait for a store, at the most.
pub(super) const CALLS_MAX: usize = 256;

/// The calls that wait for a store.
#[derive(Debug, Default)]
pub(crate) struct DeadLetterCalls {
    next: u64,
    open: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    call: Call,
    question: Question,
}

/// A question, and what is needed to answer it.
#[derive(Debug)]
enum Question {
    /// A page of so many.
    List {
        size: u32,
        names: HashMap<u32, String>,
    },
    Get {
        number: u64,
        names: HashMap<u32, String>,
    },
    Redrive {
        number: u64,
    },
    Drop {
        number: u64,
    },
}

impl DeadLetterCalls {
    /// When [`DeadLetterCalls::expired`] is wanted next.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.open.values().map(|waiting| waiting.call.answer_by).min()
    }

    /// Takes the calls whose time is over, with their answers.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(Ticket, Box<Status>)> {
        let late = |_: &u64, waiting: &mut Waiting| waiting.call.answer_by <= now;
        let expired = self.open.extract_if(.., late);
        expired
            .map(|(_, waiting)| (waiting.call.ticket, no_answer(&waiting.question)))
            .collect()
    }
}

impl Control {
    /// Asks the store; its answer comes as an event.
    pub(super) fn ask_dead_letters(
        &mut self,
        call: Call,
        method: DeadLettersMethod,
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, Box<Status>> {
        let (question, job) = match method {
            DeadLettersMethod::List => self.list_dead_letters(&decode(body)?)?,
            DeadLettersMethod::Get => {
                let DeadLettersGetRequest { number } = decode(body)?;
                let names = self.names()?;
                (Question::Get { number, names }, DeadLetterJob::Get(number))
            }
            DeadLettersMethod::Redrive => {
                let DeadLettersRedriveRequest { number } = decode(body)?;
                (Question::Redrive { number }, DeadLetterJob::Redrive(number))
            }
            DeadLettersMethod::Drop => {
                let DeadLettersDropRequest { number } = decode(body)?;
                (Question::Drop { number }, DeadLetterJob::Drop(number))
            }
        };
        let calls = &mut self.dead_letters;
        let ask = calls.next;
        if calls.open.len() >= CALLS_MAX || !self.links.dead_letters().submit(Task::DeadLetters { ask, job })
        {
            return Err(error::overloaded(
                "too many calls about dead letters wait for the store",
            ));
        }
        calls.next += 1;
        calls.open.insert(ask, Waiting { call, question });
        Ok(None)
    }

    /// The store has answered.
    pub(super) fn handle_dead_letters(&mut self, ask: u64, result: Result<Vec<OwnedDeadLetter>, StoreError>) {
        // Nobody waits any longer if it is not there.
        if let Some(Waiting { call, question }) = self.dead_letters.open.remove(&ask) {
            let result = result.map_err(|cause| error::from_store(&cause));
            self.reply(call.ticket, result.and_then(|letters| answer(&question, letters)));
        }
    }

    fn list_dead_letters(
        &self,
        request: &DeadLettersListRequest,
    ) -> Result<(Question, DeadLetterJob), Box<Status>> {
        let size = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size @ 1..=PAGE_SIZE_MAX => size,
            size => {
                return Err(error::invalid(
                    "page_size",
                    &format!("is {size}; allowed: 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}"),
                ));
            }
        };
        let names = self.names()?;
        let namespace = match request.namespace.as_str() {
            "" => None,
            name => Some(
                names
                    .iter()
                    .find(|(_, known)| *known == name)
                    .map(|(id, _)| NamespaceId(*id))
                    .ok_or_else(|| error::unknown_namespace(name))?,
            ),
        };
        // One more than requested shows whether there is another page.
        let job = DeadLetterJob::List {
            namespace,
            after: request.after,
            limit: size + 1,
        };
        Ok((Question::List { size, names }, job))
    }

    /// The names of all namespaces, by number.
    fn names(&self) -> Result<HashMap<u32, String>, Box<Status>> {
        let entries = self
            .catalog
            .entries()
            .map_err(|cause| Box::new(Status::new(Code::Unavailable, cause.to_string())))?;
        Ok(entries.into_iter().map(|entry| (entry.id, entry.name)).collect())
    }
}

fn answer(question: &Question, mut letters: Vec<OwnedDeadLetter>) -> Result<Vec<u8>, Box<Status>> {
    let one = |letters: &mut Vec<OwnedDeadLetter>, number| letters.pop().ok_or_else(|| unknown(number));
    match question {
        Question::List { size, names } => {
            let more = letters.len() > *size as usize;
            letters.truncate(*size as usize);
            let next_after = letters.last().filter(|_| more).map_or(0, |last| last.number);
            Ok(DeadLettersListResponse {
                dead_letters: letters.iter().map(|letter| message(letter, names)).collect(),
                next_after,
            }
            .encode_to_vec())
        }
        Question::Get { number, names } => {
            let letter = one(&mut letters, *number)?;
            let request = read(&letter).map_or(&letter.record[..], |logged| logged.body);
            Ok(DeadLettersGetResponse {
                request: request.to_vec(),
                dead_letter: Some(message(&letter, names)),
            }
            .encode_to_vec())
        }
        Question::Redrive { number } => {
            one(&mut letters, *number)?;
            tracing::info!(number, "dead letter applied");
            Ok(DeadLettersRedriveResponse {}.encode_to_vec())
        }
        Question::Drop { number } => {
            one(&mut letters, *number)?;
            tracing::info!(number, "dead letter dropped");
            Ok(DeadLettersDropResponse {}.encode_to_vec())
        }
    }
}

#[cold]
fn unknown(number: u64) -> Box<Status> {
    let sentence = format!("there is no dead letter {number}; `prism dlq list` shows those there are");
    let status = Status::new(Code::NotFound, sentence);
    Box::new(status.with_reason("DEAD_LETTER_UNKNOWN", &[("number", &number.to_string())]))
}

#[cold]
fn no_answer(question: &Question) -> Box<Status> {
    let effect = match question {
        Question::List { .. } | Question::Get { .. } => "",
        Question::Redrive { .. } | Question::Drop { .. } => {
            "; whether it was done is not known: `prism dlq list` shows whether the letter is still there"
        }
    };
    let sentence = format!("the store does not answer in time{effect}");
    Box::new(Status::new(Code::DeadlineExceeded, sentence).with_reason("STORE_BUSY", &[]))
}

fn read(letter: &OwnedDeadLetter) -> Option<LoggedWrite<'_>> {
    LoggedWrite::decode(letter.position.namespace, &letter.record).ok()
}

fn message(letter: &OwnedDeadLetter, names: &HashMap<u32, String>) -> DeadLetter {
    let position = letter.position;
    let logged = read(letter);
    // One that changes many has no id of its own.
    let footprint = logged.as_ref().and_then(|logged| api::footprint(logged).ok());
    let id = match footprint.as_ref().map(|footprint| footprint.keys.as_slice()) {
        Some([id]) => id,
        _ => "",
    };
    let milliseconds = i64::try_from(letter.time.0).unwrap_or(i64::MAX);
    DeadLetter {
        number: letter.number,
        namespace: names
            .get(&position.namespace.0)
            .cloned()
            .unwrap_or_else(|| format!("#{}", position.namespace.0)),
        lane: position.lane,
        lsn: position.lsn,
        time: Some(prost_types::Timestamp {
            seconds: milliseconds / 1_000,
            nanos: i32::try_from(milliseconds % 1_000 * 1_000_000).unwrap_or(0),
        }),
        reason: letter.reason.clone(),
        method: logged
            .as_ref()
            .map_or_else(String::new, |logged| logged.method.spec().name.to_owned()),
        id: id.to_owned(),
        bytes: logged.map_or(letter.record.len(), |logged| logged.body.len()) as u64,
    }
}
