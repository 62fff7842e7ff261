//! Batches of mutations: one call of the script for each namespace, all sent together.

use redis::{Cmd, Pipeline, Value};

use super::{KeyValue, check_state, digits, item_of, moment_of};
use crate::api::keyvalue::Writes;
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId};
use crate::mutation::{Expected, Found, ItemRef, Mutation, Operation, Outcome, OwnedItem, PredicateRef};
use crate::redis::connect::{
    Fault, LOOK_ANSWERS, Link, add_look, bytes, entries, facts_of, refusal, unexpected,
};
use crate::redis::positions;
use crate::redis::script::{self, Script};
use crate::swaps::{SwapCall, shown};
use crate::version::{version_bytes, version_of};

impl Writes for KeyValue {
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        let checked = batch.iter().map(|mutation| match mutation.check() {
            Ok(()) => Outcome::Applied,
            Err(error) => Outcome::Refused(error),
        });
        outcomes.extend(checked);
        let parts = parts_of(batch, at, outcomes);
        if parts.is_empty() {
            return Ok(());
        }
        let window_ms = self.links.window_ms();
        // The settings may change while the server runs; the next batch knows.
        let looks = self.links.is_look_due();
        let make = |link: &Link| {
            let mut asked = Pipeline::with_capacity(parts.len());
            for part in &parts {
                asked.add_command(part.call(link.name_of(Script::Write), batch, window_ms));
            }
            if looks {
                add_look(&mut asked);
            }
            asked
        };
        let answers = match self.links.run(make).await {
            Ok(answers) => answers,
            Err(fault) => {
                outcomes.clear();
                return Err(fault.into_store());
            }
        };
        if let (true, Some(seen)) = (looks, answers.len().checked_sub(LOOK_ANSWERS)) {
            self.links.note(facts_of(&answers[seen..]));
        }
        let mut refusals = 0;
        for (at, part) in parts.iter().enumerate() {
            let result = match answers.get(at) {
                Some(answer) => match refusal(answer) {
                    Some(fault) => Err(fault),
                    None => part.take(batch, answer, outcomes),
                },
                None => Err(unexpected(None)),
            };
            if let Err(fault) = result {
                let error = fault.into_store();
                refusals += 1;
                if refusals == parts.len() {
                    outcomes.clear();
                    return Err(error);
                }
                for number in &part.numbers {
                    outcomes[*number] = Outcome::Refused(error.clone());
                }
            }
        }
        Ok(())
    }
}

/// The mutations of one namespace.
struct Part<'p> {
    namespace: NamespaceId,
    /// Their places in the batch.
    numbers: Vec<usize>,
    at: Option<&'p LogPosition>,
}

fn parts_of<'p>(batch: &[Mutation<'_>], at: Option<&'p LogPosition>, outcomes: &[Outcome]) -> Vec<Part<'p>> {
    let mut parts: Vec<Part<'p>> = Vec::new();
    if let Some(at) = at {
        parts.push(Part {
            namespace: at.namespace,
            numbers: Vec::new(),
            at: Some(at),
        });
    }
    for (number, mutation) in batch.iter().enumerate() {
        // Also those that are refused by themselves, if they are alone: their namespace may be the
        // reason.
        let known = parts.iter_mut().find(|part| part.namespace == mutation.namespace);
        let part = match known {
            Some(part) => part,
            None => {
                parts.push(Part {
                    namespace: mutation.namespace,
                    numbers: Vec::new(),
                    at: None,
                });
                parts.last_mut().expect("one was pushed")
            }
        };
        if !matches!(outcomes[number], Outcome::Refused(_)) {
            part.numbers.push(number);
        }
    }
    parts.retain(|part| part.at.is_some() || !part.numbers.is_empty());
    parts
}

impl Part<'_> {
    /// The call of the script, whose arguments are described there.
    fn call(&self, name: &str, batch: &[Mutation<'_>], window_ms: u64) -> Cmd {
        let mut call = script::call(name, self.namespace);
        call.arg(window_ms);
        match self.at {
            Some(at) => call.arg(positions::field(at)).arg(at.lsn),
            None => call.arg("").arg(""),
        };
        for number in &self.numbers {
            add(&mut call, &batch[*number]);
        }
        call
    }

    /// Reads the answer to the call.
    fn take(&self, batch: &[Mutation<'_>], answer: &Value, outcomes: &mut [Outcome]) -> Result<(), Fault> {
        let answers = entries(Some(answer))?;
        if let Err(error) = check_state(self.namespace, answers.first())? {
            for number in &self.numbers {
                outcomes[*number] = Outcome::Refused(error.clone());
            }
            return Ok(());
        }
        for (number, answer) in self.numbers.iter().zip(&answers[1..]) {
            if let Operation::CompareAndSwap { key, .. } = batch[*number].operation {
                outcomes[*number] = outcome_of(key, entries(Some(answer))?)?;
            }
        }
        Ok(())
    }
}

fn add(call: &mut Cmd, mutation: &Mutation<'_>) {
    let version = version_bytes(mutation.version);
    let mut begin = |op: &str| {
        call.arg(op).arg(mutation.id).arg(&version[..]);
    };
    match mutation.operation {
        Operation::Put(items) => {
            begin("P");
            call.arg(items.len());
            // From the last to the first: of two with one key the later is there already then, with
            // this very version.
            for item in items.iter().rev() {
                call.arg(item.key);
                add_content(call, item);
            }
        }
        Operation::Delete(predicate) => {
            let (first, last) = match predicate {
                PredicateRef::Keys(keys) => {
                    begin("D");
                    call.arg(mutation.at.0).arg(keys.len());
                    for key in keys {
                        call.arg(*key);
                    }
                    return;
                }
                PredicateRef::All => (&b""[..], &b""[..]),
                PredicateRef::Range { start, end } => (start, end),
            };
            begin("R");
            call.arg(mutation.at.0).arg(first).arg(last);
        }
        Operation::CompareAndSwap {
            key,
            expected,
            replacement,
        } => {
            begin("S");
            let (kind, expectation) = match expected {
                Expected::Absent => ("a", &b""[..]),
                Expected::Value(value) => ("v", value),
                Expected::Version(version) => ("V", version),
            };
            call.arg(mutation.at.0).arg(key).arg(kind).arg(expectation);
            match &replacement {
                Some(item) => {
                    call.arg("1");
                    add_content(call, item);
                }
                None => {
                    call.arg("0").arg("").arg("").arg("");
                }
            }
            let SwapCall { subject, digest } = SwapCall::new(mutation, key);
            call.arg(&subject.to_be_bytes()[..]);
            match digest {
                Some(digest) => call.arg(&digest.to_be_bytes()[..]),
                None => call.arg(""),
            };
        }
    }
}

fn add_content(call: &mut Cmd, item: &ItemRef<'_>) {
    call.arg(item.value)
        .arg(&[item.compression][..])
        .arg(digits(item.expires_at));
}

/// The outcome of a swap.
fn outcome_of(key: &[u8], answer: &[Value]) -> Result<Outcome, Fault> {
    let found = |at: usize| -> Result<Option<Found>, Fault> {
        let row = match answer.get(at) {
            None => return Ok(None),
            row => bytes(row)?,
        };
        if row.is_empty() {
            return Ok(None);
        }
        let (item, version) = item_of(key, row, bytes(answer.get(at + 1))?)?;
        Ok(Some(Found::new(item, version)))
    };
    Ok(match bytes(answer.first())? {
        b"S" => Outcome::Swapped(Some(version_of(bytes(answer.get(1))?).map_err(Fault::Refused)?)),
        b"s" => Outcome::Swapped(None),
        b"T" => Outcome::Refused(StoreError::TokenReused),
        b"N" => Outcome::NotSwapped(found(1)?),
        b"n" => {
            let remembered = remembered(key, bytes(answer.get(1))?)?;
            Outcome::NotSwapped(Some(shown(remembered, found(2)?.as_ref())))
        }
        _ => return Err(unexpected(answer.first())),
    })
}

/// The item of a remembered refusal: its kind, the length of its moment, the moment, the value.
fn remembered(key: &[u8], said: &[u8]) -> Result<OwnedItem, Fault> {
    let parts = said
        .split_first_chunk::<3>()
        .and_then(|([kind, high, low], rest)| {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            Some((*kind, rest.split_at_checked(length)?))
        });
    let (compression, (moment, value)) = parts.ok_or_else(|| unexpected(None))?;
    Ok(OwnedItem {
        key: key.to_vec(),
        value: value.to_vec(),
        expires_at: moment_of(moment)?,
        compression,
    })
}
