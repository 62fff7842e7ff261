//! Requests of one thread: draws calls from the mix, writes their requests, and follows them to
//! their end.
//!
//! Pure: time comes as an argument, randomness from the seed, bytes go into the caller's buffer.
//! With the same seed a thread asks for the same operations and keys in the same order; only the
//! sequences of writes are taken from the clock.

use prism_codec::{
    message::{
        common::{TimestampView, TokenView},
        keyvalue::{
            ExpectedView, ItemView, MutationOperationOut, MutationOut, PredicateOut, SelectionView,
            encode_compare_and_swap_request, encode_delete_request, encode_get_request,
            encode_mutate_request, encode_put_request, encode_scan_request,
        },
    },
    method::KeyValueMethod,
};

use crate::{
    call::{Call, Fault, KeyName, SWAP_MARK, Seen, Step, item_key},
    checker::{Checker, Told, Verify},
    journal::{Entry, Journal},
    keys::{KeyChooser, KeyDistribution, SizeChooser, ValueSize},
    mix::{Mix, Operation},
    outcome::Outcome,
    random::Random,
    values::Stamp,
};

/// Composition of a load, the same for all threads.
#[derive(Clone, Debug)]
pub struct Load {
    /// The namespace.
    pub namespace: String,
    /// Which operations.
    pub mix: Mix,
    /// How keys are drawn.
    pub distribution: KeyDistribution,
    /// How many keys there are at the start, at least 1.
    pub keys: u64,
    /// How large values are.
    pub value: ValueSize,
    /// Items of every Put, 1 to 1,000.
    pub items: u16,
    /// Mutations of every Mutate, 1 to 1,000.
    pub batch: u16,
    /// Items per page of a scan.
    pub scan_items: u32,
    /// How closely answers are looked at.
    pub verify: Verify,
    /// All keys were loaded before.
    pub loaded: bool,
    /// Whether writes carry idempotency tokens. Without them the server orders writes by its own
    /// clock.
    pub tokens: bool,
    /// Share of calls that are cancelled at a random point.
    pub cancel: f64,
    /// Share of calls at which the connection is dropped at a random point.
    pub disconnect: f64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// The step after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The call has ended.
    Ended(Outcome),
    /// The call goes on with another request.
    Goes(Call),
}

/// The calls of one thread.
#[derive(Debug)]
pub struct Workload {
    load: Load,
    thread: u64,
    threads: u64,
    random: Random,
    /// Draws local key numbers; see `key_of`.
    keys: KeyChooser,
    keys_at_start: u64,
    sizes: SizeChooser,
    checker: Checker,
    journal: Option<Journal>,
    last_sequence: u64,
    inserts: u64,
    /// While the keys are being loaded: the next local key and the number of them.
    loading: Option<(u64, u64)>,
    scratch: Vec<u8>,
}

impl Workload {
    /// The share of thread `thread` (from 0) of `threads`. `unix_ns` is the wall clock now.
    pub fn new(load: Load, thread: u64, threads: u64, unix_ns: u64, journal: Option<Journal>) -> Self {
        let threads = threads.max(1);
        // To know what is fresh, a key must have one writer; otherwise all threads draw from all
        // keys.
        let own = match load.verify {
            Verify::Fresh => (load.keys.saturating_sub(thread)).div_ceil(threads).max(1),
            _ => load.keys.max(1),
        };
        let present_below = if load.loaded && !load.mix.has(Operation::Delete) {
            own
        } else {
            0
        };
        Self {
            thread,
            threads,
            random: Random::new(load.seed, thread * 4),
            keys: KeyChooser::new(load.distribution, own),
            keys_at_start: own,
            sizes: SizeChooser::new(load.value),
            checker: Checker::new(load.verify, present_below, unix_ns),
            journal,
            last_sequence: unix_ns,
            inserts: 0,
            loading: None,
            scratch: Vec::new(),
            load,
        }
    }

    /// Turns into the load phase: one Put of every key, then no more calls.
    pub fn loading(mut self) -> Self {
        let share = self.load.keys.saturating_sub(self.thread).div_ceil(self.threads);
        self.loading = Some((0, share));
        self.load.cancel = 0.0;
        self.load.disconnect = 0.0;
        self
    }

    /// Draws the next call; `None` when a load phase is through. `unix_ns` is the wall clock.
    pub fn plan(&mut self, unix_ns: u64) -> Option<Call> {
        let (operation, local) = match &mut self.loading {
            Some((next, end)) if *next < *end => {
                *next += 1;
                (Operation::Put, *next - 1)
            }
            Some(_) => return None,
            None => match self.load.mix.draw(&mut self.random) {
                Operation::Insert => {
                    self.inserts += 1;
                    (Operation::Insert, self.keys_at_start + self.inserts - 1)
                }
                operation => (operation, self.keys.draw(&mut self.random)),
            },
        };
        let key = match self.loading {
            Some(_) => local * self.threads + self.thread,
            None => self.key_of(local),
        };
        let mut call = Call {
            operation,
            step: if operation == Operation::Cas {
                Step::Read
            } else {
                Step::Only
            },
            key,
            sequence: self.next_sequence(unix_ns),
            value_bytes: self.sizes.draw(&mut self.random),
            item_limit: 0,
            floor: 0,
            fault: self.draw_fault(),
        };
        match operation {
            Operation::Range => call.item_limit = 1 + self.random.below(100) as u32,
            Operation::Scan => call.item_limit = self.load.scan_items,
            Operation::Mutate => call.item_limit = u32::from(self.load.batch),
            _ => {}
        }
        self.leaves(&mut call);
        Some(call)
    }

    /// Draws only the operation of a call that will never leave.
    pub fn draw_operation(&mut self) -> Operation {
        match self.loading {
            Some(_) => Operation::Put,
            None => self.load.mix.draw(&mut self.random),
        }
    }

    /// Appends the request message of a call.
    pub fn encode(&mut self, call: &Call, out: &mut Vec<u8>) {
        let (namespace, id) = (&self.load.namespace, KeyName::new(call.key));
        let token_bytes = token_bytes(call.sequence, call.key);
        let token = TokenView {
            generation_time: Some(TimestampView::from_unix_nanos(call.sequence as i64)),
            token: &token_bytes,
        };
        let token = self.load.tokens.then_some(&token);
        let values = self.checker.values();
        self.scratch.clear();
        match call.method() {
            KeyValueMethod::Put => {
                write_values(values, call, call.key, self.load.items, &mut self.scratch);
                let keys = |item| &ITEM_KEYS[usize::from(item)][..];
                let value = |item| slice_of(&self.scratch, call.value_bytes, item);
                let items = (0..self.load.items).map(|item| ItemView {
                    key: keys(item),
                    value: value(item),
                    ..NONE
                });
                encode_put_request(out, namespace, id.as_str(), token, items);
            }
            KeyValueMethod::Get => {
                let (predicate, selection) = match call.operation {
                    Operation::Range => (
                        Some(PredicateOut::Range {
                            start: &ITEM_KEYS[0],
                            end: b"",
                        }),
                        true,
                    ),
                    Operation::Cas => (Some(PredicateOut::Keys(&[&ITEM_KEYS[0]])), false),
                    _ => (None, false),
                };
                let limit = SelectionView {
                    item_limit: call.item_limit,
                    ..SelectionView::default()
                };
                let selection = selection.then_some(&limit);
                encode_get_request(out, namespace, id.as_str(), predicate.as_ref(), selection);
            }
            KeyValueMethod::Delete => encode_delete_request(out, namespace, id.as_str(), token, None),
            KeyValueMethod::Scan => {
                let selection = SelectionView {
                    item_limit: call.item_limit,
                    ..SelectionView::default()
                };
                encode_scan_request(out, namespace, Some(&selection));
            }
            KeyValueMethod::Mutate => self.encode_mutate(call, token, out),
            KeyValueMethod::CompareAndSwap => self.encode_swap(call, token, out),
        }
    }

    /// Looks at one message of the answer.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(&self, call: &Call, message: &[u8]) -> Result<Told, String> {
        self.checker.check(call, self.local_of(call.key), message)
    }

    /// Ends the request of a call. Notes writes from the contents of its messages, `told`, and
    /// returns how the call continues.
    pub fn finish(&mut self, call: &Call, outcome: Outcome, told: &Told, unix_ns: u64) -> Next {
        let outcome = match told.refused {
            Some(refused) if outcome == Outcome::OK => refused,
            _ => outcome,
        };
        if outcome == Outcome::OK && call.step == Step::Read {
            let mut swap = Call {
                step: Step::Swap(told.seen),
                sequence: self.next_sequence(unix_ns),
                ..*call
            };
            swap.fault = None;
            self.leaves(&mut swap);
            return Next::Goes(swap);
        }
        if call.writes() {
            let done =
                outcome == Outcome::OK && (call.method() != KeyValueMethod::CompareAndSwap || told.swapped);
            self.note_write(call, outcome, done, told);
        }
        Next::Ended(outcome)
    }

    /// Hands what was journalled since the last time to the kernel.
    pub fn flush_journal(&mut self) -> std::io::Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::flush)
    }

    fn note_write(&mut self, call: &Call, outcome: Outcome, done: bool, told: &Told) {
        if done && call.operation == Operation::Insert {
            self.keys.grow();
        }
        let (lane, lsn) = told.result.unwrap_or_default();
        for place in 0..self.keys_written(call) {
            let key = self.key_at(call, place);
            if done {
                self.checker.acknowledged(self.local_of(key), call.sequence);
            }
            // A refused compare-and-swap wrote nothing; everything else is worth knowing.
            let journalled = done || outcome != Outcome::OK;
            if let Some(journal) = self.journal.as_mut().filter(|_| journalled) {
                // For what survived, a write whose answer we did not wait for is as open as a lost
                // one.
                let outcome = if outcome == Outcome::CUT {
                    Outcome::LOST
                } else {
                    outcome
                };
                let (sequence, operation) = (call.sequence, call.operation);
                journal.add(Entry {
                    sequence,
                    key,
                    operation,
                    outcome,
                    lane,
                    lsn,
                });
            }
        }
    }

    /// A request of the call is about to leave: from here on it may take effect, and a read must
    /// see what was acknowledged before.
    fn leaves(&mut self, call: &mut Call) {
        call.floor = self.checker.floor(self.local_of(call.key));
        if call.writes() {
            for place in 0..self.keys_written(call) {
                let local = self.local_of(self.key_at(call, place));
                self.checker
                    .sent(local, call.sequence, call.operation == Operation::Delete);
            }
        }
    }

    fn keys_written(&self, call: &Call) -> u64 {
        if call.operation == Operation::Mutate {
            u64::from(call.item_limit)
        } else {
            1
        }
    }

    /// The key of the `place`-th mutation: neighbours of the first, going around.
    fn key_at(&self, call: &Call, place: u64) -> u64 {
        if place == 0 {
            return call.key;
        }
        self.key_of((self.local_of(call.key) + place) % self.keys_at_start)
    }

    /// The key number of a local one. Keys that exist at the start are shared, or dealt out when
    /// each has one writer; inserted keys are dealt out always.
    fn key_of(&self, local: u64) -> u64 {
        match self.load.verify {
            Verify::Fresh => local * self.threads + self.thread,
            _ if local < self.keys_at_start => local,
            _ => self.keys_at_start + (local - self.keys_at_start) * self.threads + self.thread,
        }
    }

    fn local_of(&self, key: u64) -> u64 {
        match self.load.verify {
            Verify::Fresh => key / self.threads,
            _ if key < self.keys_at_start => key,
            _ => self.keys_at_start + (key - self.keys_at_start) / self.threads,
        }
    }

    /// The clock, made unique: it grows by at least one step a call, and each thread has its own
    /// residue.
    fn next_sequence(&mut self, unix_ns: u64) -> u64 {
        let at_least = unix_ns.max(self.last_sequence + 1);
        let residue = at_least % self.threads;
        let step = (self.thread + self.threads - residue) % self.threads;
        self.last_sequence = at_least + step;
        self.last_sequence
    }

    fn draw_fault(&mut self) -> Option<Fault> {
        Fault::draw(&mut self.random, self.load.cancel, self.load.disconnect)
    }

    fn encode_mutate(&mut self, call: &Call, token: Option<&TokenView<'_>>, out: &mut Vec<u8>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let keys: Vec<u64> = (0..u64::from(call.item_limit))
            .map(|place| self.key_at(call, place))
            .collect();
        for &key in &keys {
            write_values(self.checker.values(), call, key, 1, &mut scratch);
        }
        let names: Vec<KeyName> = keys.iter().map(|&key| KeyName::new(key)).collect();
        let items: Vec<[ItemView<'_>; 1]> = (0..keys.len() as u16)
            .map(|place| {
                [ItemView {
                    key: &ITEM_KEYS[0],
                    value: slice_of(&scratch, call.value_bytes, place),
                    ..NONE
                }]
            })
            .collect();
        let mutations = names.iter().zip(&items).map(|(name, items)| MutationOut {
            id: name.as_str(),
            operation: MutationOperationOut::Put(items),
        });
        encode_mutate_request(out, &self.load.namespace, token, mutations);
        self.scratch = scratch;
    }

    fn encode_swap(&mut self, call: &Call, token: Option<&TokenView<'_>>, out: &mut Vec<u8>) {
        let Step::Swap(expected) = call.step else {
            unreachable!("only the second step of a cas is a CompareAndSwap")
        };
        let values = self.checker.values();
        let stamp = Stamp {
            key: call.key,
            item: 0,
            items: 1 | SWAP_MARK,
            sequence: call.sequence,
        };
        values.write(stamp, call.value_bytes, &mut self.scratch);
        let new_bytes = self.scratch.len();
        if let Some(Seen {
            sequence,
            items,
            value_bytes,
        }) = expected
        {
            values.write(
                Stamp {
                    key: call.key,
                    item: 0,
                    items,
                    sequence,
                },
                value_bytes,
                &mut self.scratch,
            );
        }
        let (new, old) = self.scratch.split_at(new_bytes);
        let expected = if expected.is_some() {
            ExpectedView::Value(old)
        } else {
            ExpectedView::Absent
        };
        let (key, id) = (&ITEM_KEYS[0], KeyName::new(call.key));
        let item = ItemView {
            key,
            value: new,
            ..NONE
        };
        encode_compare_and_swap_request(
            out,
            &self.load.namespace,
            id.as_str(),
            key,
            token,
            expected,
            Some(&item),
        );
    }
}

const NONE: ItemView<'static> = ItemView {
    key: b"",
    value: b"",
    ttl: None,
    compression: 0,
    version: b"",
};

/// The names of all items there can be, so that views can borrow them.
static ITEM_KEYS: [[u8; 5]; 1_001] = {
    let mut keys = [[0; 5]; 1_001];
    let mut item = 0;
    while item < keys.len() {
        keys[item] = item_key(item as u16);
        item += 1;
    }
    keys
};

fn write_values(values: &crate::values::Values, call: &Call, key: u64, items: u16, out: &mut Vec<u8>) {
    for item in 0..items {
        values.write(
            Stamp {
                key,
                item,
                items,
                sequence: call.sequence,
            },
            call.value_bytes,
            out,
        );
    }
}

fn slice_of(values: &[u8], value_bytes: u32, place: u16) -> &[u8] {
    let start = usize::from(place) * value_bytes as usize;
    &values[start..start + value_bytes as usize]
}

/// Sixteen bytes that no other write of the namespace has: its sequence and its key.
fn token_bytes(sequence: u64, key: u64) -> [u8; 16] {
    let mut token = [0; 16];
    token[..8].copy_from_slice(&sequence.to_be_bytes());
    token[8..].copy_from_slice(&key.to_be_bytes());
    token
}

#[cfg(test)]
mod tests;
