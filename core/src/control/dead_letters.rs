//! `prism.admin.v1.DeadLetters`: what an operator may do with acknowledged writes that the store refuses for ever.

use std::collections::HashMap;

use prism_backends::{NamespaceId, sqlite::OwnedDeadLetter};
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

use super::{Control, decode};
use crate::{
    api,
    call::{
        error,
        job::{DeadLetterJob, WriterMessage},
        record::LoggedWrite,
    },
    control::service::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX},
};

impl Control {
    pub(super) fn dead_letters(
        &self,
        method: DeadLettersMethod,
        body: &[u8],
    ) -> Result<Vec<u8>, Box<Status>> {
        match method {
            DeadLettersMethod::List => self.list_dead_letters(&decode(body)?),
            DeadLettersMethod::Get => {
                let DeadLettersGetRequest { number } = decode(body)?;
                let letter = self.one_dead_letter(number, DeadLetterJob::Get(number))?;
                let request = read(&letter).map_or(&letter.record[..], |logged| logged.body);
                Ok(DeadLettersGetResponse {
                    request: request.to_vec(),
                    dead_letter: Some(message(&letter, &self.names()?)),
                }
                .encode_to_vec())
            }
            DeadLettersMethod::Redrive => {
                let DeadLettersRedriveRequest { number } = decode(body)?;
                self.one_dead_letter(number, DeadLetterJob::Redrive(number))?;
                tracing::info!(number, "dead letter applied");
                Ok(DeadLettersRedriveResponse {}.encode_to_vec())
            }
            DeadLettersMethod::Drop => {
                let DeadLettersDropRequest { number } = decode(body)?;
                self.one_dead_letter(number, DeadLetterJob::Drop(number))?;
                tracing::info!(number, "dead letter dropped");
                Ok(DeadLettersDropResponse {}.encode_to_vec())
            }
        }
    }

    fn list_dead_letters(&self, request: &DeadLettersListRequest) -> Result<Vec<u8>, Box<Status>> {
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
        // One more than asked for tells whether there is another page.
        let job = DeadLetterJob::List {
            namespace,
            after: request.after,
            limit: size + 1,
        };
        let mut letters = self.ask(job)?;
        let more = letters.len() > size as usize;
        letters.truncate(size as usize);
        let next_after = letters.last().filter(|_| more).map_or(0, |last| last.number);
        Ok(DeadLettersListResponse {
            dead_letters: letters.iter().map(|letter| message(letter, &names)).collect(),
            next_after,
        }
        .encode_to_vec())
    }

    fn one_dead_letter(&self, number: u64, job: DeadLetterJob) -> Result<OwnedDeadLetter, Box<Status>> {
        self.ask(job)?.pop().ok_or_else(|| {
            Box::new(
                Status::new(
                    Code::NotFound,
                    format!("there is no dead letter {number}; `prism dlq list` shows those there are"),
                )
                .with_reason("DEAD_LETTER_UNKNOWN", &[("number", &number.to_string())]),
            )
        })
    }

    fn ask(&self, job: DeadLetterJob) -> Result<Vec<OwnedDeadLetter>, Box<Status>> {
        self.store(|done| WriterMessage::DeadLetters(job, done))
            .map_err(|cause| error::from_store(&cause))
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
        lane: position.stream,
        lsn: position.position,
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
