//! Whether an answer belongs to its request: identity, integrity, atomicity and, on demand,
//! freshness of what was read.
//!
//! A pure state machine over decoded answers. It promises to call an answer wrong only when no
//! correct server could have given it, and leaves the counting to its caller.

use prism_codec::message::keyvalue::{
    CompareAndSwapResponseView, DeleteResponseView, GetResponseView, ItemView, MutateResponseView,
    PutResponseView, ScanResponseView,
};
use prism_codec::{message::common::WriteResultView, method::KeyValueMethod};

use crate::{
    call::{Call, KeyName, Seen, Step, item_key, item_number},
    mix::Operation,
    outcome::Outcome,
    values::Values,
};

/// How closely answers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verify {
    /// Only that the message can be decoded.
    Off,
    /// Each value is the asked-for one, undamaged, and items of one Put are seen together.
    Match,
    /// Also that a read sees every write acknowledged before it. Keys are then divided among the
    /// threads, so that each key has one writer, and nothing else may write to the namespace.
    Fresh,
}

/// Findings from the messages of one answer, kept until its trailers arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The item that a cas read; `None` when there is none.
    pub seen: Option<Seen>,
    /// The write result.
    pub result: Option<(u32, u64)>,
    /// Whether a cas swapped.
    pub swapped: bool,
    /// A mutate: the first status that is not OK.
    pub refused: Option<Outcome>,
}

/// The checks and what is known of the keys.
#[derive(Clone, Debug)]
pub struct Checker {
    values: Values,
    verify: Verify,
    /// Keys with a local number below this were loaded and nothing deletes: when one is missing,
    /// that is wrong.
    present_below: u64,
    run_started_ns: u64,
    /// By local key number, only for `Fresh`.
    keys: Vec<KeyState>,
}

/// Knowledge of one key; sequences of writes, 0: none.
#[derive(Clone, Copy, Debug, Default)]
struct KeyState {
    acknowledged: u64,
    sent: u64,
    deletion_sent: u64,
}

impl Checker {
    /// A checker that knows nothing of the data yet. `run_started_ns` is the wall clock: older
    /// writes are other runs'.
    pub fn new(verify: Verify, present_below: u64, run_started_ns: u64) -> Self {
        Self {
            values: Values::default(),
            verify,
            present_below,
            run_started_ns,
            keys: Vec::new(),
        }
    }

    /// The maker of values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The newest acknowledged write of a local key: reads that leave now must not see an older
    /// one.
    pub fn floor(&self, local: u64) -> u64 {
        self.keys.get(local as usize).map_or(0, |key| key.acknowledged)
    }

    /// A write leaves.
    pub fn sent(&mut self, local: u64, sequence: u64, deletes: bool) {
        if let Some(key) = self.key_state(local) {
            key.sent = key.sent.max(sequence);
            if deletes {
                key.deletion_sent = key.deletion_sent.max(sequence);
            }
        }
    }

    /// A write was acknowledged.
    pub fn acknowledged(&mut self, local: u64, sequence: u64) {
        if let Some(key) = self.key_state(local) {
            key.acknowledged = key.acknowledged.max(sequence);
        }
    }

    fn key_state(&mut self, local: u64) -> Option<&mut KeyState> {
        if self.verify != Verify::Fresh {
            return None;
        }
        let local = local as usize;
        if local >= self.keys.len() {
            self.keys.resize(local + 1, KeyState::default());
        }
        self.keys.get_mut(local)
    }

    /// Looks at one message of the answer to `call`. `local` is the key's local number.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(&self, call: &Call, local: u64, message: &[u8]) -> Result<Told, String> {
        let undecodable = |error| format!("the answer to {} can not be decoded: {error}", describe(call));
        match call.method() {
            KeyValueMethod::Put => {
                let view = PutResponseView::decode(message).map_err(undecodable)?;
                written(call, view.result)
            }
            KeyValueMethod::Delete => {
                let view = DeleteResponseView::decode(message).map_err(undecodable)?;
                written(call, view.result)
            }
            KeyValueMethod::Get => {
                let view = GetResponseView::decode(message).map_err(undecodable)?;
                self.check_get(call, local, &view)
            }
            KeyValueMethod::Scan => {
                let view = ScanResponseView::decode(message).map_err(undecodable)?;
                self.check_scan(&view)
            }
            KeyValueMethod::Mutate => {
                let view = MutateResponseView::decode(message).map_err(undecodable)?;
                check_mutate(call, &view)
            }
            KeyValueMethod::CompareAndSwap => {
                let view = CompareAndSwapResponseView::decode(message).map_err(undecodable)?;
                self.check_swap(call, &view)
            }
        }
    }

    fn check_get(&self, call: &Call, local: u64, view: &GetResponseView<'_>) -> Result<Told, String> {
        if self.verify == Verify::Off {
            let first = view.items.iter().next();
            return Ok(Told {
                seen: first.and_then(|item| self.seen(call.key, &item).ok().flatten()),
                ..Told::default()
            });
        }
        let mut newest: Option<Seen> = None;
        let mut first = None;
        let mut previous: Option<&[u8]> = None;
        for item in view.items.iter() {
            if previous.is_some_and(|previous| previous >= item.key) {
                return Err(format!(
                    "{}: the items are not in the order of their keys",
                    describe(call)
                ));
            }
            previous = Some(item.key);
            let seen = self
                .seen(call.key, &item)
                .map_err(|wrong| format!("{}: {wrong}", describe(call)))?;
            first = first.or(seen);
            if seen.is_some_and(|seen| newest.is_none_or(|newest| seen.sequence > newest.sequence)) {
                newest = seen;
            }
        }
        if call.operation == Operation::Cas
            && (view.items.len() > 1 || previous.is_some_and(|k| k != item_key(0)))
        {
            return Err(format!(
                "{}: other items than the one that was asked for",
                describe(call)
            ));
        }
        if call.operation == Operation::Range && view.items.len() > call.item_limit as usize {
            return Err(format!(
                "{}: {} items, limit {}",
                describe(call),
                view.items.len(),
                call.item_limit
            ));
        }
        if view.items.is_empty() && local < self.present_below {
            return Err(format!(
                "{}: no items, although all ids were loaded and none is deleted",
                describe(call)
            ));
        }
        let whole = call.operation == Operation::Get && view.next_page_token.is_empty();
        if let Some(newest) = newest.filter(|_| whole) {
            self.check_together(call, view, newest)?;
        }
        self.check_fresh(call, local, newest, view.items.is_empty())?;
        Ok(Told {
            seen: first,
            ..Told::default()
        })
    }

    /// The newest write that is seen replaced items `0..n` at once, so all of them must be there
    /// and be its own.
    fn check_together(&self, call: &Call, view: &GetResponseView<'_>, newest: Seen) -> Result<(), String> {
        let together = view
            .items
            .iter()
            .filter(|item| item_number(item.key).is_some_and(|number| number < newest.item_count()))
            .filter(|item| matches!(self.seen(call.key, item), Ok(Some(seen)) if seen.sequence == newest.sequence))
            .count();
        if together == usize::from(newest.item_count()) {
            return Ok(());
        }
        let (items, sequence) = (newest.item_count(), newest.sequence);
        Err(format!(
            "{}: torn: {together} of the {items} items that write {sequence} made together",
            describe(call)
        ))
    }

    fn check_fresh(&self, call: &Call, local: u64, newest: Option<Seen>, absent: bool) -> Result<(), String> {
        if self.verify != Verify::Fresh {
            return Ok(());
        }
        let state = self.keys.get(local as usize).copied().unwrap_or_default();
        match newest {
            // A swap is ordered by its expectation: it may have followed a write with a later
            // generation time.
            Some(seen) if seen.sequence < call.floor && !seen.by_swap() => {
                let age = (call.floor - seen.sequence) / 1_000;
                Err(format!(
                    "{}: stale by {age} µs: write {} was acknowledged before",
                    describe(call),
                    call.floor
                ))
            }
            Some(seen) if seen.sequence > state.sent && seen.sequence >= self.run_started_ns => Err(format!(
                "{}: holds write {}, which was never sent",
                describe(call),
                seen.sequence
            )),
            None if absent && call.floor > 0 && state.deletion_sent < call.floor => Err(format!(
                "{}: lost: write {} was acknowledged and never deleted",
                describe(call),
                call.floor
            )),
            _ => Ok(()),
        }
    }

    fn check_scan(&self, view: &ScanResponseView<'_>) -> Result<Told, String> {
        if self.verify == Verify::Off {
            return Ok(Told::default());
        }
        for entry in view.entries.iter() {
            let key =
                KeyName::parse(entry.id).ok_or_else(|| format!("scan: id `{}` is not ours", entry.id))?;
            for item in entry.items.iter() {
                self.seen(key, &item)
                    .map_err(|wrong| format!("scan: under id `{}` {wrong}", entry.id))?;
            }
        }
        Ok(Told::default())
    }

    fn check_swap(&self, call: &Call, view: &CompareAndSwapResponseView<'_>) -> Result<Told, String> {
        if self.verify != Verify::Off
            && let Some(current) = &view.current
        {
            if view.swapped {
                return Err(format!(
                    "{}: swapped, and yet a current item is told",
                    describe(call)
                ));
            }
            // The owner of the key may leave its own name out of the item.
            let item = ItemView {
                key: if current.key.is_empty() {
                    &item_key(0)
                } else {
                    current.key
                },
                ..*current
            };
            let seen = self
                .seen(call.key, &item)
                .map_err(|wrong| format!("{}: {wrong}", describe(call)))?;
            if seen.is_some() && matches!(call.step, Step::Swap(expected) if expected == seen) {
                return Err(format!(
                    "{}: not swapped, although the value is the expected one",
                    describe(call)
                ));
            }
        }
        let mut told = if view.swapped {
            written(call, view.result)?
        } else {
            Told::default()
        };
        told.swapped = view.swapped;
        Ok(told)
    }

    fn seen(&self, key: u64, item: &ItemView<'_>) -> Result<Option<Seen>, String> {
        let number = item_number(item.key)
            .ok_or_else(|| format!("an item key that is not ours, {:?}", item.key.escape_ascii()))?;
        self.values
            .check(key, number, item.value)
            .map_err(|wrong| wrong.to_string())
    }
}

/// Every acknowledged write has a result.
fn written(call: &Call, result: Option<WriteResultView>) -> Result<Told, String> {
    match result {
        Some(result) => Ok(Told {
            result: Some((result.lane, result.lsn)),
            ..Told::default()
        }),
        None => Err(format!("{}: acknowledged without a result", describe(call))),
    }
}

fn check_mutate(call: &Call, view: &MutateResponseView<'_>) -> Result<Told, String> {
    if view.results.len() != call.item_limit as usize {
        return Err(format!(
            "{}: {} results for {} mutations",
            describe(call),
            view.results.len(),
            call.item_limit
        ));
    }
    let mut told = Told::default();
    for result in view.results.iter() {
        let code = result.status.map_or(0, |status| status.code);
        if code != 0 {
            told.refused = told
                .refused
                .or(Some(Outcome::from_code(u32::try_from(code).unwrap_or(2))));
        } else {
            told.result = result.result.map(|result| (result.lane, result.lsn));
        }
    }
    Ok(told)
}

fn describe(call: &Call) -> String {
    match call.method() {
        KeyValueMethod::Scan => "scan".to_owned(),
        _ => format!(
            "{} of `{}`",
            call.operation.name(),
            KeyName::new(call.key).as_str()
        ),
    }
}
