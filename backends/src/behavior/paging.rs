//! Cases about pages and scans: where pages end, which tokens are accepted, and that a walk sees
//! everything once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cases::{entry, keys, range, token};
use super::{Client, Entry, FailureKind, Harness, Page, Paging, Predicate};
use crate::limits::ITEM_OVERHEAD_BYTES;

/// Walks all pages. Returns each page's items.
async fn pages<C: Client>(
    client: &mut C,
    id: &str,
    predicate: &Predicate,
    paging: &Paging,
) -> Vec<Vec<Entry>> {
    let mut paging = paging.clone();
    let mut pages = Vec::new();
    loop {
        let Page {
            items,
            next_page_token,
            ..
        } = client.get(id, predicate, &paging).await.expect("a get");
        pages.push(items);
        if next_page_token.is_empty() {
            return pages;
        }
        assert!(pages.len() < 10_000, "the walk does not end");
        paging.page_token = next_page_token;
    }
}

/// Walks all pages of a scan. Returns ids with their items, joined over pages.
pub(super) async fn scan_all<C: Client>(client: &mut C, paging: &Paging) -> BTreeMap<String, Vec<Entry>> {
    let mut paging = paging.clone();
    let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let mut last_id = String::new();
    for _ in 0..100_000 {
        let page = client.scan(&paging).await.expect("a scan");
        for (id, items) in page.entries {
            assert!(!items.is_empty(), "{id} came without items");
            let is_known = found.contains_key(&id);
            assert!(
                !is_known || id == last_id,
                "the items of {id} do not come together"
            );
            found.entry(id.clone()).or_default().extend(items);
            last_id = id;
        }
        paging.page_token = page.next_page_token;
        if paging.page_token.is_empty() {
            return found;
        }
    }
    panic!("the scan does not end");
}

pub(super) async fn pages_end_by_bytes<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items: Vec<_> = (0..50_usize)
        .map(|number| entry(format!("{number:02}"), vec![7; number * 3]))
        .collect();
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    let cost = |entry: &Entry| entry.key.len() + entry.value.len() + ITEM_OVERHEAD_BYTES;
    for page_bytes in [1, 34, 35, 100, 333, 1000, 5000, 100_000] {
        let paging = Paging {
            page_bytes,
            ..Paging::default()
        };
        let found = pages(&mut client, "id", &Predicate::All, &paging).await;
        for (position, page) in found.iter().enumerate() {
            let bytes: usize = page.iter().map(cost).sum();
            assert!(
                page.len() == 1 || bytes <= page_bytes as usize,
                "a page of {bytes} > {page_bytes}"
            );
            if let Some(next) = found.get(position + 1) {
                assert!(
                    bytes + cost(&next[0]) > page_bytes as usize,
                    "page {position} ended early"
                );
            }
        }
        assert_eq!(found.concat(), items, "page_bytes {page_bytes}");
    }
}

pub(super) async fn pages_end_by_items<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items: Vec<_> = (0..20).map(|number| entry(format!("{number:02}"), "v")).collect();
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    let all = Predicate::All;
    for (item_limit, sizes) in [
        (1, vec![1; 20]),
        (7, vec![7, 7, 6]),
        (10, vec![10, 10]),
        (20, vec![20]),
    ] {
        let paging = Paging {
            item_limit,
            ..Paging::default()
        };
        let found = pages(&mut client, "id", &all, &paging).await;
        assert_eq!(
            found.iter().map(Vec::len).collect::<Vec<_>>(),
            sizes,
            "no empty last page"
        );
        assert_eq!(found.concat(), items);
    }
    let some = keys(&[b"19", b"03", b"xx", b"07", b"03"]);
    let found = pages(
        &mut client,
        "id",
        &some,
        &Paging {
            item_limit: 2,
            ..Paging::default()
        },
    )
    .await;
    assert_eq!(
        found,
        [vec![items[3].clone(), items[7].clone()], vec![items[19].clone()]]
    );
    let part = range(b"05", b"09");
    let found = pages(
        &mut client,
        "id",
        &part,
        &Paging {
            item_limit: 2,
            ..Paging::default()
        },
    )
    .await;
    assert_eq!(found, [items[5..7].to_vec(), items[7..9].to_vec()]);
}

pub(super) async fn a_page_holds_at_least_one_item<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items = [entry("a", vec![1; 100_000]), entry("b", vec![2; 100_000])];
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    let paging = Paging {
        page_bytes: 10,
        ..Paging::default()
    };
    let found = pages(&mut client, "id", &Predicate::All, &paging).await;
    assert_eq!(found, [vec![items[0].clone()], vec![items[1].clone()]]);
    let scanned = client.scan(&paging).await.expect("a scan");
    assert_eq!(scanned.entries, [("id".to_owned(), vec![items[0].clone()])]);
    assert_ne!(scanned.next_page_token, b"");
}

pub(super) async fn page_tokens_are_checked<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items: Vec<_> = (0..9).map(|number| entry(format!("{number}"), "v")).collect();
    for id in ["id", "other"] {
        client
            .put(id, &token(harness, 0, id), &items)
            .await
            .expect("a put");
    }
    let first = Paging {
        item_limit: 3,
        ..Paging::default()
    };
    let all = Predicate::All;
    let get_token = client
        .get("id", &all, &first)
        .await
        .expect("a get")
        .next_page_token;
    let scan_token = client.scan(&first).await.expect("a scan").next_page_token;
    assert!(!get_token.is_empty() && !scan_token.is_empty());
    let with = |page_token: &[u8]| Paging {
        page_token: page_token.to_vec(),
        ..Paging::default()
    };

    let mut wrong: Vec<Vec<u8>> = vec![b"x".to_vec(), vec![0; 40], vec![1; 13], vec![0xff; 3000]];
    for token in [&get_token, &scan_token] {
        wrong.push(token[..token.len() - 1].to_vec());
        wrong.push([token, &b"x"[..]].concat());
        for position in 0..token.len() {
            let mut altered = token.clone();
            altered[position] ^= 0x10;
            wrong.push(altered);
        }
    }
    for bytes in &wrong {
        let failure = client
            .get("id", &all, &with(bytes))
            .await
            .expect_err("a wrong token");
        assert_eq!(failure.kind, FailureKind::InvalidPageToken, "{bytes:?}");
        let failure = client.scan(&with(bytes)).await.expect_err("a wrong token");
        assert_eq!(failure.kind, FailureKind::InvalidPageToken, "{bytes:?}");
    }
    for (id, predicate, page_token) in [
        ("other", &all, &get_token),
        ("id", &range(b"0", b""), &get_token),
        ("id", &keys(&[b"0", b"1", b"8"]), &get_token),
        ("id", &all, &scan_token),
    ] {
        let failure = client
            .get(id, predicate, &with(page_token))
            .await
            .expect_err("another query's");
        assert_eq!(failure.kind, FailureKind::InvalidPageToken);
    }
    let failure = client.scan(&with(&get_token)).await.expect_err("a get's token");
    assert_eq!(failure.kind, FailureKind::InvalidPageToken);
    // The page size may change during the walk.
    let rest = client
        .get("id", &all, &with(&get_token))
        .await
        .expect("its own token");
    assert_eq!(rest.items, items[3..]);
}

pub(super) async fn pages_survive_concurrent_writes<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let mut writer = harness.client_beside(&client).await;
    let lasting: Vec<_> = (0..60).map(|number| entry(format!("{number:03}"), "v")).collect();
    client
        .put("id", &token(harness, 0, "1"), &lasting)
        .await
        .expect("a put");
    let mut paging = Paging {
        item_limit: 4,
        ..Paging::default()
    };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut round: i64 = 0;
    loop {
        let page = client.get("id", &Predicate::All, &paging).await.expect("a get");
        seen.extend(page.items.into_iter().map(|entry| entry.key));
        paging.page_token = page.next_page_token;
        if paging.page_token.is_empty() {
            break;
        }
        round += 1;
        // Between pages: new items before, at and after the place reached, and the last one seen is
        // deleted.
        let place = seen.last().expect("a page has items").clone();
        let fresh: Vec<_> = [b"!".as_slice(), b"000!", b"999"]
            .iter()
            .map(|part| entry([part, format!("{round}").as_bytes()].concat(), "new"))
            .chain([entry([&place[..], b"!"].concat(), "new")])
            .collect();
        writer
            .put("id", &token(harness, round * 10, "new"), &fresh)
            .await
            .expect("a put");
        let gone = keys(&[&place]);
        writer
            .delete("id", &token(harness, round * 10 + 1, "gone"), &gone)
            .await
            .expect("a delete");
        let again = entry(&lasting[59].key, format!("{round}"));
        writer
            .put("id", &token(harness, round * 10 + 2, "again"), &[again])
            .await
            .expect("a put");
        assert!(round < 1_000, "the walk does not end");
    }
    assert!(seen.is_sorted(), "in key order");
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "nothing comes twice");
    // All lasting items existed when the walk passed: only keys already seen were deleted.
    assert!(
        lasting.iter().all(|entry| unique.contains(&entry.key)),
        "{seen:?}"
    );
}

pub(super) async fn scans_group_ids<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let mut neighbour = harness.client().await;
    let put = token(harness, 0, "1");
    neighbour
        .put("elsewhere", &put, &[entry("k", "v")])
        .await
        .expect("a put");
    assert_eq!(client.scan(&Paging::default()).await.expect("a scan").entries, []);
    let mut expected = BTreeMap::new();
    for number in 0..40_usize {
        let items: Vec<_> = (0..number % 7 + 1)
            .map(|key| entry(format!("{key}"), vec![1; number]))
            .collect();
        let id = format!("{}", number * 31);
        client
            .put(&id, &token(harness, 0, &id), &items)
            .await
            .expect("a put");
        expected.insert(id, items);
    }
    client
        .put("deleted", &put, &[entry("k", "v")])
        .await
        .expect("a put");
    client
        .delete("deleted", &token(harness, 1, "2"), &Predicate::All)
        .await
        .expect("a delete");
    let bounds = [(0, 0), (1, 0), (200, 0), (777, 0), (0, 1), (0, 3), (0, 50)];
    for (page_bytes, item_limit) in bounds {
        let paging = Paging {
            page_bytes,
            item_limit,
            ..Paging::default()
        };
        assert_eq!(scan_all(&mut client, &paging).await, expected, "{paging:?}");
    }
}

pub(super) async fn scans_survive_concurrent_writes<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let mut writer = harness.client_beside(&client).await;
    let lasting: BTreeSet<String> = (0..50).map(|number| format!("lasting {number}")).collect();
    for id in &lasting {
        client
            .put(id, &token(harness, 0, id), &[entry("a", "1"), entry("b", "2")])
            .await
            .expect("a put");
        let passing = id.replace("lasting", "passing");
        client
            .put(&passing, &token(harness, 0, &passing), &[entry("a", "1")])
            .await
            .expect("a put");
    }
    let mut paging = Paging {
        item_limit: 3,
        ..Paging::default()
    };
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 1..1_000_i64 {
        let page = client.scan(&paging).await.expect("a scan");
        for (id, items) in page.entries {
            seen.extend(items.into_iter().map(|entry| (id.clone(), entry.key)));
        }
        paging.page_token = page.next_page_token;
        if paging.page_token.is_empty() {
            break;
        }
        let passing = format!("passing {}", round % 50);
        let delete = token(harness, round * 10, "delete");
        writer
            .delete(&passing, &delete, &Predicate::All)
            .await
            .expect("a delete");
        let fresh = format!("fresh {round}");
        writer
            .put(&fresh, &token(harness, round * 10, "new"), &[entry("a", "1")])
            .await
            .expect("a put");
        let again = format!("lasting {}", round % 50);
        writer
            .put(&again, &token(harness, round * 10, "again"), &[entry("a", "3")])
            .await
            .expect("a put");
        harness.pass(Duration::from_millis(1)).await;
    }
    assert_eq!(paging.page_token, b"", "the scan does not end");
    let unique: BTreeSet<_> = seen.iter().collect();
    let lasting_seen = unique.iter().filter(|(id, _)| lasting.contains(id)).count();
    assert_eq!(lasting_seen, 2 * lasting.len(), "nothing lasting is skipped");
    let twice = seen.len() - unique.len();
    assert_eq!(twice, 0, "nothing comes twice");
}

pub(super) async fn expired_items_do_not_end_a_page_early<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let ttl = Some(Duration::from_millis(100));
    let items: Vec<_> = (0..30)
        .map(|number| Entry {
            ttl: ttl.filter(|_| number % 3 != 0),
            ..entry(format!("{number:02}"), "v")
        })
        .collect();
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    harness.pass(Duration::from_millis(120)).await;
    let paging = Paging {
        item_limit: 5,
        ..Paging::default()
    };
    let found = pages(&mut client, "id", &Predicate::All, &paging).await;
    assert_eq!(
        found.iter().map(Vec::len).collect::<Vec<_>>(),
        [5, 5],
        "and no empty last page"
    );
    let scanned = scan_all(&mut client, &paging).await;
    assert_eq!(scanned["id"].len(), 10);
}
