//! Changes against a real catalog, with a store and shards that are sets of numbers: every order of
//! events, and every crash between two of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::catalog::StoreRef, *};
use crate::{
    call::ticket::CallId,
    config::{EmbeddedStore, ServeOptions},
    namespace::spec::StoreId,
};

const SHARDS: usize = 2;

/// The world outside of control: what outlives it, and what its callers got.
#[derive(Default)]
struct World {
    /// Objects in the store.
    store: BTreeSet<u32>,
    /// Answers of the store to the next tasks, by namespace; without an entry it does as asked.
    faults: BTreeMap<u32, fn() -> Fault>,
    /// State of each namespace on the shards.
    shards: BTreeMap<u32, NamespaceState>,
    answers: Vec<(u32, Vec<Result<(), String>>)>,
}

struct Harness {
    directory: tempfile::TempDir,
    catalog: Option<Catalog>,
    changes: Changes,
    world: World,
    now: Instant,
}

impl Harness {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let catalog = Catalog::open(directory.path()).expect("a catalog");
        Self {
            directory,
            catalog: Some(catalog),
            changes: Changes::new(SHARDS, stores()),
            world: World::default(),
            now: Instant::now(),
        }
    }

    fn catalog(&mut self) -> &mut Catalog {
        self.catalog.as_mut().expect("an open catalog")
    }

    /// Records namespaces as `Create` does, and begins.
    fn create(&mut self, names: &[&str], call: u32) -> Vec<u32> {
        let mut entries: Vec<_> = names.iter().map(|name| entry(name)).collect();
        let inserted = self.catalog().create(&entries, 100).expect("room");
        let super::super::catalog::Insert::Done(ids) = inserted else {
            panic!("{inserted:?}");
        };
        entries
            .iter_mut()
            .zip(&ids)
            .for_each(|(entry, id)| entry.id = *id);
        let caller = self.caller(call);
        self.changes.begin(Action::Create, entries, Some(caller));
        ids
    }

    fn delete(&mut self, name: &str, call: u32) {
        let entry = self.catalog().entry(name).expect("a row").expect("a namespace");
        let caller = self.caller(call);
        if entry.state == NamespaceState::Deleting && self.changes.join(entry.id, caller) {
            return;
        }
        self.catalog().begin_delete(&[entry.id]).expect("a row");
        self.changes.begin(Action::Delete, vec![entry], Some(caller));
    }

    fn update(&mut self, name: &str, call: u32) {
        let mut entry = self.catalog().entry(name).expect("a row").expect("a namespace");
        let yaml = format!("{}team: new\n", entry.yaml);
        let is_begun = self.catalog().begin_update(entry.id, entry.version, &yaml);
        assert!(is_begun.expect("a row"));
        entry.state = NamespaceState::Updating;
        entry.pending = Some(yaml);
        let caller = self.caller(call);
        self.changes
            .begin(Action::Update, vec![entry.updated()], Some(caller));
    }

    fn caller(&self, call: u32) -> Caller {
        Caller {
            ticket: Ticket {
                shard: 0,
                slot: call,
                generation: 0,
                call: CallId::Request(1),
                namespace: NamespaceId(0),
                caller: crate::identity::CallerId::NOBODY,
            },
            answer_by: self.now + Duration::from_secs(60),
            form: Form::Create,
        }
    }

    /// Carries out at most `max` orders, with all that follows from them. Returns how many there
    /// were.
    fn run(&mut self, max: usize) -> usize {
        let mut done = 0;
        loop {
            let orders = self.changes.take_orders();
            if orders.is_empty() {
                return done;
            }
            for order in orders {
                if done == max {
                    // Stays where it was.
                    self.changes.orders.push(order);
                    continue;
                }
                done += 1;
                self.carry_out(order);
            }
            if done == max {
                return done;
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        let catalog = self.catalog.as_mut().expect("an open catalog");
        match order {
            Order::Store {
                change,
                action,
                objects,
                home,
            } => {
                assert_eq!(home, Some(Home::Store(StoreId(0))));
                let results = objects
                    .iter()
                    .map(|object| (object.id, self.world.provision(action, object)));
                let results = results.collect();
                self.changes
                    .handle_provisioned(catalog, change, results, self.now);
            }
            Order::Shards { change, changes } => {
                changes.iter().for_each(|change| self.world.apply(change));
                for change in change.iter().cycle().take(SHARDS * change.iter().count()) {
                    self.changes.handle_applied(catalog, *change, Ok(()), self.now);
                }
            }
            Order::ForgetFigures(_) => {}
            Order::Answer { caller, outcomes } => {
                let results = outcomes.into_iter().map(|outcome| {
                    outcome
                        .result
                        .map_err(|status| status.reason().unwrap_or_default())
                });
                self.world.answers.push((caller.ticket.slot, results.collect()));
            }
        }
    }

    /// The process dies, and another one begins with what is on disk.
    fn crash(&mut self) {
        self.catalog = None;
        self.catalog = Some(Catalog::open(self.directory.path()).expect("a catalog"));
        self.changes = Changes::new(SHARDS, stores());
        self.world.shards.clear();
        for entry in self.catalog().entries().expect("rows") {
            self.world.shards.insert(entry.id, entry.state);
            let action = match entry.state {
                NamespaceState::Provisioning => Action::Create,
                NamespaceState::Updating => Action::Update,
                NamespaceState::Deleting => Action::Delete,
                NamespaceState::Active => continue,
            };
            self.changes.begin(action, vec![entry.updated()], None);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.changes.handle_time(self.now);
        self.run(usize::MAX);
    }

    /// State and version that catalog, store and shards have of a namespace; they agree once
    /// nothing is under way.
    #[track_caller]
    fn settled(&mut self, name: &str) -> Option<(NamespaceState, u64)> {
        assert!(self.changes.open.is_empty(), "{:?}", self.changes);
        assert!(self.changes.current.is_empty() && self.changes.joined.is_empty());
        assert!(self.changes.calls.is_empty());
        let entry = self.catalog().entry(name).expect("a row");
        let served: Vec<_> = self.world.shards.values().collect();
        let rows = self.catalog.as_ref().expect("a catalog").entries().expect("rows");
        assert_eq!(
            self.world.store.len(),
            rows.len(),
            "the store has what the catalog has"
        );
        assert_eq!(served.len(), rows.len());
        assert!(served.iter().all(|state| **state == NamespaceState::Active));
        entry.map(|entry| (entry.state, entry.version))
    }

    fn answers(&mut self) -> Vec<(u32, Vec<Result<(), String>>)> {
        std::mem::take(&mut self.world.answers)
    }
}

impl World {
    fn provision(&mut self, action: Action, object: &Object) -> Result<(), Fault> {
        if let Some(fault) = self.faults.get(&object.id.0) {
            return Err(fault());
        }
        match action {
            Action::Create => self.store.insert(object.id.0),
            Action::Update => self.store.contains(&object.id.0),
            Action::Delete => self.store.remove(&object.id.0),
        };
        Ok(())
    }

    fn apply(&mut self, change: &NamespaceChange) {
        match change {
            NamespaceChange::Set(spec) => self.shards.insert(spec.id.0, spec.state),
            NamespaceChange::Forget(id) => self.shards.remove(&id.0),
        };
    }
}

fn entry(name: &str) -> CatalogEntry {
    CatalogEntry {
        id: 0,
        name: name.to_owned(),
        team: String::new(),
        client_api: "keyvalue".to_owned(),
        durability: "best-effort".to_owned(),
        backend: String::new(),
        store: StoreRef {
            name: "embedded".into(),
            kind: "sqlite".into(),
        },
        create_time_ns: 0,
        yaml: format!("namespace: {name}\nclient_api: keyvalue\nneeds: {{durability: best-effort}}\n"),
        state: NamespaceState::Provisioning,
        version: 1,
        pending: None,
    }
}

/// The embedded store alone.
fn stores() -> Stores {
    let options = ServeOptions {
        embedded: EmbeddedStore::Sqlite,
        ..ServeOptions::default()
    };
    Stores::of(&options, None)
}

fn locked() -> Fault {
    Fault::Retry("locked by the test".to_owned())
}

fn foreign() -> Fault {
    let status = Status::new(prism_codec::grpc::Code::FailedPrecondition, "not ours");
    Fault::Refused(Box::new(status.with_reason("STORE_OBJECT_FOREIGN", &[])))
}

const ACTIVE: NamespaceState = NamespaceState::Active;

#[test]
fn create_update_delete() {
    let mut harness = Harness::new();
    harness.create(&["a"], 1);
    assert_eq!(harness.run(1), 1);
    assert_eq!(
        harness.world.shards[&1],
        NamespaceState::Provisioning,
        "known, and not served"
    );
    assert!(harness.world.store.is_empty());
    harness.run(usize::MAX);
    assert_eq!(harness.settled("a"), Some((ACTIVE, 1)));
    harness.update("a", 2);
    harness.run(usize::MAX);
    assert_eq!(harness.settled("a"), Some((ACTIVE, 2)));
    harness.delete("a", 3);
    harness.run(usize::MAX);
    assert_eq!(harness.settled("a"), None);
    assert_eq!(harness.answers(), [1, 2, 3].map(|call| (call, vec![Ok(())])));
}

#[test]
fn a_crash_after_any_step_ends_where_the_change_would_have() {
    type Begin = fn(&mut Harness);
    let changes: [(Begin, Option<(NamespaceState, u64)>); 3] = [
        (|harness| drop(harness.create(&["x"], 1)), Some((ACTIVE, 1))),
        (|harness| harness.update("kept", 1), None),
        (|harness| harness.delete("kept", 1), None),
    ];
    for (number, (begin, end_of_x)) in changes.into_iter().enumerate() {
        for steps in 0.. {
            let mut harness = Harness::new();
            harness.create(&["kept"], 0);
            harness.run(usize::MAX);
            begin(&mut harness);
            let is_whole = harness.run(steps) < steps;
            harness.crash();
            harness.run(usize::MAX);
            assert_eq!(harness.settled("x"), end_of_x, "{number}, {steps} steps");
            let kept = [Some((ACTIVE, 1)), Some((ACTIVE, 2)), None][number];
            assert_eq!(harness.settled("kept"), kept, "{number}, {steps} steps");
            if is_whole {
                assert!(steps >= 4, "{number}: {steps} steps");
                break;
            }
        }
    }
}

#[test]
fn a_store_that_is_away_delays_a_create_and_its_caller_learns_how_far_it_is() {
    let mut harness = Harness::new();
    harness.world.faults.insert(1, locked);
    harness.create(&["a"], 1);
    harness.run(usize::MAX);
    assert_eq!(harness.changes.trouble(1), Some("locked by the test"));
    let mut pauses = Vec::new();
    while harness.answers().is_empty() {
        let next = harness.changes.next_time().expect("a pause");
        pauses.push((next - harness.now).as_millis());
        let pause = next - harness.now;
        harness.pass(pause);
    }
    assert!(
        pauses[0] >= 1_000 && pauses[1] >= 2_000 && pauses[2] >= 4_000,
        "{pauses:?}"
    );
    assert!(
        pauses.len() < 8,
        "the last wait is cut by the caller's time: {pauses:?}"
    );
    harness.world.faults.clear();
    harness.pass(Duration::from_secs(400));
    assert_eq!(harness.settled("a"), Some((ACTIVE, 1)));
    assert_eq!(harness.answers(), [], "the caller has gone");
}

#[test]
fn a_create_that_the_store_refuses_is_taken_back_before_its_caller_learns_why() {
    let mut harness = Harness::new();
    harness.world.faults.insert(2, foreign);
    harness.create(&["a", "b", "c"], 1);
    // Up to the store's answer; nothing can be undone while it refuses everything.
    harness.run(usize::MAX);
    assert_eq!(harness.answers(), []);
    assert_eq!(
        harness.catalog().entry("b").unwrap().unwrap().state,
        NamespaceState::Deleting
    );
    harness.world.faults.clear();
    harness.pass(Duration::from_secs(10));
    let refused = Err("STORE_OBJECT_FOREIGN".to_owned());
    assert_eq!(harness.answers(), [(1, vec![Ok(()), refused, Ok(())])]);
    assert_eq!(harness.settled("b"), None);
    assert_eq!(harness.settled("c"), Some((ACTIVE, 1)));
    harness.create(&["b"], 2);
    harness.run(usize::MAX);
    assert_eq!(harness.settled("b"), Some((ACTIVE, 1)));
}

#[test]
fn an_update_that_the_store_refuses_leaves_the_old_file() {
    let mut harness = Harness::new();
    harness.create(&["a"], 1);
    harness.run(usize::MAX);
    harness.world.faults.insert(1, foreign);
    harness.update("a", 2);
    harness.run(usize::MAX);
    assert_eq!(harness.settled("a"), Some((ACTIVE, 1)));
    let refused = Err("STORE_OBJECT_FOREIGN".to_owned());
    assert_eq!(harness.answers(), [(1, vec![Ok(())]), (2, vec![refused])]);
}

#[test]
fn a_delete_ends_a_create_that_waits_and_later_deletes_wait_for_it() {
    let mut harness = Harness::new();
    harness.world.faults.insert(1, locked);
    harness.create(&["a"], 1);
    harness.run(usize::MAX);
    harness.delete("a", 2);
    harness.run(usize::MAX);
    assert_eq!(
        harness.answers(),
        [(1, vec![Err("NAMESPACE_DELETED".to_owned())])]
    );
    harness.delete("a", 3);
    harness.pass(Duration::from_secs(59));
    harness.delete("a", 4);
    harness.pass(Duration::from_secs(1));
    let late = Err("NAMESPACE_DELETING".to_owned());
    assert_eq!(
        harness.answers(),
        [(2, vec![late.clone()]), (3, vec![late])],
        "their time is over, that of the last one is not"
    );
    harness.world.faults.clear();
    harness.pass(Duration::from_secs(50));
    assert_eq!(harness.answers(), [(4, vec![Ok(())])]);
    assert_eq!(harness.settled("a"), None);
}

#[test]
fn answers_to_earlier_questions_change_nothing() {
    let mut harness = Harness::new();
    harness.create(&["a"], 1);
    let orders = harness.changes.take_orders();
    let Some(Order::Store { change, .. }) = orders.last() else {
        panic!("{orders:?}");
    };
    let (change, now) = (*change, harness.now);
    harness.changes.handle_no_room(change, now);
    let catalog = harness.catalog.as_mut().expect("a catalog");
    let late = vec![(NamespaceId(1), Ok(()))];
    harness.changes.handle_provisioned(catalog, change, late, now);
    harness.changes.handle_applied(catalog, change, Ok(()), now);
    assert!(harness.changes.take_orders().is_empty());
    harness.pass(PAUSE_SHORT);
    assert_eq!(harness.answers(), [(1, vec![Ok(())])]);
    assert_eq!(harness.settled("a"), Some((ACTIVE, 1)));
}

#[test]
fn a_change_that_another_gateway_holds_is_given_up_watched_or_taken_over() {
    let mut harness = Harness::new();
    let id = harness.create(&["a"], 1)[0];
    assert!(harness.changes.drives(id));
    harness.catalog().begin_delete(&[id]).expect("a row");
    let entry = harness.catalog().entry("a").expect("a row").expect("a namespace");
    harness.changes.give_up(&entry);
    harness.run(usize::MAX);
    let deleted = Err("NAMESPACE_DELETED".to_owned());
    assert_eq!(harness.answers(), [(1, vec![deleted])], "another one deletes it");

    for call in [2, 3] {
        let caller = harness.caller(call);
        harness.changes.watch(entry.clone(), caller);
    }
    assert!(!harness.changes.drives(id));
    harness.pass(Duration::from_secs(1));
    assert_eq!(harness.answers(), [], "nothing is done here");
    harness.changes.give_up(&entry);
    assert_eq!(harness.answers(), [], "there is nothing to give up");
    harness.changes.resume(Action::Delete, entry);
    assert!(harness.changes.drives(id), "the other one has left it");
    harness.run(usize::MAX);
    let mut answers = harness.answers();
    answers.sort_unstable_by_key(|(call, _)| *call);
    assert_eq!(answers, [2, 3].map(|call| (call, vec![Ok(())])));
    assert_eq!(harness.settled("a"), None);

    let id = harness.create(&["b"], 4)[0];
    harness.run(usize::MAX);
    let entry = harness.catalog().entry("b").expect("a row").expect("a namespace");
    let caller = harness.caller(5);
    harness.changes.watch(entry, caller);
    harness.changes.handle_gone(id);
    harness.run(usize::MAX);
    assert_eq!(harness.answers(), [4, 5].map(|call| (call, vec![Ok(())])));
}
