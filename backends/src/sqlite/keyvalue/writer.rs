//! The one writer of a SQLite store: applies a batch of mutations as one transaction, with an
//! outcome for each, and does in steps what such transactions, and older programs, have left.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::change::{Change, PUT};
use super::marks::Marks;
use super::namespaces::{self, NamespaceState, Namespaces, SET_NAMESPACE};
use super::relocation::{self, Relocation};
use super::removals::{Removals, Unfinished};
use super::steps::{self, Budget};
use super::sweep;
use super::values::Replaced;
use crate::api::groups::GroupNews;
use crate::api::keyvalue::{Remembers, Sweep};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::mutation::{Mutation, Outcome};
use crate::sqlite::Options;
use crate::sqlite::file::Shared;
use crate::sqlite::file::positions;
use crate::sqlite::file::schema::{FileLock, blob};
use crate::sqlite::file::stamps::Stamps;
use crate::sqlite::file::transaction::in_transaction;
use crate::sqlite::pubsub::{self, Spaces};
use crate::sqlite::queue;

/// Mutations of a stream's batch after which the thread gives way to others that want its core:
/// some tens of microseconds.
const GIVE_WAY_EVERY: usize = 4;

/// Orphans, too: what is deleted there later must not be a new value's.
const LAST_VALUE: &str =
    "SELECT max(ifnull((SELECT max(place) FROM chunk), 0), ifnull((SELECT max(place) FROM orphan), 0)) / 16";

/// Applies mutations. One per store; `Send`, so that it can live on a helper thread.
#[derive(Debug)]
pub struct Writer {
    pub(in crate::sqlite) connection: Connection,
    options: Options,
    pub(in crate::sqlite) shared: Arc<Shared>,
    pub(in crate::sqlite) state: State,
    replaced: Replaced,
    _lock: Arc<FileLock>,
}

/// State that the writer keeps in memory, in addition to the file.
#[derive(Debug)]
pub(in crate::sqlite) struct State {
    namespaces: Namespaces,
    pub(super) range_deletes: Marks,
    /// Range deletes that the running transaction removes; unmarked once it has committed.
    pub(super) unmarked: Vec<(NamespaceId, Vec<u8>)>,
    pub(super) removals: Removals,
    /// Removals that the running transaction may still do.
    pub(super) budget: Budget,
    /// Progress of moving values of an older format, while some are left.
    relocation: Option<Relocation>,
    /// The number of the next value that needs chunks.
    pub(super) next_value: i64,
    pub(super) next_swap: i64,
    stamps: Stamps,
    /// The namespaces with messages.
    pub(in crate::sqlite) spaces: Spaces,
    /// Groups of subscribers that have changed since somebody asked.
    pub(in crate::sqlite) group_news: GroupNews,
}

/// Answer of [`Writer::presence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The number was never used.
    Absent,
    /// The namespace takes data.
    Live,
    /// It was dropped; its rows are gone, or go step by step.
    Dropped,
    /// The whole store belongs to another catalog. Never so of a file, which is one gateway's.
    Foreign,
}

impl Writer {
    pub(in crate::sqlite) fn new(
        mut connection: Connection,
        options: Options,
        shared: Arc<Shared>,
        unfinished: Arc<Unfinished>,
        lock: Arc<FileLock>,
    ) -> Result<Writer, StoreError> {
        let state = State::load(&connection, unfinished)?;
        let replaced = Replaced::default();
        replaced.add_function(&connection)?;
        let hooked = shared.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            hooked.wal_pages.set(pages as u64);
            Ok(())
        }))?;
        Ok(Writer {
            connection,
            options,
            shared,
            state,
            replaced,
            _lock: lock,
        })
    }

    /// How deletes are remembered; those of keys are rows, bounded by the disk and the window only.
    pub fn remembers(&self) -> Remembers {
        Remembers {
            window_ms: self.options.tombstone_window_ms,
            deletes_max: self.options.range_deletes_max,
        }
    }

    /// Makes a namespace as [`crate::api::keyvalue::Upkeep::create_namespace`] does.
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        match self.state.namespaces.get(&namespace) {
            Some(NamespaceState::Live) => Ok(()),
            Some(_) => Err(StoreError::DroppedNamespace(namespace)),
            None => self.set_namespace(namespace, NamespaceState::Live),
        }
    }

    /// The parts that a transaction works with.
    pub(in crate::sqlite) fn parts(&mut self) -> (&Connection, &Shared, &mut State) {
        (&self.connection, &self.shared, &mut self.state)
    }

    /// Makes many namespaces as [`Writer::create_namespace`] does, in one transaction.
    ///
    /// Errors: as of that; none of them was made then.
    pub fn create_namespaces(&mut self, namespaces: &[NamespaceId]) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        for namespace in namespaces {
            match self.state.namespaces.get(namespace) {
                Some(NamespaceState::Live) => {}
                Some(_) => return Err(StoreError::DroppedNamespace(*namespace)),
                None => missing.push(*namespace),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let connection = &self.connection;
        in_transaction(connection, &self.shared, || {
            let mut statement = connection.prepare_cached(SET_NAMESPACE)?;
            for namespace in &missing {
                statement.execute(params![namespace.0, NamespaceState::Live as i64])?;
            }
            Ok(())
        })?;
        let live = missing
            .into_iter()
            .map(|namespace| (namespace, NamespaceState::Live));
        self.state.namespaces.extend(live);
        // Readers load the namespaces anew before their next query.
        self.shared.namespace_epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Drops a namespace as [`crate::api::keyvalue::Upkeep::drop_namespace`] does.
    pub fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        match self.state.namespaces.get(&namespace) {
            Some(NamespaceState::Live) => self.set_namespace(namespace, NamespaceState::Dropped)?,
            Some(_) => {}
            None => self.set_namespace(namespace, NamespaceState::Swept)?,
        }
        self.shared.heads.forget(namespace);
        Ok(())
    }

    /// Reports what the store knows of a namespace.
    pub fn presence(&self, namespace: NamespaceId) -> Presence {
        match self.state.namespaces.get(&namespace) {
            None => Presence::Absent,
            Some(NamespaceState::Live) => Presence::Live,
            Some(_) => Presence::Dropped,
        }
    }

    /// Applies a batch as one transaction; see [`crate::api::keyvalue::Writes::apply`].
    pub fn apply(&mut self, batch: &[Mutation<'_>], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        self.apply_at(batch, &[], outcomes)
    }

    /// Like [`Writer::apply`], and notes in the same transaction up to where the batch's lanes are
    /// applied with it: after a crash the file has both or neither. A position that is not beyond
    /// the noted one changes nothing. A batch without any position beyond the noted ones has been
    /// applied before, perhaps by a commit that was reported as failed: nothing of it is applied
    /// again, and its swaps get the remembered answers. Refused mutations do not hold the
    /// positions. The batch may be empty.
    ///
    /// Errors: as of `apply`; [`StoreError::InvalidArgument`] for a position above 2^63 - 1.
    pub fn apply_at(
        &mut self,
        batch: &[Mutation<'_>],
        positions: &[LogPosition],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if batch.is_empty() && positions.is_empty() {
            return Ok(());
        }
        let Writer {
            connection,
            options,
            shared,
            state,
            replaced,
            ..
        } = self;
        let result = in_transaction(connection, shared, || {
            state.budget.begin(options.remove_at_once_max);
            let is_repeat = !positions.is_empty() && !positions::note(connection, positions)?;
            let mut put = connection.prepare_cached(PUT)?;
            for (number, mutation) in batch.iter().enumerate() {
                // Those who wait for a stream's batch are few. Others wait for the core, which the
                // kernel may leave to them only when its tick comes.
                if !positions.is_empty() && number % GIVE_WAY_EVERY == GIVE_WAY_EVERY - 1 {
                    std::thread::yield_now();
                }
                let mut change = Change {
                    connection,
                    options,
                    state,
                    put: &mut put,
                    replaced,
                    mutation,
                };
                outcomes.push(match is_repeat {
                    false => change.apply()?,
                    true => change.recall()?,
                });
            }
            state.stamps.note(connection)
        });
        state.settle(result.is_ok());
        if result.is_err() {
            outcomes.clear();
        }
        result
    }

    /// The stamps of the writes in the file lie below this, or at it: those to come must lie above.
    /// Up to a second more than needed after a crash; [`i64::MIN`] if there is none.
    pub fn highest_stamp(&self) -> i64 {
        self.state.stamps.noted()
    }

    /// The next batch holds writes with stamps of the gateway up to this one:
    /// [`Writer::highest_stamp`] follows in the same transaction. Times of clients' tokens do not
    /// count.
    pub fn expect_stamp(&mut self, stamp_ns: i64) {
        self.state.stamps.expect(stamp_ns);
    }

    /// Notes that another store gets writes with stamps up to this one. Returns the new
    /// [`Writer::highest_stamp`]: writes up to there need no other note.
    pub fn note_stamp(&mut self, stamp_ns: i64) -> Result<i64, StoreError> {
        self.state.stamps.expect_elsewhere(stamp_ns);
        if stamp_ns > self.highest_stamp() {
            let Writer {
                connection,
                shared,
                state,
                ..
            } = self;
            let result = in_transaction(connection, shared, || state.stamps.note(connection));
            state.settle(result.is_ok());
            result?;
        }
        Ok(self.highest_stamp())
    }

    /// At the end: [`Writer::highest_stamp`] becomes that of the writes and no more.
    pub fn settle_stamps(&mut self) -> Result<(), StoreError> {
        if !self.state.stamps.is_ahead() {
            return Ok(());
        }
        let Writer {
            connection,
            shared,
            state,
            ..
        } = self;
        let result = in_transaction(connection, shared, || state.stamps.note_exactly(connection));
        state.settle(result.is_ok());
        result
    }

    /// Sweeps as [`crate::api::keyvalue::Upkeep::sweep`] does. Goes on with what [`Writer::step`]
    /// does, too.
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let more = self.is_step_due() && self.step(budget)?;
        let Writer {
            connection,
            options,
            shared,
            state,
            ..
        } = self;
        let mut done = Sweep::default();
        let mut swept = None;
        let result = in_transaction(connection, shared, || {
            state.budget.begin(budget);
            let dropped = state
                .namespaces
                .iter()
                .find(|(_, state)| **state == NamespaceState::Dropped)
                .map(|(id, _)| *id);
            if let Some(namespace) = dropped {
                swept = sweep::sweep_namespace(connection, state, namespace, &mut done)?;
            }
            sweep::sweep_items(connection, options, state, now, &mut done)?;
            let left = state.budget.left();
            sweep::sweep_range_deletes(connection, state, now, left, &mut done)?;
            let left = budget.saturating_sub(done.removed);
            pubsub::sweep_expired(connection, &mut state.spaces, now, left, &mut done)?;
            let left = budget.saturating_sub(done.removed);
            queue::sweep(connection, now, left, &mut done)
        });
        state.settle(result.is_ok());
        result?;
        if let Some(namespace) = swept {
            state.namespaces.insert(namespace, NamespaceState::Swept);
        }
        let is_used_up = state.budget.left() == 0 || done.examined >= budget;
        done.more |= more || is_used_up || state.budget.has_orphans() || state.has_dropped();
        sweep::give_back_pages(connection, budget)?;
        Ok(done)
    }

    /// Whether there is something for [`Writer::step`] to do. Looks at memory only.
    pub fn is_step_due(&self) -> bool {
        self.state.budget.has_orphans() || self.state.removals.len() > 0
    }

    /// Removes a part of what earlier batches have deleted and left in the file: one transaction,
    /// for about `budget` rows, of which 4 KiB of a large value are one. Whether there is more. A
    /// kill between two steps loses nothing: the next start goes on.
    pub fn step(&mut self, budget: usize) -> Result<bool, StoreError> {
        let Writer {
            connection,
            shared,
            state,
            ..
        } = self;
        let result = in_transaction(connection, shared, || {
            state.budget.begin(budget);
            steps::delete_orphans(connection, &mut state.budget)?;
            steps::go_on_removing(connection, &mut state.budget, &mut state.removals)
        });
        state.settle(result.is_ok());
        result?;
        Ok(self.is_step_due())
    }

    /// How far the values have been moved that a program of an older format left where they slow
    /// every search; `None` if there are none, or none any more.
    pub fn relocation(&self) -> Option<Relocation> {
        self.state.relocation
    }

    /// Moves some of those values: one transaction, for about `budget` rows as with
    /// [`Writer::step`], but for one value at least. All that is moved since the file has the
    /// newest format; [`Writer::relocation`] says whether there is more. A kill loses nothing.
    pub fn relocate(&mut self, budget: usize) -> Result<Relocation, StoreError> {
        let Some(before) = self.state.relocation else {
            return Ok(Relocation::default());
        };
        let Writer {
            connection,
            shared,
            state,
            ..
        } = self;
        let next_value = state.next_value;
        let result = in_transaction(connection, shared, || {
            state.budget.begin(budget.max(1));
            relocation::go_on(connection, &mut state.budget, &mut state.next_value, before)
        });
        if result.is_err() {
            state.next_value = next_value;
        }
        let (done, is_end) = result?;
        state.relocation = (!is_end).then_some(done);
        Ok(done)
    }

    /// Gives the page cache back; for when there has been no work for a while. The next batches
    /// read from the file.
    pub fn release_memory(&mut self) -> Result<(), StoreError> {
        Ok(self
            .connection
            .prepare_cached("PRAGMA shrink_memory")?
            .execute([])
            .map(drop)?)
    }

    /// Whether the checkpointer has work ([`crate::sqlite::Checkpointer::is_due`]): to be asked
    /// after each batch, so that its thread need not be woken for nothing.
    pub fn is_checkpointer_due(&self) -> bool {
        self.shared.is_checkpointer_due()
    }

    fn set_namespace(&mut self, namespace: NamespaceId, state: NamespaceState) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(SET_NAMESPACE)?;
        statement.execute(params![namespace.0, state as i64])?;
        self.state.namespaces.insert(namespace, state);
        // Readers load the namespaces anew before their next query.
        self.shared.namespace_epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl State {
    fn load(connection: &Connection, unfinished: Arc<Unfinished>) -> Result<State, StoreError> {
        let mut range_deletes = Marks::default();
        let mut statement = connection.prepare("SELECT namespace, id FROM range_delete")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            range_deletes.add(NamespaceId(row.get(0)?), blob(row, 1)?);
        }
        let number = |text: &str| connection.query_row(text, [], |row| row.get::<_, i64>(0));
        Ok(State {
            namespaces: namespaces::load(connection)?,
            range_deletes,
            unmarked: Vec::new(),
            removals: Removals::load(connection, unfinished)?,
            budget: Budget::load(connection)?,
            relocation: relocation::load(connection)?,
            next_value: number(LAST_VALUE)? + 1,
            next_swap: number("SELECT ifnull(max(sequence), 0) + 1 FROM swap")?,
            stamps: Stamps::load(connection)?,
            spaces: Spaces::default(),
            group_news: GroupNews::default(),
        })
    }

    /// After a transaction: what was removed is unmarked, or stays marked if it was not removed
    /// after all. Returns how far the messages of namespaces have come by it.
    pub(in crate::sqlite) fn settle(&mut self, committed: bool) -> Vec<(NamespaceId, u64)> {
        self.stamps.settle(committed);
        for (namespace, id) in self.unmarked.drain(..) {
            if committed {
                self.range_deletes.remove(namespace, &id);
            }
        }
        self.removals.settle(committed);
        self.spaces.settle(committed)
    }

    /// Notes within a transaction how far the stamps of writes have come.
    pub(in crate::sqlite) fn note_stamps(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.stamps.note(connection)
    }

    fn has_dropped(&self) -> bool {
        self.namespaces
            .values()
            .any(|state| *state == NamespaceState::Dropped)
    }

    pub(in crate::sqlite) fn check_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        namespaces::check(&self.namespaces, namespace)
    }

    pub(in crate::sqlite) fn is_dropped(&self, namespace: NamespaceId) -> bool {
        matches!(
            self.namespaces.get(&namespace),
            Some(NamespaceState::Dropped | NamespaceState::Swept)
        )
    }
}
