//! Steps before and after a load: creating the namespace, and checking a journal against what
//! survived.
//!
//! Uses one blocking connection and one call at a time; nothing here is measured.

use std::collections::HashMap;

use prism_codec::{
    message::keyvalue::{GetResponseView, encode_get_request},
    method::KeyValueMethod,
};

use crate::{
    blocking::{Blocking, CallError},
    call::{KeyName, item_number},
    journal::Entry,
    mix::Operation,
    outcome::Outcome,
    values::Values,
};

/// API of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// KeyValue.
    KeyValue,
    /// PubSub, with ordering keys.
    PubSub,
    /// Queue.
    Queue {
        /// Whether with ordering keys.
        ordered: bool,
    },
}

/// Creates the namespace of a load, best-effort by default. An existing one is fine.
///
/// # Errors
/// The server's reason.
pub fn create_namespace(
    client: &mut Blocking<'_>,
    name: &str,
    durability: &str,
    api: Api,
) -> Result<(), CallError> {
    let (api, more) = match api {
        Api::KeyValue => ("keyvalue", ""),
        Api::PubSub => ("pubsub", "  ordered: true\n"),
        Api::Queue { ordered: true } => ("queue", "  ordered: true\n"),
        Api::Queue { ordered: false } => ("queue", ""),
    };
    let yaml = format!(
        "namespace: {name}\nteam: loadgen\nclient_api: {api}\nneeds:\n  durability: {durability}\n{more}"
    );
    // CreateRequest { string yaml = 1 }, written by hand: one field is not worth a dependency.
    let mut message = vec![0x0A];
    let mut length = yaml.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(yaml.as_bytes());
    match client.call("/prism.admin.v1.Namespaces/Create", &message) {
        Ok(_) => Ok(()),
        Err(CallError::Refused(outcome, _)) if outcome.name() == "ALREADY_EXISTS" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Findings of the check of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survival {
    /// Keys that the journal names.
    pub keys: u64,
    /// Acknowledged writes that the journal names.
    pub acknowledged: u64,
    /// Faults, for people: acknowledged writes that are lost, values that are not right.
    pub wrong: Vec<String>,
}

/// Contents of the journal for one key.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    /// The newest acknowledged write, and whether it deleted.
    acknowledged: Option<(u64, bool)>,
    /// The newest deletion of which nobody knows whether it took place.
    open_deletion: u64,
}

/// Reads every key of the journal and compares: no acknowledged write may be lost. Writes after the
/// journal's last are allowed, so the check may also run during a load.
///
/// # Errors
/// The server can not be asked.
pub fn check_journal(
    client: &mut Blocking<'_>,
    namespace: &str,
    entries: &[Entry],
) -> Result<Survival, CallError> {
    let (claims, acknowledged) = claims(entries);
    let mut survival = Survival {
        keys: claims.len() as u64,
        acknowledged,
        wrong: Vec::new(),
    };
    let values = Values::default();
    let mut keys: Vec<u64> = claims.keys().copied().collect();
    keys.sort_unstable();
    for key in keys {
        let mut request = Vec::new();
        encode_get_request(&mut request, namespace, KeyName::new(key).as_str(), None, None);
        let answer = client.call(KeyValueMethod::Get.spec().path, &request)?;
        if let Err(wrong) = newest_of(&values, key, &answer).and_then(|found| judge(claims[&key], found)) {
            survival
                .wrong
                .push(format!("`{}`: {wrong}", KeyName::new(key).as_str()));
        }
    }
    Ok(survival)
}

fn claims(entries: &[Entry]) -> (HashMap<u64, Claim>, u64) {
    let mut claims: HashMap<u64, Claim> = HashMap::new();
    let mut acknowledged = 0;
    for entry in entries {
        let claim = claims.entry(entry.key).or_default();
        let deletes = entry.operation == Operation::Delete;
        if entry.outcome == Outcome::OK {
            acknowledged += 1;
            let newer = claim
                .acknowledged
                .is_none_or(|(sequence, _)| entry.sequence > sequence);
            if newer {
                claim.acknowledged = Some((entry.sequence, deletes));
            }
        } else if deletes {
            claim.open_deletion = claim.open_deletion.max(entry.sequence);
        }
    }
    (claims, acknowledged)
}

/// The newest write that made a key's contents; `None` when the key holds nothing, `Some(None)`
/// when the write is unknown: values are too short, or it was a compare-and-swap, which is not
/// ordered by its generation time.
fn newest_of(values: &Values, key: u64, answer: &[u8]) -> Result<Option<Option<u64>>, String> {
    let view = GetResponseView::decode(answer).map_err(|error| error.to_string())?;
    let mut newest = None;
    for item in view.items.iter() {
        let number = item_number(item.key).ok_or("an item key that is not ours")?;
        let seen = values
            .check(key, number, item.value)
            .map_err(|wrong| wrong.to_string())?;
        newest = Some(seen.map(|seen| seen.sequence).max(newest.flatten()));
    }
    Ok(newest)
}

fn judge(claim: Claim, found: Option<Option<u64>>) -> Result<(), String> {
    match (claim.acknowledged, found) {
        (None, _) | (Some(_), Some(None)) | (Some((_, true)), None) => Ok(()),
        (Some((sequence, false)), None) if claim.open_deletion > sequence => Ok(()),
        (Some((sequence, false)), None) => Err(format!(
            "lost: write {sequence} was acknowledged, nothing is there"
        )),
        (Some((sequence, _)), Some(Some(found))) if found >= sequence => Ok(()),
        (Some((sequence, _)), Some(Some(found))) => Err(format!(
            "lost: write {sequence} was acknowledged, the older {found} is there"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, operation: Operation, outcome: Outcome) -> Entry {
        Entry {
            sequence,
            key: 1,
            operation,
            outcome,
            lane: 0,
            lsn: 0,
        }
    }

    fn verdict(entries: &[Entry], found: Option<Option<u64>>) -> bool {
        judge(claims(entries).0[&1], found).is_ok()
    }

    #[test]
    fn acknowledged_writes_must_survive() {
        let put = |sequence| entry(sequence, Operation::Put, Outcome::OK);
        assert!(verdict(&[put(5), put(3)], Some(Some(5))));
        assert!(verdict(&[put(5)], Some(Some(9))), "a newer write may have come");
        assert!(!verdict(&[put(5), put(3)], Some(Some(3))));
        assert!(!verdict(&[put(5)], None));
        assert!(
            verdict(&[entry(5, Operation::Put, Outcome::LOST)], None),
            "nobody promised it"
        );
    }

    #[test]
    fn deletions_count_too() {
        let (put, delete) = (
            entry(5, Operation::Put, Outcome::OK),
            entry(7, Operation::Delete, Outcome::OK),
        );
        assert!(verdict(&[put, delete], None));
        assert!(
            !verdict(&[put, delete], Some(Some(5))),
            "a deleted item came back"
        );
        let open = entry(7, Operation::Delete, Outcome::LOST);
        assert!(verdict(&[put, open], None));
        assert!(verdict(&[put, open], Some(Some(5))));
        let older = entry(3, Operation::Delete, Outcome::LOST);
        assert!(!verdict(&[put, older], None));
    }
}
