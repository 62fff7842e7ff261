//! Cases about single calls: reads return the written items, in order, once, and in time.

use std::time::Duration;

use super::{
    Change, Client, Entry, Expectation, Failure, FailureKind, Harness, Page, Paging, Predicate, WriteToken,
};
use crate::limits::{ID_BYTES_MAX, ITEMS_PER_PUT_MAX, KEY_BYTES_MAX, PREDICATE_KEYS_MAX};

/// An entry without ttl or compression.
pub(super) fn entry(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
    Entry {
        key: key.as_ref().to_vec(),
        value: value.as_ref().to_vec(),
        ttl: None,
        compression: 0,
    }
}

/// A token made `offset_ns` after the harness's now.
pub(super) fn token<H: Harness>(harness: &mut H, offset_ns: i64, name: &str) -> WriteToken {
    WriteToken {
        generation_time_ns: harness.now_ns() + offset_ns,
        token: name.as_bytes().to_vec(),
    }
}

pub(super) fn keys(keys: &[&[u8]]) -> Predicate {
    Predicate::Keys(keys.iter().map(|key| key.to_vec()).collect())
}

pub(super) fn range(start: &[u8], end: &[u8]) -> Predicate {
    Predicate::Range {
        start: start.to_vec(),
        end: end.to_vec(),
    }
}

/// All items that match, which must fit one page.
pub(super) async fn read<C: Client>(client: &mut C, id: &str, predicate: &Predicate) -> Vec<Entry> {
    let page = client
        .get(id, predicate, &Paging::default())
        .await
        .expect("a get");
    assert_eq!(page.next_page_token, b"", "all of {id} fits one page");
    page.items
}

async fn read_keys<C: Client>(client: &mut C, id: &str, predicate: &Predicate) -> Vec<Vec<u8>> {
    read(client, id, predicate)
        .await
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

pub(super) async fn value_of<C: Client>(client: &mut C, id: &str, key: &[u8]) -> Option<Vec<u8>> {
    let mut items = read(client, id, &keys(&[key])).await;
    assert!(items.len() <= 1, "one key, one item");
    items.pop().map(|entry| entry.value)
}

pub(super) async fn items_come_in_key_order<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let mut expected: Vec<Vec<u8>> = vec![b"".to_vec(), vec![0], vec![0, 0], vec![0xff], vec![0xff, 0]];
    expected.extend((0..200_u32).map(|number| format!("{}", number * 7919 % 1000).into_bytes()));
    for (position, key) in expected.iter().enumerate().rev() {
        let token = token(harness, 0, &format!("{position}"));
        client
            .put("id", &token, &[entry(key, b"v")])
            .await
            .expect("a put");
    }
    expected.sort();
    expected.dedup();
    assert_eq!(read_keys(&mut client, "id", &Predicate::All).await, expected);
}

pub(super) async fn predicates_select<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let all = ["a", "ab", "b", "c", "d"].map(|key| entry(key, key));
    client
        .put("id", &token(harness, 0, "1"), &all)
        .await
        .expect("a put");
    client
        .put("other", &token(harness, 0, "2"), &[entry("b", "other")])
        .await
        .expect("a put");
    let cases: &[(Predicate, &[&str])] = &[
        (Predicate::All, &["a", "ab", "b", "c", "d"]),
        (keys(&[b"c", b"a", b"missing", b"c"]), &["a", "c"]),
        (keys(&[b""]), &[]),
        (range(b"ab", b"c"), &["ab", "b"]),
        (range(b"aa", b"c\0"), &["ab", "b", "c"]),
        (range(b"", b""), &["a", "ab", "b", "c", "d"]),
        (range(b"b", b""), &["b", "c", "d"]),
        (range(b"", b"b"), &["a", "ab"]),
        (range(b"b", b"b"), &[]),
        (range(b"c", b"a"), &[]),
        (range(b"x", b""), &[]),
    ];
    for (predicate, expected) in cases {
        let found = read_keys(&mut client, "id", predicate).await;
        assert_eq!(
            found,
            expected.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(),
            "{predicate:?}"
        );
    }
    assert_eq!(read(&mut client, "absent", &Predicate::All).await, []);

    client
        .delete("id", &token(harness, 1, "3"), &range(b"ab", b"c"))
        .await
        .expect("a delete");
    assert_eq!(
        read_keys(&mut client, "id", &Predicate::All).await,
        [b"a", b"c", b"d"]
    );
    client
        .delete("id", &token(harness, 2, "4"), &keys(&[b"d", b"a"]))
        .await
        .expect("a delete");
    assert_eq!(read_keys(&mut client, "id", &Predicate::All).await, [b"c"]);
    client
        .delete("id", &token(harness, 3, "5"), &Predicate::All)
        .await
        .expect("a delete");
    assert_eq!(read(&mut client, "id", &Predicate::All).await, []);
    assert_eq!(
        value_of(&mut client, "other", b"b").await,
        Some(b"other".to_vec())
    );
}

pub(super) async fn empty_values_and_keys<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items = [entry("", ""), entry("k", "")];
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    assert_eq!(read(&mut client, "id", &Predicate::All).await, items);
    assert_eq!(read(&mut client, "id", &keys(&[b""])).await, items[..1]);
    // An empty value is a value: neither absent nor equal to another.
    let absent = Expectation::Absent;
    let swap = token(harness, 1, "2");
    let answer = client
        .compare_and_swap("id", b"", &swap, &absent, Some(&entry("", "x")))
        .await;
    let answer = answer.expect("a swap");
    assert_eq!((answer.swapped, answer.current), (false, Some(entry("", ""))));
    let empty = Expectation::Value(Vec::new());
    let swap = token(harness, 2, "3");
    let answer = client
        .compare_and_swap("id", b"", &swap, &empty, Some(&entry("", "x")))
        .await;
    assert!(answer.expect("a swap").swapped);
    assert_eq!(value_of(&mut client, "id", b"").await, Some(b"x".to_vec()));
}

pub(super) async fn unicode_and_binary_keys<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let long_id = "é".repeat(ID_BYTES_MAX / 2);
    let ids = [
        "id",
        "Id",
        "ID ",
        "日本語",
        "😀",
        "a\u{301}",
        "\u{e1}",
        "nul\0nul",
        "%",
        "'; --",
        &long_id,
    ];
    let bytes: Vec<u8> = (0..=255).collect();
    let long_key = vec![0xfe; KEY_BYTES_MAX];
    let binary: [&[u8]; 6] = [b"\0", b"\0\0", b"a\0b", &[0xff, 0xfe], &bytes, &long_key];
    for (position, id) in ids.iter().enumerate() {
        let items: Vec<_> = binary.iter().map(|key| entry(key, id)).collect();
        let token = token(harness, 0, &format!("{position}"));
        client.put(id, &token, &items).await.expect("a put");
    }
    for id in ids {
        let mut expected: Vec<_> = binary.iter().map(|key| entry(key, id)).collect();
        expected.sort_by(|left, right| left.key.cmp(&right.key));
        assert_eq!(read(&mut client, id, &Predicate::All).await, expected, "{id:?}");
        assert_eq!(
            value_of(&mut client, id, &[0xff, 0xfe]).await,
            Some(id.as_bytes().to_vec())
        );
    }
}

pub(super) async fn compression_comes_back<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items: Vec<_> = (0..5_u8)
        .map(|kind| Entry {
            compression: kind,
            ..entry([kind], [kind; 40])
        })
        .collect();
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    assert_eq!(read(&mut client, "id", &Predicate::All).await, items);
}

pub(super) async fn deletes_of_missing_keys_succeed<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    for (position, predicate) in [Predicate::All, keys(&[b"k"]), range(b"a", b"z")]
        .iter()
        .enumerate()
    {
        let delete = token(harness, position as i64, "delete");
        assert_eq!(client.delete("missing", &delete, predicate).await, Ok(()));
    }
    client
        .put("id", &token(harness, 5, "1"), &[entry("a", "1")])
        .await
        .expect("a put");
    assert_eq!(
        client.delete("id", &token(harness, 6, "2"), &keys(&[b"b"])).await,
        Ok(())
    );
    assert_eq!(read(&mut client, "id", &Predicate::All).await, [entry("a", "1")]);
    // A key deleted while missing can be written later.
    client
        .put("missing", &token(harness, 7, "3"), &[entry("k", "2")])
        .await
        .expect("a put");
    assert_eq!(value_of(&mut client, "missing", b"k").await, Some(b"2".to_vec()));
}

pub(super) async fn the_later_of_two_items_with_one_key_counts<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let put = token(harness, 0, "1");
    let items = [entry("k", "first"), entry("l", "other"), entry("k", "second")];
    for _ in 0..2 {
        client.put("id", &put, &items).await.expect("a put");
        let found = read(&mut client, "id", &Predicate::All).await;
        assert_eq!(found, [entry("k", "second"), entry("l", "other")]);
    }
}

pub(super) async fn the_last_write_wins_by_version<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let older = token(harness, 0, "older");
    let newer = token(harness, 1_000, "newer");
    client
        .put("id", &newer, &[entry("k", "newer")])
        .await
        .expect("a put");
    client
        .put("id", &older, &[entry("k", "older"), entry("l", "alone")])
        .await
        .expect("a put");
    let expected = [entry("k", "newer"), entry("l", "alone")];
    assert_eq!(read(&mut client, "id", &Predicate::All).await, expected);
    client
        .delete("id", &token(harness, 0, "older, too"), &keys(&[b"k"]))
        .await
        .expect("a delete");
    assert_eq!(value_of(&mut client, "id", b"k").await, Some(b"newer".to_vec()));
    // An older delete of everything removes the older item only.
    client
        .delete("id", &token(harness, 500, "between"), &Predicate::All)
        .await
        .expect("a delete");
    assert_eq!(
        read(&mut client, "id", &Predicate::All).await,
        [entry("k", "newer")]
    );
}

pub(super) async fn repeats_have_no_effect<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let tokens: Vec<_> = (0..4)
        .map(|step| token(harness, step * 100, &format!("{step}")))
        .collect();
    // The generation times go against the order of the calls, as with clients whose clocks differ.
    let order = [2, 0, 3, 1];
    let mut states = Vec::new();
    for _ in 0..3 {
        for step in order {
            let token = &tokens[step];
            let items = [entry("a", format!("{step}")), entry(format!("{step}"), "x")];
            client.put("id", token, &items).await.expect("a put");
            let delete = WriteToken {
                generation_time_ns: token.generation_time_ns + 50,
                token: token.token.clone(),
            };
            match step {
                0 => client
                    .delete("id", &delete, &range(b"0", b"2"))
                    .await
                    .expect("a delete"),
                1 => client
                    .delete("id", &delete, &keys(&[b"0", b"3"]))
                    .await
                    .expect("a delete"),
                2 => client
                    .delete("id", &delete, &Predicate::All)
                    .await
                    .expect("a delete"),
                _ => {}
            }
        }
        states.push(read(&mut client, "id", &Predicate::All).await);
    }
    assert_eq!(
        states[0],
        [entry("3", "x"), entry("a", "3")],
        "by version, not by arrival"
    );
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

pub(super) async fn deletes_are_remembered<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let items: Vec<_> = ["a", "b", "c"].iter().map(|key| entry(key, "old")).collect();
    let old_put = token(harness, 0, "keys");
    client.put("keys", &old_put, &items).await.expect("a put");
    let deletes = [
        ("keys", keys(&[b"a", b"missing"])),
        ("all", Predicate::All),
        ("range", range(b"b", b"c")),
    ];
    for (id, predicate) in &deletes {
        let delete = token(harness, 1_000, id);
        client.delete(id, &delete, predicate).await.expect("a delete");
    }
    // The tokens are made now, before any time passes.
    let old_puts = deletes.each_ref().map(|(id, _)| {
        let missing = token(harness, 0, &format!("missing of {id}"));
        (*id, token(harness, 0, id), missing)
    });
    for _ in 0..3 {
        for (id, of_items, of_missing) in &old_puts {
            client.put(id, of_items, &items).await.expect("a put");
            client
                .put(id, of_missing, &[entry("missing", "old")])
                .await
                .expect("a put");
        }
        assert_eq!(
            read_keys(&mut client, "keys", &Predicate::All).await,
            [b"b", b"c"]
        );
        assert_eq!(read(&mut client, "all", &Predicate::All).await, []);
        let left = [&b"a"[..], b"c", b"missing"];
        assert_eq!(read_keys(&mut client, "range", &Predicate::All).await, left);
        harness.pass(Duration::from_millis(20)).await;
    }
    let new_put = token(harness, 2_000, "new put");
    client
        .put("all", &new_put, &[entry("a", "new")])
        .await
        .expect("a put");
    assert_eq!(
        read(&mut client, "all", &Predicate::All).await,
        [entry("a", "new")]
    );
}

pub(super) async fn mutations_fail_by_themselves<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    let changes = [
        ("first".to_owned(), Change::Put(vec![entry("k", "1")])),
        (
            "bad".to_owned(),
            Change::Put(vec![entry("fine", "2"), entry(&long, "2")]),
        ),
        (String::new(), Change::Put(vec![entry("k", "3")])),
        ("last".to_owned(), Change::Put(vec![entry("k", "4")])),
        ("missing".to_owned(), Change::Delete(Predicate::All)),
    ];
    let results = client
        .mutate(&token(harness, 0, "1"), &changes)
        .await
        .expect("a mutate");
    let kinds: Vec<_> = results
        .into_iter()
        .map(|result| result.map_err(|failure| failure.kind))
        .collect();
    let refused = Err(FailureKind::InvalidArgument);
    assert_eq!(kinds, [Ok(()), refused, refused, Ok(()), Ok(())]);
    assert_eq!(value_of(&mut client, "first", b"k").await, Some(b"1".to_vec()));
    assert_eq!(value_of(&mut client, "last", b"k").await, Some(b"4".to_vec()));
    assert_eq!(
        read(&mut client, "bad", &Predicate::All).await,
        [],
        "all of a mutation or nothing"
    );
}

pub(super) async fn mutations_of_one_token_apply_in_order<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let changes = [
        (
            "id".to_owned(),
            Change::Put(vec![entry("a", "1"), entry("b", "1")]),
        ),
        ("id".to_owned(), Change::Delete(keys(&[b"a"]))),
        (
            "id".to_owned(),
            Change::Put(vec![entry("b", "2"), entry("c", "2")]),
        ),
        ("id".to_owned(), Change::Delete(range(b"c", b""))),
        ("id".to_owned(), Change::Put(vec![entry("d", "3")])),
    ];
    let token = token(harness, 0, "1");
    for _ in 0..2 {
        let results = client.mutate(&token, &changes).await.expect("a mutate");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let found = read(&mut client, "id", &Predicate::All).await;
        assert_eq!(found, [entry("b", "2"), entry("d", "3")]);
    }
}

pub(super) async fn items_expire<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let old = token(harness, -1_000, "old");
    let short = Entry {
        ttl: Some(Duration::from_millis(300)),
        ..entry("short", "1")
    };
    let long = Entry {
        ttl: Some(Duration::from_secs(3600)),
        ..entry("long", "2")
    };
    let items = [short.clone(), long, entry("never", "3")];
    client
        .put("id", &token(harness, 0, "1"), &items)
        .await
        .expect("a put");
    let found = read(&mut client, "id", &Predicate::All).await;
    let ttl_of = |key: &str, found: &[Entry]| {
        found
            .iter()
            .find(|entry| entry.key == key.as_bytes())
            .map(|entry| entry.ttl)
    };
    let left = ttl_of("long", &found).flatten().expect("it expires");
    assert!(
        left <= Duration::from_secs(3600) && left > Duration::from_secs(3500),
        "{left:?}"
    );
    assert_eq!(ttl_of("never", &found), Some(None));
    if harness.turns_clock() {
        harness.pass(Duration::from_millis(299)).await;
        assert_eq!(
            value_of(&mut client, "id", b"short").await,
            Some(b"1".to_vec()),
            "not a moment early"
        );
        harness.pass(Duration::from_millis(1)).await;
    } else {
        harness.pass(Duration::from_millis(320)).await;
    }
    let left = [&b"long"[..], b"never"];
    assert_eq!(read_keys(&mut client, "id", &Predicate::All).await, left);
    let scanned = client.scan(&Paging::default()).await.expect("a scan");
    assert_eq!(scanned.entries.len(), 1);
    assert_eq!(scanned.entries[0].1.len(), 2);
    // The expired item's version still counts: an older write does not replace it, a newer one
    // does.
    client
        .put("id", &old, &[entry("short", "old")])
        .await
        .expect("a put");
    assert_eq!(value_of(&mut client, "id", b"short").await, None);
    client
        .put("id", &token(harness, 1, "2"), &[entry("short", "new")])
        .await
        .expect("a put");
    assert_eq!(value_of(&mut client, "id", b"short").await, Some(b"new".to_vec()));
    if harness.turns_clock() {
        harness.pass(Duration::from_secs(3600)).await;
        assert_eq!(
            read_keys(&mut client, "id", &Predicate::All).await,
            [&b"never"[..], b"short"]
        );
    }
}

pub(super) async fn large_values_come_back_whole<H: Harness>(harness: &mut H) {
    const MIB: usize = 1024 * 1024;
    let mut client = harness.client().await;
    let max = harness.value_bytes_max();
    let sizes = [MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB - 7, 3 * MIB];
    for size in sizes.into_iter().filter(|size| *size <= max) {
        let id = format!("{size}");
        let item = entry("k", pattern(size, size as u8));
        let items = [entry("before", "1"), item.clone(), entry("z", "2")];
        let put = token(harness, 0, &id);
        client.put(&id, &put, &items).await.expect("a put");
        let mut found = Vec::new();
        let mut paging = Paging::default();
        loop {
            let Page {
                items,
                next_page_token,
                ..
            } = client.get(&id, &Predicate::All, &paging).await.expect("a get");
            found.extend(items);
            paging.page_token = next_page_token;
            if paging.page_token.is_empty() {
                break;
            }
        }
        assert!(found == items, "{size} bytes: {:?}", sizes_of(&found));
        let page = client
            .get(&id, &keys(&[b"k"]), &Paging::default())
            .await
            .expect("a get");
        assert!(page.items == [item], "{size} bytes: {:?}", sizes_of(&page.items));
    }
}

pub(super) async fn large_values_are_replaced_and_deleted<H: Harness>(harness: &mut H) {
    const SIZE: usize = 5 * 512 * 1024;
    let mut client = harness.client().await;
    if harness.value_bytes_max() < SIZE {
        return;
    }
    let large = |seed: u8| entry("k", pattern(SIZE, seed));
    let only = keys(&[b"k"]);
    client
        .put("id", &token(harness, 1, "1"), &[large(1)])
        .await
        .expect("a put");
    client
        .put("id", &token(harness, 0, "0"), &[large(0)])
        .await
        .expect("an older put");
    let found = read(&mut client, "id", &only).await;
    assert!(
        found == [large(1)],
        "an older large value leaves no trace: {:?}",
        sizes_of(&found)
    );
    client
        .put("id", &token(harness, 2, "2"), &[entry("k", pattern(SIZE / 2, 2))])
        .await
        .expect("a put");
    assert!(
        read(&mut client, "id", &only).await == [entry("k", pattern(SIZE / 2, 2))],
        "a shorter one"
    );
    client
        .put("id", &token(harness, 3, "3"), &[entry("k", "small")])
        .await
        .expect("a put");
    assert_eq!(read(&mut client, "id", &only).await, [entry("k", "small")]);
    let small = Expectation::Value(b"small".to_vec());
    let swap = token(harness, 4, "4");
    let answer = client
        .compare_and_swap("id", b"k", &swap, &small, Some(&large(4)))
        .await
        .expect("a swap");
    assert!(answer.swapped);
    let swap = token(harness, 5, "5");
    let wrong = Expectation::Value(pattern(SIZE, 5));
    let answer = client
        .compare_and_swap("id", b"k", &swap, &wrong, None)
        .await
        .expect("a swap");
    assert!(
        !answer.swapped && answer.current == Some(large(4)),
        "the whole value is compared and shown"
    );
    let swap = token(harness, 6, "6");
    let right = Expectation::Value(pattern(SIZE, 4));
    let answer = client
        .compare_and_swap("id", b"k", &swap, &right, None)
        .await
        .expect("a swap");
    assert!(answer.swapped);
    assert_eq!(read(&mut client, "id", &Predicate::All).await, []);
}

pub(super) async fn limits_are_checked_and_named<H: Harness>(harness: &mut H) {
    let mut client = harness.client().await;
    let long_key = vec![b'k'; KEY_BYTES_MAX + 1];
    let long_id = "i".repeat(ID_BYTES_MAX + 1);
    let many = vec![entry("k", "v"); ITEMS_PER_PUT_MAX + 1];
    let put = token(harness, 0, "1");
    let refused = client.put("", &put, &[entry("k", "v")]).await;
    expect_invalid(refused, "id");
    expect_invalid(client.put(&long_id, &put, &[entry("k", "v")]).await, "id");
    expect_invalid(client.put("id", &put, &[]).await, "items");
    expect_invalid(client.put("id", &put, &many).await, "items");
    let items = [entry("k", "v"), entry(&long_key, "v")];
    expect_invalid(client.put("id", &put, &items).await, "items[1].key");
    let page = Paging::default();
    expect_invalid(client.get("", &Predicate::All, &page).await, "id");
    expect_invalid(
        client.get("id", &keys(&[&long_key]), &page).await,
        "predicate.keys.keys[0]",
    );
    let many = Predicate::Keys(vec![b"k".to_vec(); PREDICATE_KEYS_MAX + 1]);
    expect_invalid(client.get("id", &many, &page).await, "predicate.keys.keys");
    expect_invalid(
        client.delete("id", &put, &Predicate::Keys(Vec::new())).await,
        "predicate.keys.keys",
    );
    expect_invalid(
        client.delete("id", &put, &range(&long_key, b"")).await,
        "predicate.range.start",
    );
    expect_invalid(
        client.delete("id", &put, &range(b"", &long_key)).await,
        "predicate.range.end",
    );
    let swapped = client
        .compare_and_swap("id", &long_key, &put, &Expectation::Absent, None)
        .await;
    expect_invalid(swapped, "key");
    assert_eq!(
        read(&mut client, "id", &Predicate::All).await,
        [],
        "a refused call changes nothing"
    );
    // At the limit a put succeeds.
    let most: Vec<_> = (0..ITEMS_PER_PUT_MAX)
        .map(|number| entry(format!("{number:04}"), "v"))
        .collect();
    client
        .put(&long_id[1..], &put, &most)
        .await
        .expect("a put at the limit");
    assert_eq!(read(&mut client, &long_id[1..], &Predicate::All).await, most);
    client
        .put("id", &token(harness, 0, "2"), &[entry(&long_key[1..], "v")])
        .await
        .expect("a put at the limit");
    assert_eq!(
        value_of(&mut client, "id", &long_key[1..]).await,
        Some(b"v".to_vec())
    );
}

fn expect_invalid<T: std::fmt::Debug>(result: Result<T, Failure>, field: &str) {
    let failure = result.expect_err("the call breaks a limit");
    assert_eq!(failure.kind, FailureKind::InvalidArgument, "{failure:?}");
    if let Some(named) = &failure.field {
        assert_eq!(named, field, "{failure:?}");
    }
}

/// Bytes that reveal a wrong order, a missing piece or a mixture.
fn pattern(size: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) | 0x5eed_0000;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(step).collect()
}

fn sizes_of(items: &[Entry]) -> Vec<usize> {
    items.iter().map(|entry| entry.value.len()).collect()
}
