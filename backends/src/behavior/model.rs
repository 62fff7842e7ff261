//! Random operations against a simple model: the store must agree with ordered maps at every step.
//! Seeded; a failure names its seed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::cases::{entry, keys, range};
use super::paging::scan_all;
use super::{Change, Client, Entry, Expectation, Harness, Paging, Predicate, SwapAnswer, WriteToken};
use crate::mutation::range_contains;
use crate::version::Version;

pub(super) async fn random_operations_match_the_model<H: Harness>(harness: &mut H) {
    // Without a simulated clock calls take a round trip each.
    let (seeds, steps) = if harness.turns_clock() {
        (8, 1_500)
    } else {
        (2, 600)
    };
    for seed in 0..seeds {
        run_seed(harness, seed, steps).await;
    }
}

async fn run_seed<H: Harness>(harness: &mut H, seed: u64, steps: usize) {
    let mut client = harness.client().await;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut model = Model::default();
    let mut past: Vec<Step> = Vec::new();
    for number in 0..steps {
        let context = format!("seed {seed}, step {number}");
        let now_ns = harness.now_ns();
        // Every eighth change is a repeat of an earlier one.
        let step = if !past.is_empty() && random.below(8) == 0 {
            past[random.below(past.len())].clone()
        } else {
            let time = now_ns + random.below(2_000_000) as i64 - 1_000_000;
            let token = format!("{seed}.{number}").into_bytes();
            let token = WriteToken {
                generation_time_ns: time,
                token,
            };
            match random.below(12) {
                0 => random.swap_of_version(token, &model),
                _ => random.step(token),
            }
        };
        apply(&mut client, &mut model, &step, &context).await;
        past.push(step);
        if past.len() > 64 {
            past.remove(random.below(32));
        }
        let id = random.id();
        let predicate = random.predicate();
        let paging = Paging {
            page_bytes: [0, 40, 150][random.below(3)],
            item_limit: random.below(4) as u32,
            ..Paging::default()
        };
        compare_id(&mut client, &model, &id, &predicate, &paging, &context).await;
        if number % 97 == 0 {
            compare_all(&mut client, &model, &paging, &context).await;
        }
        if number % 50 == 0 && harness.turns_clock() {
            harness.pass(Duration::from_millis(3)).await;
        }
    }
    compare_all(
        &mut client,
        &model,
        &Paging::default(),
        &format!("seed {seed}, end"),
    )
    .await;
}

#[derive(Clone, Debug)]
enum Step {
    One {
        token: WriteToken,
        id: String,
        change: Change,
    },
    Many {
        token: WriteToken,
        changes: Vec<(String, Change)>,
    },
    Swap {
        token: WriteToken,
        id: String,
        key: Vec<u8>,
        expected: Expectation,
        replacement: Option<Entry>,
    },
}

async fn apply<C: Client>(client: &mut C, model: &mut Model, step: &Step, context: &str) {
    match step {
        Step::One { token, id, change } => {
            let version = Version::new(token.generation_time_ns, &token.token);
            let result = match change {
                Change::Put(items) => client.put(id, token, items).await,
                Change::Delete(predicate) => client.delete(id, token, predicate).await,
            };
            assert_eq!(result, Ok(()), "{context}: {step:?}");
            model.change(id, version, change);
        }
        Step::Many { token, changes } => {
            let results = client.mutate(token, changes).await.expect("a mutate");
            assert!(results.iter().all(Result::is_ok), "{context}: {results:?}");
            for (position, (id, change)) in changes.iter().enumerate() {
                let version = Version::new(token.generation_time_ns, &token.token).at_position(position);
                model.change(id, version, change);
            }
        }
        Step::Swap {
            token,
            id,
            key,
            expected,
            replacement,
        } => {
            let answer = client
                .compare_and_swap(id, key, token, expected, replacement.as_ref())
                .await
                .expect("a swap");
            let expected = model.swap(id, key, token, expected, replacement.as_ref());
            assert_eq!(answer, expected, "{context}: {step:?}");
        }
    }
}

async fn compare_id<C: Client>(
    client: &mut C,
    model: &Model,
    id: &str,
    predicate: &Predicate,
    paging: &Paging,
    context: &str,
) {
    let mut paging = paging.clone();
    let mut found = Vec::new();
    loop {
        let page = client.get(id, predicate, &paging).await.expect("a get");
        assert!(
            found.is_empty() || !page.items.is_empty(),
            "{context}: an empty page behind a full one"
        );
        assert_eq!(page.items.len(), page.versions.len(), "{context}: a version each");
        found.extend(page.items.into_iter().zip(page.versions));
        paging.page_token = page.next_page_token;
        if paging.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, model.read(id, predicate), "{context}: {id} {predicate:?}");
}

async fn compare_all<C: Client>(client: &mut C, model: &Model, paging: &Paging, context: &str) {
    let expected: BTreeMap<_, _> = model
        .ids
        .keys()
        .map(|id| (id.clone(), model.read(id, &Predicate::All)))
        .filter(|(_, items)| !items.is_empty())
        .map(|(id, items)| (id, items.into_iter().map(|(item, _)| item).collect()))
        .collect();
    assert_eq!(scan_all(client, paging).await, expected, "{context}");
}

/// Expected contents of a store: everything ever written, never swept.
#[derive(Default)]
struct Model {
    ids: BTreeMap<String, ModelId>,
    answers: HashMap<(Version, String, Vec<u8>), SwapAnswer>,
}

#[derive(Default)]
struct ModelId {
    /// Content of each key; `None` is a remembered delete.
    cells: BTreeMap<Vec<u8>, (Version, Option<Entry>)>,
    range_deletes: Vec<(Vec<u8>, Vec<u8>, Version)>,
}

impl Model {
    fn change(&mut self, id: &str, version: Version, change: &Change) {
        let id = self.ids.entry(id.to_owned()).or_default();
        match change {
            Change::Put(items) => {
                let last: BTreeMap<_, _> = items.iter().map(|entry| (entry.key.clone(), entry)).collect();
                for (key, entry) in last {
                    id.write(&key, version, Some(entry.clone()));
                }
            }
            Change::Delete(Predicate::Keys(keys)) => keys.iter().for_each(|key| id.write(key, version, None)),
            Change::Delete(predicate) => {
                let (start, end) = match predicate {
                    Predicate::Range { start, end } => (start.clone(), end.clone()),
                    _ => Default::default(),
                };
                for (key, cell) in &mut id.cells {
                    if range_contains(&start, &end, key) && cell.0 < version {
                        *cell = (version, None);
                    }
                }
                id.range_deletes.push((start, end, version));
            }
        }
    }

    fn swap(
        &mut self,
        name: &str,
        key: &[u8],
        token: &WriteToken,
        expected: &Expectation,
        replacement: Option<&Entry>,
    ) -> SwapAnswer {
        let version = Version::new(token.generation_time_ns, &token.token);
        let call = (version, name.to_owned(), key.to_vec());
        let id = self.ids.entry(name.to_owned()).or_default();
        let cell = id.cells.get(key);
        let current = cell.and_then(|cell| cell.1.clone());
        let current_version = match (&current, cell) {
            (Some(_), Some(cell)) => cell.0.to_bytes().to_vec(),
            _ => Vec::new(),
        };
        if let Some(answer) = self.answers.get(&call) {
            let is_the_same = answer.current.is_some() && answer.current == current;
            return SwapAnswer {
                current_version: if is_the_same { current_version } else { Vec::new() },
                ..answer.clone()
            };
        }
        let holds = match (expected, &current) {
            (Expectation::Absent, None) => true,
            (Expectation::Value(value), Some(entry)) => *value == entry.value,
            (Expectation::Version(version), Some(_)) => *version == current_version,
            _ => false,
        };
        if holds {
            let version = id
                .floor(key)
                .map_or(version, |floor| floor.successor().max(version));
            id.write(key, version, replacement.cloned());
        }
        let answer = SwapAnswer {
            swapped: holds,
            current: current.filter(|_| !holds),
            current_version: if holds { Vec::new() } else { current_version },
        };
        self.answers.insert(call, answer.clone());
        answer
    }

    fn read(&self, id: &str, predicate: &Predicate) -> Vec<(Entry, Vec<u8>)> {
        let is_meant = |key: &Vec<u8>| match predicate {
            Predicate::All => true,
            Predicate::Keys(keys) => keys.contains(key),
            Predicate::Range { start, end } => range_contains(start, end, key),
        };
        let cells = self.ids.get(id).into_iter().flat_map(|id| &id.cells);
        cells
            .filter(|(key, _)| is_meant(key))
            .filter_map(|(_, cell)| Some((cell.1.clone()?, cell.0.to_bytes().to_vec())))
            .collect()
    }
}

impl ModelId {
    fn floor(&self, key: &[u8]) -> Option<Version> {
        let covering = self
            .range_deletes
            .iter()
            .filter(|(start, end, _)| range_contains(start, end, key));
        covering
            .map(|delete| delete.2)
            .max()
            .max(self.cells.get(key).map(|cell| cell.0))
    }

    fn write(&mut self, key: &[u8], version: Version, entry: Option<Entry>) {
        if self.floor(key).is_none_or(|floor| floor < version) {
            self.cells.insert(key.to_vec(), (version, entry));
        }
    }
}

/// A small generator (xorshift64*), so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn id(&mut self) -> String {
        format!("id {}", self.below(9))
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => Vec::new(),
            1 => vec![0; self.below(3) + 1],
            2 => vec![0xff; self.below(3) + 1],
            // Many keys, so that ids with long lists come up too.
            3..6 => format!("key {}", self.below(80)).into_bytes(),
            _ => vec![b'a' + self.below(6) as u8],
        }
    }

    fn entry(&mut self) -> Entry {
        let value = vec![self.below(256) as u8; [0, 1, 20, 300][self.below(4)]];
        Entry {
            compression: self.below(5) as u8,
            ..entry(self.key(), value)
        }
    }

    fn predicate(&mut self) -> Predicate {
        match self.below(4) {
            0 => Predicate::All,
            1 => {
                let count = self.below(5) + 1;
                let some: Vec<_> = (0..count).map(|_| self.key()).collect();
                keys(&some.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            _ => range(&self.key(), &self.key()),
        }
    }

    fn change(&mut self) -> Change {
        if self.below(5) == 0 {
            return Change::Delete(self.predicate());
        }
        let count = [1, 1, 2, 5, 20][self.below(5)];
        Change::Put((0..count).map(|_| self.entry()).collect())
    }

    /// A swap that expects the version of an item that is there, or that was.
    fn swap_of_version(&mut self, token: WriteToken, model: &Model) -> Step {
        let id = self.id();
        let cells: Vec<_> = model.ids.get(&id).into_iter().flat_map(|id| &id.cells).collect();
        let (key, version) = match cells.len() {
            0 => (self.key(), Version::MIN),
            count => {
                let (key, (version, _)) = cells[self.below(count)];
                (key.clone(), *version)
            }
        };
        let replacement = (self.below(4) != 0).then(|| Entry {
            key: key.clone(),
            ..self.entry()
        });
        Step::Swap {
            token,
            id,
            key,
            expected: Expectation::Version(version.to_bytes().to_vec()),
            replacement,
        }
    }

    fn step(&mut self, token: WriteToken) -> Step {
        match self.below(6) {
            0 => {
                let count = self.below(6) + 1;
                Step::Many {
                    token,
                    changes: (0..count).map(|_| (self.id(), self.change())).collect(),
                }
            }
            1 => {
                let key = self.key();
                let expected = match self.below(3) {
                    0 => Expectation::Value(self.entry().value),
                    _ => Expectation::Absent,
                };
                let replacement = (self.below(4) != 0).then(|| Entry {
                    key: key.clone(),
                    ..self.entry()
                });
                Step::Swap {
                    token,
                    id: self.id(),
                    key,
                    expected,
                    replacement,
                }
            }
            _ => Step::One {
                token,
                id: self.id(),
                change: self.change(),
            },
        }
    }
}
