//! Tests of the rules: the verdict of every combination, and every sentence.

use super::*;

#[test]
fn every_offer_of_every_need_has_one_verdict_and_the_table_tells_which() {
    let facts = Facts::default();
    let base = asked("client_api: keyvalue\nneeds: {max_message_size: 1MiB}");
    let mut seen: Vec<Rule> = Vec::new();
    for api in Api::ALL {
        for durability in durabilities() {
            for bits in 0_u8..64 {
                let on = |bit: u8| bits & (1 << bit) != 0;
                let needs = Asked {
                    api,
                    durability,
                    consistency: on(0).then_some(Consistency::Strong),
                    ordered: on(1),
                    replay: on(2),
                    retention: on(3).then_some(DAY),
                    ttl: on(4).then_some(DAY),
                    message_bytes: Some(if on(5) { 2 << 20 } else { 1 << 10 }),
                    ..base
                };
                for acked in Acked::ALL {
                    for replay in Replay::ALL {
                        for order in Order::ALL {
                            for (survives_restart, value_bytes_max) in
                                [(false, 1 << 20), (true, 1 << 20), (true, 16 << 20)]
                            {
                                for lacking in all_and_one_less() {
                                    let offer = Offer {
                                        api,
                                        acked,
                                        replay,
                                        order,
                                        features: lacking,
                                        value_bytes_max,
                                        survives_restart,
                                    };
                                    let verdict = excuse(&needs, StoreKind::Sqlite, Some(&offer), &facts);
                                    let expected = expected(&needs, &offer);
                                    assert_eq!(
                                        verdict.as_ref().map(|(rule, _)| *rule),
                                        expected,
                                        "{needs:?} {offer:?}"
                                    );
                                    if let Some((rule, sentence)) = verdict {
                                        assert!(
                                            !sentence.is_empty() && !sentence.ends_with('.'),
                                            "{sentence}"
                                        );
                                        seen.push(rule);
                                    }
                                }
                            }
                        }
                    }
                }
                seen.sort_by_key(|rule| rule.code());
                seen.dedup();
            }
        }
    }
    assert_eq!(seen.len(), 8, "each rule about offers was broken: {seen:?}");
    let verdict = excuse(&base, StoreKind::Nats, None, &facts);
    assert_eq!(
        verdict,
        Some((
            Rule::NotThisApi,
            "NATS does not serve keyvalue in this version".to_owned()
        ))
    );
}

fn all_and_one_less() -> impl Iterator<Item = Features> {
    let lacking = Features::NAMED
        .into_iter()
        .map(|(feature, _)| ALL_FEATURES.without(feature));
    std::iter::once(ALL_FEATURES).chain(lacking)
}

/// The expected verdict, written independently of the table.
fn expected(needs: &Asked, offer: &Offer) -> Option<Rule> {
    let has = |feature| offer.features.has(feature);
    let strong = needs.durability == Durability::Strong;
    let lasts = match (needs.api, needs.durability) {
        (Api::Reader, _) | (_, Durability::BestEffort) => true,
        (_, Durability::Eventual) => offer.survives_restart,
        (Api::Transact, Durability::Strong) if offer.acked == Acked::Durable => offer.survives_restart,
        (_, Durability::Strong) => {
            offer.survives_restart && offer.acked != Acked::Volatile && offer.replay != Replay::Duplicates
        }
    };
    let broken = [
        (!lasts, Rule::Durability),
        (
            needs.consistency.is_some() && !has(Features::STRONG_READS),
            Rule::Consistency,
        ),
        (needs.ordered && offer.order == Order::Any, Rule::Order),
        (
            needs.message_bytes > Some(offer.value_bytes_max as u64),
            Rule::MessageSize,
        ),
        (
            needs.retention.is_some() && !has(Features::RETENTION),
            Rule::Retention,
        ),
        (needs.ttl.is_some() && !has(Features::TTL), Rule::Ttl),
        (needs.replay && !has(Features::REPLAY), Rule::Replay),
        (
            needs.api == Api::Transact
                && (needs.durability == Durability::BestEffort || !has(Features::ATOMIC)),
            Rule::Atomic,
        ),
    ];
    debug_assert!(!strong || needs.durability == Durability::Strong);
    broken
        .iter()
        .find(|(is_broken, _)| *is_broken)
        .map(|(_, rule)| *rule)
}

#[test]
fn every_rule_says_what_is_asked_and_what_there_is() {
    let strong = asked(
        "client_api: keyvalue\nneeds: {durability: strong, data_size: 1TB, write_rps: 5000, read_rps: 5000}",
    );
    let good = offer(Api::KeyValue);
    let refusal = |needs: &Asked, offer: Offer, facts: Facts| {
        let found = excuse(needs, StoreKind::Sqlite, Some(&offer), &facts);
        found.map_or(String::new(), |(rule, sentence)| {
            format!("{}: {sentence}", rule.code())
        })
    };
    let lacking = |feature| Offer {
        features: ALL_FEATURES.without(feature),
        ..good
    };
    let facts = Facts::default;
    let weak = Asked {
        durability: Durability::BestEffort,
        data_size: None,
        ..strong
    };
    let cases = [
        (
            refusal(
                &strong,
                Offer {
                    survives_restart: false,
                    ..good
                },
                facts(),
            ),
            "DURABILITY: durability strong needs a store that survives a restart, and this one does not",
        ),
        (
            refusal(
                &strong,
                Offer {
                    acked: Acked::Volatile,
                    ..good
                },
                facts(),
            ),
            "DURABILITY: durability strong needs a store that can say when it is durable, and this one never does",
        ),
        (
            refusal(
                &strong,
                Offer {
                    replay: Replay::Duplicates,
                    ..good
                },
                facts(),
            ),
            "DURABILITY: durability strong gives a store its writes once more after a crash, and this one would keep them twice",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    durable_after: None,
                    ..facts()
                },
            ),
            "DURABILITY: durability strong needs to know when the store's data survives a power cut, and this one's settings do not say",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    log_refusal: Some("tmpfs is memory".to_owned()),
                    ..facts()
                },
            ),
            "DURABILITY: tmpfs is memory",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    durable_after: Some(DAY),
                    ..facts()
                },
            ),
            "LOG_BUDGET: its data is durable 1day after it acknowledges, so the log would have to hold 421875MiB for it, and may hold 1GiB",
        ),
        (
            refusal(
                &Asked {
                    consistency: Some(Consistency::Strong),
                    ..weak
                },
                lacking(Features::STRONG_READS),
                facts(),
            ),
            "CONSISTENCY: consistency strong: its reads may miss the latest writes",
        ),
        (
            refusal(
                &Asked {
                    ordered: true,
                    ..weak
                },
                Offer {
                    order: Order::Any,
                    ..good
                },
                facts(),
            ),
            "ORDER: ordered: it keeps no order of messages",
        ),
        (
            refusal(
                &Asked {
                    message_bytes: Some(2 << 20),
                    ..weak
                },
                Offer {
                    value_bytes_max: 1 << 20,
                    ..good
                },
                facts(),
            ),
            "MESSAGE_SIZE: max_message_size 2MiB: it takes at most 1MiB",
        ),
        (
            refusal(
                &Asked {
                    retention: Some(DAY),
                    ..weak
                },
                lacking(Features::RETENTION),
                facts(),
            ),
            "RETENTION: retention 1day: it does not let old data go",
        ),
        (
            refusal(
                &Asked {
                    ttl: Some(DAY),
                    ..weak
                },
                lacking(Features::TTL),
                facts(),
            ),
            "TTL: ttl 1day: its items do not expire one by one",
        ),
        (
            refusal(
                &Asked { replay: true, ..weak },
                lacking(Features::REPLAY),
                facts(),
            ),
            "REPLAY: replay: what was read once cannot be read again",
        ),
        (
            refusal(
                &Asked {
                    api: Api::Transact,
                    ..strong
                },
                lacking(Features::ATOMIC),
                facts(),
            ),
            "ATOMIC: it has no transactions: several writes may take place in part",
        ),
        (
            refusal(
                &Asked {
                    api: Api::Transact,
                    ..weak
                },
                good,
                facts(),
            ),
            "ATOMIC: a transaction that may be lost after its commit is none",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    write_rps: Some(7_000),
                    ..facts()
                },
            ),
            "WRITE_CAPACITY: measured 7000 writes/s, promises 4900; 5000 asked",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    read_rps: Some(7_000),
                    ..facts()
                },
            ),
            "READ_CAPACITY: measured 7000 reads/s, promises 4900; 5000 asked",
        ),
        (
            refusal(
                &strong,
                good,
                Facts {
                    free_bytes: Some(1_000_000_000_000),
                    ..facts()
                },
            ),
            "ROOM: data_size 1TB: it has 1TB free, of which 800GB are promised",
        ),
        (refusal(&strong, good, facts()), ""),
    ];
    for (found, wanted) in cases {
        assert_eq!(found, wanted);
    }
}
