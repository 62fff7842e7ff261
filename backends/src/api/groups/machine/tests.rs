//! A group's rules, act by act, and over random runs.

use super::*;

const TERMS: Terms = Terms {
    lease_ms: 10_000,
    handover_ms: 30_000,
};
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const PLACES: [Start; 4] = [Start::Number(1); 4];

fn join(member: u64) -> Renew<'static> {
    Renew {
        member,
        terms: TERMS,
        topics: &[],
        generation: None,
        making: Some((7, &PLACES)),
        released: &[],
        passed: &[],
    }
}

fn act(group: &mut Option<Group>, act: &Act<'_>, at: UnixMillis) -> Outcome {
    let (outcome, changed) = Group::act(group, act, at, true, &mut Ok);
    if let Some(group) = group {
        let mut bytes = Vec::new();
        group.encode(&mut bytes);
        assert_eq!(Group::decode(&bytes).as_ref(), Ok(&*group), "a record comes back");
        assert!(Group::decode(&bytes[1..]).is_err());
    }
    let is_change = !matches!(outcome, Outcome::Gone | Outcome::Unmade | Outcome::Committed(_));
    assert!(is_change || changed <= Changed::Places, "{outcome:?} {changed:?}");
    outcome
}

fn renew(group: &mut Option<Group>, renew: Renew<'_>, at: UnixMillis) -> Report {
    match act(group, &Act::Renew(renew), at) {
        Outcome::Renewed(report) => report,
        other => panic!("{other:?}"),
    }
}

fn holds(report: &Report) -> Vec<(u16, u32, bool)> {
    let one = |one: &Holding| (one.held.partition, one.held.epoch, one.give_up);
    report.held.iter().map(one).collect()
}

fn commit(group: &mut Option<Group>, partition: u16, epoch: u32, next: u64) -> Outcome {
    let held = Held { partition, epoch };
    let commit = Act::Commit {
        generation: 7,
        places: &[Done { held, next }],
    };
    act(group, &commit, NOW)
}

#[test]
fn a_joining_member_gets_its_share_one_partition_at_a_time() {
    let mut group = None;
    let alone = renew(&mut group, join(1), NOW);
    assert_eq!(
        holds(&alone),
        [(0, 1, false), (1, 1, false), (2, 1, false), (3, 1, false)]
    );
    assert_eq!(holds(&renew(&mut group, join(2), NOW)), []);
    let one = renew(&mut group, join(1), NOW);
    assert_eq!(holds(&one)[3], (3, 1, true), "the last one is to be given up");
    assert_eq!(holds(&one).iter().filter(|one| one.2).count(), 1);
    let gives = |partition, epoch| Renew {
        generation: Some(7),
        ..Renew {
            released: Box::leak(Box::new([Held { partition, epoch }])),
            ..join(1)
        }
    };
    let one = renew(&mut group, gives(3, 1), NOW);
    assert_eq!(
        holds(&one),
        [(0, 1, false), (1, 1, false), (2, 1, true)],
        "then the next"
    );
    assert_eq!(holds(&renew(&mut group, join(2), NOW)), [(3, 2, false)]);
    assert_eq!(
        holds(&renew(&mut group, gives(2, 1), NOW)),
        [(0, 1, false), (1, 1, false)]
    );
    assert_eq!(
        holds(&renew(&mut group, join(2), NOW)),
        [(2, 2, false), (3, 2, false)]
    );
    // A third gets one: shares of 2, 1 and 1.
    renew(&mut group, join(3), NOW);
    let gives = holds(&renew(&mut group, join(1), NOW)).iter().any(|one| one.2)
        || holds(&renew(&mut group, join(2), NOW)).iter().any(|one| one.2);
    assert!(gives);
}

#[test]
fn a_partition_that_is_not_given_up_is_taken_in_time_and_a_dead_member_has_none() {
    let mut group = None;
    renew(&mut group, join(1), NOW);
    renew(&mut group, join(2), NOW);
    let mut at = NOW;
    while at < NOW.plus(30_000) {
        assert_eq!(holds(&renew(&mut group, join(2), at)), [], "at {at:?}");
        renew(&mut group, join(1), at);
        at = at.plus(3_000);
    }
    assert_eq!(holds(&renew(&mut group, join(2), at)), [(3, 2, false)]);
    renew(&mut group, join(1), at);
    assert_eq!(
        commit(&mut group, 3, 1, 9),
        Outcome::Committed(vec![3]),
        "of a former holder"
    );
    assert_eq!(
        commit(&mut group, 2, 1, 9),
        Outcome::Committed(vec![]),
        "the rest counts"
    );
    // The first one is silent: everything is the second's, from the last commit on.
    let all = renew(&mut group, join(2), at.plus(9_999));
    assert_eq!(holds(&all).len(), 1, "not yet");
    let all = renew(&mut group, join(2), at.plus(10_000));
    assert_eq!(all.held.len(), 4);
    assert_eq!(all.held[2].place, Start::Number(9));
    assert_eq!(all.held[0].held.epoch, 2);
}

#[test]
fn places_grow_and_are_fenced_by_epoch_and_generation() {
    let mut group = None;
    renew(&mut group, join(1), NOW);
    for (next, place) in [(5, 5), (3, 5), (5, 5), (8, 8)] {
        assert_eq!(commit(&mut group, 0, 1, next), Outcome::Committed(vec![]));
        assert_eq!(
            renew(&mut group, join(1), NOW).held[0].place,
            Start::Number(place)
        );
    }
    act(
        &mut group,
        &Act::Leave {
            member: 1,
            terms: TERMS,
        },
        NOW,
    );
    assert_eq!(
        commit(&mut group, 0, 1, 9),
        Outcome::Committed(vec![]),
        "nobody else has it"
    );
    renew(&mut group, join(2), NOW);
    assert_eq!(commit(&mut group, 0, 1, 10), Outcome::Committed(vec![0]));
    assert_eq!(
        commit(&mut group, 0, 1, 9),
        Outcome::Committed(vec![]),
        "that is committed"
    );
    let reset = |stamp, to| Act::Reset {
        stamp,
        call: stamp * 100,
        partitions: 4,
        topics: &[],
        to,
    };
    assert_eq!(
        act(&mut group, &reset(8, To::Start(Start::Earliest)), NOW),
        Outcome::Reset
    );
    assert_eq!(commit(&mut group, 0, 2, 11), Outcome::Gone);
    let late = Renew {
        generation: Some(7),
        ..join(2)
    };
    assert_eq!(act(&mut group, &Act::Renew(late), NOW), Outcome::Gone);
    assert!(
        group
            .as_ref()
            .expect("a group")
            .places()
            .all(|place| place == Start::Earliest)
    );
    // Once more, and an older one, from a log: no effect.
    let before = group.clone();
    for stamp in [8, 3] {
        act(&mut group, &reset(stamp, To::Start(Start::Number(5))), NOW);
        act(&mut group, &Act::Delete { stamp: 7 }, NOW);
    }
    assert_eq!(group, before);
    let numbers = To::Numbers(&[(1, 77)], topics_digest([].into_iter()));
    assert_eq!(act(&mut group, &reset(9, numbers), NOW), Outcome::Reset);
    let places: Vec<_> = group.as_ref().expect("a group").places().collect();
    assert_eq!(places[1], Start::Number(77));
    assert_eq!(places[0], Start::Earliest, "the others stay");
    let again = Act::Reset {
        stamp: 10,
        call: 900,
        partitions: 4,
        topics: &[],
        to: To::Start(Start::Earliest),
    };
    let before = group.clone();
    assert_eq!(
        act(&mut group, &again, NOW),
        Outcome::Reset,
        "with the same token"
    );
    assert_eq!(group, before);
    let foreign = To::Numbers(&[(1, 78)], 5);
    assert_eq!(
        act(&mut group, &reset(10, foreign), NOW),
        Outcome::PositionInvalid
    );
    act(&mut group, &Act::Delete { stamp: 11 }, NOW);
    assert_eq!(group, None);
    assert_eq!(commit(&mut group, 0, 1, 99), Outcome::Gone);
}

#[test]
fn whoever_names_other_topics_or_finds_no_group_is_refused() {
    let mut group = None;
    let unmade = Renew {
        making: None,
        ..join(1)
    };
    assert_eq!(act(&mut group, &Act::Renew(unmade), NOW), Outcome::Unmade);
    let (full, _) = Group::act(&mut group, &Act::Renew(join(1)), NOW, false, &mut Ok);
    assert_eq!(full, Outcome::GroupsFull);
    renew(&mut group, join(1), NOW);
    let topics = ["orders.*".to_owned()];
    let other = Renew {
        topics: &topics,
        ..join(2)
    };
    assert_eq!(
        act(&mut group, &Act::Renew(other), NOW),
        Outcome::OtherTopics(vec![])
    );
    for member in 2..=MEMBERS_MAX as u64 {
        let _ = Group::act(&mut group, &Act::Renew(join(member)), NOW, true, &mut Ok);
    }
    let (full, _) = Group::act(&mut group, &Act::Renew(join(5_000)), NOW, true, &mut Ok);
    assert_eq!(full, Outcome::MembersFull);
}

/// Random joins, leaves, silences and hand-overs: a partition never has two living holders of one
/// epoch, and when members go on renewing, all partitions are held in even shares.
#[test]
fn shares_become_even_whatever_happens() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    const PARTITIONS: [Start; 16] = [Start::Number(1); 16];
    for run in 0..40 {
        let mut group = None;
        let mut at = NOW;
        let step = |group: &mut Option<Group>, member: u64, at: UnixMillis| {
            let base = Renew {
                making: Some((7, &PARTITIONS)),
                ..join(member)
            };
            let report = renew(group, base, at);
            let released: Vec<Held> = report
                .held
                .iter()
                .filter(|one| one.give_up)
                .map(|one| one.held)
                .collect();
            let base = Renew {
                released: &released,
                ..base
            };
            renew(group, base, at)
        };
        for _ in 0..random(60) {
            at = at.plus(random(4_000));
            let member = 1 + random(20);
            match random(5) {
                0 => drop(act(&mut group, &Act::Leave { member, terms: TERMS }, at)),
                _ => drop(step(&mut group, member, at)),
            }
        }
        // From now on these and no others.
        at = at.plus(10_000);
        let members = 1 + random(18);
        for _ in 0..40 {
            for member in 1..=members {
                step(&mut group, member, at);
            }
        }
        let mut shares = Vec::new();
        let mut seen = Vec::new();
        for member in 1..=members {
            let report = step(&mut group, member, at);
            shares.push(report.held.len());
            seen.extend(report.held.iter().map(|one| one.held.partition));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..16).collect::<Vec<u16>>(), "run {run}: {shares:?}");
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "run {run}: {shares:?}");
    }
}
