//! Groups of subscribers in memory. One shard keeps those of a namespace, whichever shards hold its
//! messages: what it does not hold itself it counts by the numbers of the others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::Messages;
use crate::api::groups::{Change, GROUPS_MAX, Group, GroupChange, Groups, Listed, Outcome, Start};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};

impl Messages {
    /// Carries out an act on a group.
    pub fn change_group(&mut self, change: &Change<'_>) -> Outcome {
        let (namespace, at) = (change.namespace, change.at);
        if let Err(cause) = self.ring(namespace) {
            return Outcome::Refused(cause);
        }
        let groups = self.groups.entry(namespace).or_default();
        let mut record = groups.remove(change.group);
        let has_room = record.is_some() || groups.len() < GROUPS_MAX;
        // The messages may be another shard's. The time means the same there, whenever it is
        // looked for; the other starts do so anyway.
        let mut resolve = |start: Start| {
            Ok(match start {
                Start::Latest => Start::Time(at),
                other => other,
            })
        };
        let (outcome, changed) = Group::act(&mut record, &change.act, at, has_room, &mut resolve);
        if let Some(group) = record {
            groups.insert(change.group.to_owned(), group);
        }
        self.group_news.add(namespace, change.group, changed);
        outcome
    }

    /// Whether a group has changed since the last call of [`Messages::take_group_changes`].
    pub fn has_group_changes(&self) -> bool {
        !self.group_news.is_empty()
    }

    /// The groups that have changed since the last call.
    pub fn take_group_changes(&mut self) -> Vec<GroupChange> {
        self.group_news.take()
    }

    /// Lists groups as [`Groups::list_groups`] does. `owner`: the shard that holds a partition's
    /// messages.
    pub fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
        owner: impl Fn(u16) -> usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.ring(namespace)?;
        let none = BTreeMap::new();
        let groups = self.groups.get(&namespace).unwrap_or(&none);
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let some = groups.range::<str, _>(range).take(limit);
        some.map(|(name, group)| {
            let (behind, oldest) = self.behind(namespace, group, now, &owner)?;
            Ok(group.listed(name.clone(), now, behind, oldest))
        })
        .collect()
    }

    fn behind(
        &self,
        namespace: NamespaceId,
        group: &Group,
        now: UnixMillis,
        owner: &impl Fn(u16) -> usize,
    ) -> Result<(u64, Option<UnixMillis>), StoreError> {
        let here = self.heads.shard();
        let places: Vec<(usize, Start)> = (0..).map(owner).zip(group.places()).collect();
        let number = |place: &Start| match place {
            Start::Number(number) => *number,
            _ => 1,
        };
        let mut of_shards: BTreeMap<usize, Vec<(u16, u64)>> = BTreeMap::new();
        for (partition, (shard, place)) in (0..).zip(&places) {
            let of_shard = of_shards.entry(*shard).or_default();
            of_shard.push((partition, number(place)));
        }
        let (mut behind, mut oldest) = (0, None);
        for (shard, numbers) in of_shards {
            if shard != here {
                behind += self.heads.behind(namespace, shard, &numbers);
                continue;
            }
            let first = numbers.iter().map(|(_, number)| *number).min().unwrap_or(1);
            let place = |partition: u16| {
                let place = places.get(usize::from(partition));
                place.filter(|(shard, _)| *shard == here).map(|(_, place)| *place)
            };
            let (own, time) = self.ring(namespace)?.behind(place, first, now);
            (behind, oldest) = (behind + own, time);
        }
        Ok((behind, oldest))
    }
}

impl Groups for RefCell<Messages> {
    async fn change_groups(
        &self,
        changes: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if at.is_some() {
            return Err(StoreError::invalid(
                "position",
                "the memory store notes none: what it has is gone with the process",
            ));
        }
        let mut messages = self.borrow_mut();
        outcomes.extend(changes.iter().map(|change| messages.change_group(change)));
        Ok(())
    }

    async fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<Listed>, StoreError> {
        let messages = self.borrow();
        let here = messages.heads.shard();
        messages.list_groups(namespace, after, limit, now, |_| here)
    }
}
