//! The rules of one group, without a store: who holds which partition, who must give one up, and
//! how far the group has come.

use super::{
    Act, Done, Held, Holding, Listed, MEMBERS_MAX, Outcome, Renew, Report, Start, Terms, To, topics_digest,
};
use crate::ids::UnixMillis;

/// Effect of an act on the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// None: the record need not be written.
    #[default]
    Nothing,
    /// A lease was renewed.
    Lease,
    /// A place has moved.
    Places,
    /// Partitions or members have changed, or the group as a whole.
    Shape,
}

/// The record of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub(super) topics: Vec<String>,
    /// Number of this life.
    pub(super) generation: u64,
    /// Token of the reset that began it; 0: none.
    pub(super) reset_by: u64,
    pub(super) shape: u64,
    pub(super) moves: u64,
    pub(super) last_commit: Option<UnixMillis>,
    pub(super) partitions: Vec<Partition>,
    /// In the order in which they joined.
    pub(super) members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) place: Start,
    pub(super) epoch: u32,
    /// The member that has it.
    pub(super) holder: Option<u64>,
    /// The member that is to have it, and when it gets it at the latest.
    pub(super) next: Option<(u64, UnixMillis)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) until: UnixMillis,
}

/// Finds the number of a start in the store's messages: [`Start::Number`], or a start that means
/// the same whenever it is looked for. `Err`: it cannot be begun with.
pub(crate) type Resolve<'r> = &'r mut dyn FnMut(Start) -> Result<Start, Outcome>;

impl Group {
    /// Lets an act change a record. `has_room`: whether one more group may be made.
    pub(crate) fn act(
        record: &mut Option<Group>,
        act: &Act<'_>,
        at: UnixMillis,
        has_room: bool,
        resolve: Resolve<'_>,
    ) -> (Outcome, Changed) {
        match act {
            Act::Renew(renew) => Group::renew(record, renew, at, has_room),
            Act::Leave { member, terms } => match record {
                Some(group) => (Outcome::Left, group.leave(*member, *terms, at)),
                None => (Outcome::Left, Changed::Nothing),
            },
            Act::Commit { generation, places } => match record {
                Some(group) if group.generation == *generation => group.commit(places, at),
                _ => (Outcome::Gone, Changed::Nothing),
            },
            Act::Reset {
                stamp,
                call,
                partitions,
                topics,
                to,
            } => {
                let is_repeat =
                    |group: &Group| group.generation >= *stamp || (*call != 0 && group.reset_by == *call);
                if record.as_ref().is_some_and(is_repeat) {
                    return (Outcome::Reset, Changed::Nothing);
                }
                let new = (*stamp, *call, *partitions);
                Group::reset(record, new, topics, *to, has_room, resolve)
            }
            Act::Delete { stamp } => match record {
                Some(group) if group.generation <= *stamp => {
                    *record = None;
                    (Outcome::Deleted, Changed::Shape)
                }
                _ => (Outcome::Deleted, Changed::Nothing),
            },
        }
    }

    fn new(generation: u64, topics: &[String], places: &[Start]) -> Group {
        let partition = |place: &Start| Partition {
            place: *place,
            epoch: 0,
            holder: None,
            next: None,
        };
        Group {
            topics: topics.to_vec(),
            generation,
            reset_by: 0,
            shape: 0,
            moves: 0,
            last_commit: None,
            partitions: places.iter().map(partition).collect(),
            members: Vec::new(),
        }
    }

    fn renew(
        record: &mut Option<Group>,
        renew: &Renew<'_>,
        at: UnixMillis,
        has_room: bool,
    ) -> (Outcome, Changed) {
        if record.is_none() {
            match (renew.generation, renew.making) {
                (Some(_), _) => return (Outcome::Gone, Changed::Nothing),
                (None, None) => return (Outcome::Unmade, Changed::Nothing),
                (None, Some(_)) if !has_room => return (Outcome::GroupsFull, Changed::Nothing),
                (None, Some((stamp, places))) => *record = Some(Group::new(stamp, renew.topics, places)),
            }
        }
        let Some(group) = record else {
            return (Outcome::Unmade, Changed::Nothing);
        };
        if renew.generation.is_some_and(|known| known != group.generation) {
            return (Outcome::Gone, Changed::Nothing);
        }
        if group.topics != renew.topics {
            return (Outcome::OtherTopics(group.topics.clone()), Changed::Nothing);
        }
        let mut changed = group.expire(at);
        let until = at.plus(renew.terms.lease_ms);
        let of_member = |member: &Member| member.number == renew.member;
        match group.members.iter().position(of_member) {
            Some(index) => group.members[index].until = until,
            None if group.members.len() >= MEMBERS_MAX => return (Outcome::MembersFull, changed),
            None => {
                group.members.push(Member {
                    number: renew.member,
                    until,
                });
                changed = Changed::Shape;
            }
        }
        for done in renew.passed {
            if let Some(partition) = group.held_by(done.held, renew.member)
                && partition.move_to(done.next)
            {
                changed = changed.max(Changed::Places);
            }
        }
        for held in renew.released {
            if let Some(partition) = group.held_by(*held, renew.member) {
                partition.holder = None;
                changed = Changed::Shape;
            }
        }
        changed = changed.max(group.share_out(renew.terms, at)).max(Changed::Lease);
        group.count(changed);
        (Outcome::Renewed(group.report(renew.member, at)), changed)
    }

    fn leave(&mut self, member: u64, terms: Terms, at: UnixMillis) -> Changed {
        let before = self.members.len();
        self.members.retain(|one| one.number != member);
        if self.members.len() == before {
            return Changed::Nothing;
        }
        self.expire(at);
        self.share_out(terms, at);
        self.count(Changed::Shape);
        Changed::Shape
    }

    fn commit(&mut self, places: &[Done], at: UnixMillis) -> (Outcome, Changed) {
        let mut lost = Vec::new();
        let mut changed = Changed::Nothing;
        for done in places {
            let Some(partition) = self.partitions.get_mut(usize::from(done.held.partition)) else {
                continue;
            };
            if partition.epoch == done.held.epoch {
                if partition.move_to(done.next) {
                    changed = Changed::Places;
                }
            } else if partition.is_before(done.next) {
                lost.push(done.held.partition);
            }
        }
        if changed == Changed::Places {
            self.last_commit = Some(at);
            self.count(changed);
        }
        (Outcome::Committed(lost), changed)
    }

    fn reset(
        record: &mut Option<Group>,
        (stamp, call, partitions): (u64, u64, u16),
        topics: &[String],
        to: To<'_>,
        has_room: bool,
        resolve: Resolve<'_>,
    ) -> (Outcome, Changed) {
        let refused = |outcome| (outcome, Changed::Nothing);
        match record {
            Some(group) if !topics.is_empty() && group.topics != topics => {
                return refused(Outcome::OtherTopics(group.topics.clone()));
            }
            None if !has_room => return refused(Outcome::GroupsFull),
            _ => {}
        }
        let topics = record.as_ref().map_or(topics, |group| &group.topics);
        let mut places: Vec<Start> = match record.as_ref() {
            Some(group) => group.places().collect(),
            None => vec![Start::Earliest; usize::from(partitions)],
        };
        match to {
            To::Start(start) => match resolve(start) {
                Ok(start) => places.fill(start),
                Err(outcome) => return refused(outcome),
            },
            To::Numbers(numbers, of_topics) => {
                if topics_digest(topics.iter().map(String::as_str)) != of_topics {
                    return refused(Outcome::PositionInvalid);
                }
                for (partition, number) in numbers {
                    let Some(place) = places.get_mut(usize::from(*partition)) else {
                        return refused(Outcome::PositionInvalid);
                    };
                    match resolve(Start::Number(*number)) {
                        Ok(start) => *place = start,
                        Err(outcome) => return refused(outcome),
                    }
                }
            }
        }
        let mut group = Group::new(stamp, topics, &places);
        group.reset_by = call;
        if let Some(before) = record.as_ref() {
            group.last_commit = before.last_commit;
        }
        *record = Some(group);
        (Outcome::Reset, Changed::Shape)
    }

    /// A partition, if this member is its holder.
    fn held_by(&mut self, held: Held, member: u64) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(usize::from(held.partition))?;
        (partition.epoch == held.epoch && partition.holder == Some(member)).then_some(partition)
    }

    /// Forgets members whose lease is over.
    fn expire(&mut self, at: UnixMillis) -> Changed {
        let before = self.members.len();
        self.members.retain(|member| member.until > at);
        match self.members.len() == before {
            true => Changed::Nothing,
            false => Changed::Shape,
        }
    }

    /// Gives free partitions to the members that have least, and has one partition move if shares
    /// differ by more than one.
    fn share_out(&mut self, terms: Terms, at: UnixMillis) -> Changed {
        let mut changed = Changed::Nothing;
        let members: Vec<u64> = self.members.iter().map(|member| member.number).collect();
        for partition in &mut self.partitions {
            if partition.holder.is_some_and(|holder| !members.contains(&holder)) {
                partition.holder = None;
                changed = Changed::Shape;
            }
            let Some((to, by)) = partition.next else { continue };
            if !members.contains(&to) {
                partition.next = None;
                changed = Changed::Shape;
            } else if partition.holder.is_none() || by <= at {
                partition.give_to(to);
                changed = Changed::Shape;
            }
        }
        let Some(first) = members.first() else {
            return changed;
        };
        let mut loads: Vec<usize> = members.iter().map(|member| self.load_of(*member)).collect();
        let least = |loads: &[usize]| (0..loads.len()).min_by_key(|index| loads[*index]).unwrap_or(0);
        for partition in self.partitions.iter_mut().filter(|one| one.holder.is_none()) {
            let index = least(&loads);
            partition.give_to(*members.get(index).unwrap_or(first));
            loads[index] += 1;
            changed = Changed::Shape;
        }
        let is_moving = self.partitions.iter().any(|one| one.next.is_some());
        let most = (0..loads.len()).max_by_key(|index| loads[*index]).unwrap_or(0);
        let poor = least(&loads);
        if is_moving || loads[most] < loads[poor] + 2 {
            return changed;
        }
        let of_rich = |one: &&mut Partition| one.holder == Some(members[most]);
        if let Some(partition) = self.partitions.iter_mut().rev().find(of_rich) {
            partition.next = Some((members[poor], at.plus(terms.handover_ms)));
            changed = Changed::Shape;
        }
        changed
    }

    /// Partitions that a member has and keeps, or is to have.
    fn load_of(&self, member: u64) -> usize {
        let counts = |one: &&Partition| match one.next {
            Some((to, _)) => to == member,
            None => one.holder == Some(member),
        };
        self.partitions.iter().filter(counts).count()
    }

    fn count(&mut self, changed: Changed) {
        match changed {
            Changed::Nothing | Changed::Lease => {}
            Changed::Places => self.moves += 1,
            Changed::Shape => self.shape += 1,
        }
    }

    fn report(&self, member: u64, at: UnixMillis) -> Report {
        let held = |(partition, one): (usize, &Partition)| {
            (one.holder == Some(member)).then_some(Holding {
                held: Held {
                    partition: partition as u16,
                    epoch: one.epoch,
                },
                place: one.place,
                give_up: one.next.is_some(),
            })
        };
        Report {
            generation: self.generation,
            shape: self.shape,
            moves: self.moves,
            now: at,
            held: self.partitions.iter().enumerate().filter_map(held).collect(),
        }
    }

    /// Places of the partitions.
    pub fn places(&self) -> impl Iterator<Item = Start> {
        self.partitions.iter().map(|partition| partition.place)
    }

    /// The group as it is listed.
    pub(crate) fn listed(
        &self,
        name: String,
        now: UnixMillis,
        behind: u64,
        oldest_behind: Option<UnixMillis>,
    ) -> Listed {
        let living = || self.members.iter().filter(|member| member.until > now);
        let has_holder = |one: &&Partition| {
            let holds = |holder| living().any(|member| member.number == holder);
            one.holder.is_some_and(holds)
        };
        Listed {
            name,
            topics: self.topics.clone(),
            members: living().count(),
            partitions: self.partitions.len(),
            held: self.partitions.iter().filter(has_holder).count(),
            behind,
            oldest_behind,
            last_commit: self.last_commit,
        }
    }
}

impl Partition {
    fn give_to(&mut self, member: u64) {
        self.holder = Some(member);
        self.epoch += 1;
        self.next = None;
    }

    fn is_before(&self, number: u64) -> bool {
        match self.place {
            Start::Number(place) => place < number,
            _ => true,
        }
    }

    /// Moves the place on, never back. Whether it has moved.
    fn move_to(&mut self, number: u64) -> bool {
        let moves = self.is_before(number);
        if moves {
            self.place = Start::Number(number);
        }
        moves
    }
}

#[cfg(test)]
mod tests;
