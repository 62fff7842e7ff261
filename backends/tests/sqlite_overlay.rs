//! Reading over pending mutations equals reading after they were applied: random stores, random
//! pending mutations, all predicates, page by page. Seeded; a failure names its seed.

use prism_backends::sqlite::{self, Options, Parts, Reader, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, ItemSink, Mutation, NamespaceId, Operation, OwnedItem, PredicateRef,
    Selection, StoreError, UnixMillis, Version, limits,
};

const SPACE: NamespaceId = NamespaceId(3);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

#[test]
fn reading_over_pending_mutations_equals_applying_them_first() {
    for seed in 0..6 {
        check_seed(seed, 60, &Mix::default());
    }
}

#[test]
fn more_range_deletes_than_are_remembered_make_no_difference() {
    let mix = Mix {
        range_deletes: 10,
        pending_max: 600,
        ..Mix::default()
    };
    for seed in 100..103 {
        check_seed(seed, 8, &mix);
    }
}

#[test]
fn chunked_values_are_read_over_too() {
    let mix = Mix {
        large_values: true,
        pending_max: 6,
        ..Mix::default()
    };
    check_seed(200, 12, &mix);
}

/// Parameters of the random mutations.
#[derive(Default)]
struct Mix {
    /// Number of deletes for every ten mutations, each of the range of one key of a hundred.
    range_deletes: usize,
    /// Most pending mutations; 0 is 24.
    pending_max: usize,
    /// Whether some values have several chunks.
    large_values: bool,
}

fn check_seed(seed: u64, rounds: usize, mix: &Mix) {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(&directory.path().join("items.db"), Options::default()).expect("a store");
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut shown = 0;
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let id = format!("id {round}");
        let base: Vec<_> = (0..random.below(30))
            .map(|_| random.change(&id, mix, true))
            .collect();
        apply(&mut writer, &base);
        if random.below(3) == 0 {
            writer.sweep(NOW, 50).expect("a sweep");
        }
        let pending_max = if mix.pending_max == 0 { 24 } else { mix.pending_max };
        let pending: Vec<_> = (0..random.below(pending_max))
            .map(|_| match random.below(6) {
                0 => random.change("another id", mix, false),
                _ => random.change(&id, mix, false),
            })
            .collect();
        let questions: Vec<_> = (0..8).map(|_| random.question()).collect();
        let over = |reader: &Reader| -> Vec<_> {
            let ask =
                |question| with_mutations(&pending, |mutations| walk(reader, &id, question, Some(mutations)));
            questions.iter().map(ask).collect()
        };
        // Where deletes are forgotten nothing can be applied a second time without effect.
        let is_once = mix.range_deletes > 0;
        let before = over(&reader);
        if !is_once {
            apply(&mut writer, &pending[..random.below(pending.len() + 1)]);
        }
        let halfway = over(&reader);
        apply(&mut writer, &pending);
        let after = over(&reader);
        for (position, question) in questions.iter().enumerate() {
            let real = walk(&reader, &id, question, None);
            let states = [(&before, "none"), (&halfway, "some"), (&after, "all")];
            for (found, when) in &states[..if is_once { 2 } else { 3 }] {
                assert!(
                    found[position] == real,
                    "{context}: {question:?}, {when} applied\npending {pending:?}\nfound {:?}\nreal {real:?}",
                    found[position]
                );
            }
            shown += real.concat().len();
        }
    }
    assert!(
        shown > rounds,
        "the questions have answers: {shown} items in {rounds} rounds"
    );
}

#[derive(Clone, Debug)]
struct Change {
    id: String,
    version: Version,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Put(Vec<OwnedItem>),
    Delete(Keys),
    Swap(OwnedItem),
    /// A put that the writer refuses.
    TooMany,
}

#[derive(Clone, Debug)]
enum Keys {
    All,
    These(Vec<Vec<u8>>),
    Range(Vec<u8>, Vec<u8>),
}

#[derive(Debug)]
struct Question {
    keys: Keys,
    page_bytes: u32,
    item_limit: u32,
}

/// Lends the changes as mutations.
fn with_mutations<T>(changes: &[Change], work: impl FnOnce(&[Mutation<'_>]) -> T) -> T {
    let blank = ItemRef {
        key: b"",
        value: b"",
        expires_at: None,
        compression: 0,
    };
    let parts: Vec<(Vec<ItemRef<'_>>, Vec<&[u8]>)> = changes
        .iter()
        .map(|change| match &change.what {
            What::Put(items) => (items.iter().map(OwnedItem::as_ref).collect(), Vec::new()),
            What::TooMany => (vec![blank; limits::ITEMS_PER_PUT_MAX + 1], Vec::new()),
            What::Delete(Keys::These(keys)) => (Vec::new(), keys.iter().map(Vec::as_slice).collect()),
            _ => Default::default(),
        })
        .collect();
    let mutations: Vec<_> = changes
        .iter()
        .zip(&parts)
        .map(|(change, (items, keys))| Mutation {
            namespace: SPACE,
            id: &change.id,
            version: change.version,
            at: NOW,
            digest: None,
            operation: match &change.what {
                What::Put(_) | What::TooMany => Operation::Put(items),
                What::Delete(meant) => Operation::Delete(predicate(meant, keys)),
                What::Swap(item) => Operation::CompareAndSwap {
                    key: &item.key,
                    expected: Expected::Absent,
                    replacement: Some(item.as_ref()),
                },
            },
        })
        .collect();
    work(&mutations)
}

fn predicate<'a>(meant: &'a Keys, keys: &'a [&'a [u8]]) -> PredicateRef<'a> {
    match meant {
        Keys::All => PredicateRef::All,
        Keys::These(_) => PredicateRef::Keys(keys),
        Keys::Range(start, end) => PredicateRef::Range { start, end },
    }
}

fn apply(writer: &mut Writer, changes: &[Change]) {
    let mut outcomes = Vec::new();
    with_mutations(changes, |mutations| writer.apply(mutations, &mut outcomes)).expect("a batch");
}

/// All pages of a query: read over the pending mutations, or plainly.
fn walk(
    reader: &Reader,
    id: &str,
    question: &Question,
    pending: Option<&[Mutation<'_>]>,
) -> Vec<Vec<OwnedItem>> {
    let keys: Vec<&[u8]> = match &question.keys {
        Keys::These(keys) => keys.iter().map(Vec::as_slice).collect(),
        _ => Vec::new(),
    };
    let mut page_token = Vec::new();
    let mut pages = Vec::new();
    loop {
        let query = GetQuery {
            namespace: SPACE,
            id,
            predicate: predicate(&question.keys, &keys),
            selection: Selection {
                page_bytes: question.page_bytes,
                item_limit: question.item_limit,
                page_token: &page_token,
            },
        };
        let mut found: Vec<OwnedItem> = Vec::new();
        let next = match pending {
            Some(pending) => reader.get_over(&query, pending, NOW, &mut found),
            None => reader.get(&query, NOW, &mut found),
        };
        pages.push(found);
        match next.expect("a page") {
            Some(token) => page_token = token.as_bytes().to_vec(),
            None => return pages,
        }
        assert!(pages.len() < 1_000, "the walk does not end");
    }
}

#[test]
fn what_is_refused_to_get_is_refused_to_get_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(&directory.path().join("items.db"), Options::default()).expect("a store");
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    struct Nothing;
    impl ItemSink for Nothing {
        fn item(&mut self, _: &ItemRef<'_>, _: Version) {
            panic!("an item");
        }
    }
    let query = GetQuery {
        namespace: SPACE,
        id: "id",
        predicate: PredicateRef::All,
        selection: Selection::default(),
    };
    let delete = Mutation {
        namespace: SPACE,
        id: "id",
        version: Version::new(1, b"t"),
        at: NOW,
        digest: None,
        operation: Operation::Delete(PredicateRef::All),
    };
    let ask = |query: GetQuery<'_>| reader.get_over(&query, &[delete], NOW, &mut Nothing);
    assert_eq!(ask(query), Ok(None));
    let nowhere = NamespaceId(99);
    let unknown = ask(GetQuery {
        namespace: nowhere,
        ..query
    });
    assert_eq!(unknown, Err(StoreError::UnknownNamespace(nowhere)));
    let unnamed = ask(GetQuery { id: "", ..query });
    assert!(
        matches!(unnamed, Err(StoreError::InvalidArgument { .. })),
        "{unnamed:?}"
    );
    let selection = Selection {
        page_token: b"garbage",
        ..Selection::default()
    };
    assert_eq!(
        ask(GetQuery { selection, ..query }),
        Err(StoreError::InvalidPageToken)
    );
    writer.drop_namespace(SPACE).expect("a drop");
    assert_eq!(ask(query), Err(StoreError::DroppedNamespace(SPACE)));
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

    fn key(&mut self) -> Vec<u8> {
        match self.below(10) {
            0 => Vec::new(),
            1 => vec![0xff; self.below(3) + 1],
            2 => vec![b'a' + self.below(8) as u8, 0],
            3..6 => vec![self.below(100) as u8],
            _ => vec![b'a' + self.below(8) as u8],
        }
    }

    fn keys(&mut self) -> Keys {
        match self.below(5) {
            0 => Keys::All,
            1 | 2 => Keys::These((0..self.below(4) + 1).map(|_| self.key()).collect()),
            // Some of them empty, or the wrong way round.
            _ => Keys::Range(self.key(), self.key()),
        }
    }

    fn item(&mut self, mix: &Mix) -> OwnedItem {
        let length = match self.below(8) {
            0 if mix.large_values => limits::CHUNK_BYTES + self.below(2 * limits::CHUNK_BYTES),
            length => length * 5,
        };
        let expires_at = match self.below(6) {
            0 => Some(UnixMillis(NOW.0 - 1 + self.below(3) as u64)),
            1 => Some(NOW.plus(1_000)),
            2 => Some(UnixMillis(u64::MAX)),
            _ => None,
        };
        OwnedItem {
            key: self.key(),
            value: vec![self.below(256) as u8; length],
            expires_at,
            compression: self.below(4) as u8,
        }
    }

    /// Versions are few, so that many are equal and many come late.
    fn change(&mut self, id: &str, mix: &Mix, with_swaps: bool) -> Change {
        let version = Version::new(self.below(12) as i64, &[self.below(3) as u8]).at_position(self.below(2));
        let what = match self.below(10 + mix.range_deletes) {
            0..6 => What::Put((0..self.below(4) + 1).map(|_| self.item(mix)).collect()),
            6 if with_swaps => What::Swap(self.item(mix)),
            6 if self.below(4) == 0 => What::TooMany,
            6..10 if mix.range_deletes == 0 => What::Delete(self.keys()),
            6..10 => What::Delete(Keys::These(vec![self.key()])),
            _ => {
                let start = vec![self.below(100) as u8];
                let end = [&start[..], &[0]].concat();
                What::Delete(Keys::Range(start, end))
            }
        };
        Change {
            id: id.to_owned(),
            version,
            what,
        }
    }

    fn question(&mut self) -> Question {
        Question {
            keys: self.keys(),
            page_bytes: [0, 1, 60, 200][self.below(4)],
            item_limit: self.below(4) as u32,
        }
    }
}
