//! Groups of subscribers in the file: a row for each, which holds its record.

use rusqlite::{Connection, OptionalExtension, params};

use super::reader::{opened, time_of};
use super::space::{self, number_at};
use super::writer::TopicTransaction;
use crate::api::groups::{
    Act, COUNTED_MAX, Change, Changed, GROUPS_MAX, Group, GroupChange, Groups, Listed, Outcome, Start,
};
use crate::api::pubsub::Opened;
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::mutation::is_expired;
use crate::sqlite::file::schema::blob;
use crate::sqlite::{Reader, SqliteStore, Writer};

impl TopicTransaction<'_> {
    /// Carries out an act on a group. A refusal is an outcome; an error ends the transaction.
    pub fn change(&mut self, change: &Change<'_>) -> Result<Outcome, StoreError> {
        let (namespace, at) = (change.namespace, change.at);
        if let Err(cause) = self.state.check_namespace(namespace) {
            return Ok(Outcome::Refused(cause));
        }
        if self.is_repeat {
            return Ok(match change.act {
                Act::Delete { .. } => Outcome::Deleted,
                _ => Outcome::Reset,
            });
        }
        let connection = self.connection;
        let mut record = load(connection, namespace, change.group)?;
        let was_there = record.is_some();
        let has_room = was_there || count(connection, namespace)? < GROUPS_MAX;
        let spaces = &mut self.state.spaces;
        let mut failure = None;
        let mut resolve = |start: Start| {
            let found = spaces
                .of(connection, namespace)
                .and_then(|space| opened(connection, space, start, at));
            match found {
                Ok(Opened::At(number)) => Ok(Start::Number(number)),
                Ok(Opened::Expired(oldest)) => Err(Outcome::PositionExpired(oldest)),
                Ok(Opened::Unknown) => Err(Outcome::PositionInvalid),
                Err(cause) => {
                    failure = Some(cause.clone());
                    Err(Outcome::Refused(cause))
                }
            }
        };
        let (outcome, changed) = Group::act(&mut record, &change.act, at, has_room, &mut resolve);
        if let Some(cause) = failure {
            return Err(cause);
        }
        if changed != Changed::Nothing {
            match &record {
                Some(group) => {
                    let mut state = Vec::new();
                    group.encode(&mut state);
                    connection
                        .prepare_cached(STORE)?
                        .execute(params![namespace.0, change.group, state])?;
                }
                None => {
                    connection
                        .prepare_cached(DELETE)?
                        .execute(params![namespace.0, change.group])?;
                }
            }
            self.state.group_news.add(namespace, change.group, changed);
        }
        Ok(outcome)
    }
}

impl Writer {
    /// The groups that have changed since the last call.
    pub fn take_group_changes(&mut self) -> Vec<GroupChange> {
        let (_, _, state) = self.parts();
        state.group_news.take()
    }
}

impl Reader {
    /// Lists groups; see [`Groups::list_groups`].
    pub fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<Listed>, StoreError> {
        self.check_namespace(namespace)?;
        let connection = &self.connection;
        self.in_one_snapshot(|| {
            let mut statement = connection.prepare_cached(LIST)?;
            let mut rows = statement.query(params![namespace.0, after, limit as i64])?;
            let mut listed = Vec::new();
            while let Some(row) = rows.next()? {
                let group = Group::decode(blob(row, 1)?)?;
                let places: Vec<Start> = group.places().collect();
                let (behind, oldest) = messages_behind(connection, namespace, &places, now)?;
                listed.push(group.listed(row.get(0)?, now, behind, oldest));
            }
            Ok(listed)
        })
    }
}

/// Messages after the places of the partitions, and the time of the oldest.
fn messages_behind(
    connection: &Connection,
    namespace: NamespaceId,
    places: &[Start],
    now: UnixMillis,
) -> Result<(u64, Option<UnixMillis>), StoreError> {
    let Some(space) = space::load(connection, namespace)? else {
        return Ok((0, None));
    };
    let number = |place: &Start| match place {
        Start::Number(number) => *number,
        _ => 0,
    };
    let first = places.iter().map(number).min().unwrap_or(space.next);
    let mut statement = connection.prepare_cached(BEHIND)?;
    let mut rows = statement.query(params![space.place(first), space.end()])?;
    let (mut behind, mut oldest) = (0, None);
    for _ in 0..COUNTED_MAX {
        let Some(row) = rows.next()? else {
            return Ok((behind, oldest));
        };
        let at = number_at(row.get(0)?);
        let place = places.get(usize::from(row.get::<_, u16>(1)?)).map_or(0, number);
        if at < place || is_expired(row.get::<_, Option<i64>>(3)?.map(time_of), now) {
            continue;
        }
        behind += 1;
        if oldest.is_none() {
            oldest = Some(time_of(row.get(2)?));
        }
    }
    let Some(row) = rows.next()? else {
        return Ok((behind, oldest));
    };
    let at = number_at(row.get(0)?);
    Ok((behind + space.next.saturating_sub(at), oldest))
}

fn load(connection: &Connection, namespace: NamespaceId, name: &str) -> Result<Option<Group>, StoreError> {
    let state = connection
        .prepare_cached(LOAD)?
        .query_row(params![namespace.0, name], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    state.map(|state| Group::decode(&state)).transpose()
}

fn count(connection: &Connection, namespace: NamespaceId) -> Result<usize, StoreError> {
    let count = connection
        .prepare_cached(COUNT)?
        .query_row([namespace.0], |row| row.get::<_, u32>(0))?;
    Ok(count as usize)
}

impl Groups for SqliteStore {
    async fn change_groups(
        &self,
        changes: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        let positions = at.map_or(&[][..], std::slice::from_ref);
        let mut writer = self.writer.borrow_mut();
        let made = writer.topics_at(positions, |transaction| {
            changes.iter().map(|change| transaction.change(change)).collect()
        });
        made.map(|made: Vec<Outcome>| outcomes.extend(made))
    }

    async fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<Listed>, StoreError> {
        self.reader.list_groups(namespace, after, limit, now)
    }
}

const LOAD: &str = "SELECT state FROM message_group WHERE namespace = ?1 AND name = ?2";
const STORE: &str = "INSERT INTO message_group (namespace, name, state) VALUES (?1, ?2, ?3)
    ON CONFLICT (namespace, name) DO UPDATE SET state = excluded.state";
const DELETE: &str = "DELETE FROM message_group WHERE namespace = ?1 AND name = ?2";
const COUNT: &str = "SELECT count(*) FROM message_group WHERE namespace = ?1";
const LIST: &str = "SELECT name, state FROM message_group WHERE namespace = ?1 AND name > ?2
    ORDER BY name LIMIT ?3";
const BEHIND: &str = "SELECT place, partition, time_ms, expires_at FROM message
    WHERE place >= ?1 AND place < ?2 ORDER BY place";
