"""The calls of `KeyValue`, through grpcio: what is written can be read, page by page and as a stream."""

import pytest
from conftest import DURABILITY, NAMESPACE, PATIENCE_S, PROMISED, scratch_namespace
from google.rpc import code_pb2
from prism.common.v1 import common_pb2 as common
from prism.keyvalue.v1 import keyvalue_pb2 as kv

promised = common.Durability.Value(PROMISED)


def put(client, id, items, **call):
    request = kv.PutRequest(
        namespace=call.pop("namespace", NAMESPACE),
        id=id,
        items=[kv.Item(key=key, value=value) for key, value in items],
    )
    return client.kv.Put(request, timeout=PATIENCE_S, **call)


def get(client, id, predicate=None, selection=None, **call):
    request = kv.GetRequest(
        namespace=call.pop("namespace", NAMESPACE), id=id, predicate=predicate, selection=selection
    )
    return client.kv.Get(request, timeout=PATIENCE_S, **call)


def pairs(response):
    return [(item.key, item.value) for item in response.items]


def test_put_then_get(client, fresh_id):
    items = [(b"\x00\xff", b"binary"), (b"", b"empty key"), (b"empty value", b""), ("ключ".encode(), b"\x00" * 256)]
    result = put(client, fresh_id + " ümlaut/日本", items).result
    assert result.durability == promised
    if DURABILITY == "strong":
        assert result.lane > 0 and result.lsn > 0, "acknowledged by its record in the log"
    else:
        assert (result.lane, result.lsn) == (0, 0), "acknowledged by the store"
        assert result.applied
    response = get(client, fresh_id + " ümlaut/日本")
    assert pairs(response) == sorted(items), "items come in the order of their keys"
    assert response.next_page_token == b""


def test_the_later_of_two_items_with_one_key_counts(client, fresh_id):
    put(client, fresh_id, [(b"k", b"first"), (b"k", b"second")])
    assert pairs(get(client, fresh_id)) == [(b"k", b"second")]


def test_get_of_what_does_not_exist_is_empty(client, fresh_id):
    response = get(client, fresh_id)
    assert pairs(response) == [] and response.next_page_token == b""


def test_get_by_predicate(client, fresh_id):
    items = [(f"k{n:02}".encode(), f"v{n}".encode()) for n in range(20)]
    put(client, fresh_id, items)
    by_keys = kv.Predicate(keys=kv.KeySet(keys=[b"k03", b"missing", b"k17"]))
    assert pairs(get(client, fresh_id, by_keys)) == [items[3], items[17]]
    by_range = kv.Predicate(range=kv.KeyRange(start=b"k05", end=b"k08"))
    assert pairs(get(client, fresh_id, by_range)) == items[5:8], "the start is included, the end is not"
    open_end = kv.Predicate(range=kv.KeyRange(start=b"k18"))
    assert pairs(get(client, fresh_id, open_end)) == items[18:]
    assert pairs(get(client, fresh_id, kv.Predicate(all=kv.All()))) == items


@pytest.mark.parametrize(
    "limits", [{"item_limit": 7}, {"page_bytes": 400}, {"item_limit": 5, "page_bytes": 100_000}], ids=str
)
def test_get_page_by_page(client, fresh_id, limits):
    items = [(f"k{n:03}".encode(), bytes([n]) * 100) for n in range(50)]
    put(client, fresh_id, items)
    found, token, pages = [], b"", 0
    while True:
        page = get(client, fresh_id, selection=kv.Selection(page_token=token, **limits))
        assert 0 < len(page.items) <= limits.get("item_limit", 50)
        found += pairs(page)
        pages += 1
        token = page.next_page_token
        if not token:
            break
        assert pages < 100, "the pages do not end"
    assert found == items
    assert pages > 1


def test_delete(client, fresh_id):
    put(client, fresh_id, [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    some = kv.Predicate(keys=kv.KeySet(keys=[b"a", b"never was"]))
    client.kv.Delete(kv.DeleteRequest(namespace=NAMESPACE, id=fresh_id, predicate=some), timeout=PATIENCE_S)
    assert pairs(get(client, fresh_id)) == [(b"b", b"2"), (b"c", b"3")]
    client.kv.Delete(kv.DeleteRequest(namespace=NAMESPACE, id=fresh_id), timeout=PATIENCE_S)
    assert pairs(get(client, fresh_id)) == []
    result = client.kv.Delete(kv.DeleteRequest(namespace=NAMESPACE, id=fresh_id), timeout=PATIENCE_S).result
    assert result.durability == promised, "deleting what does not exist succeeds"


def test_mutate_answers_each_mutation_in_order(client, fresh_id):
    ids = [f"{fresh_id}-{n}" for n in range(40)]
    put(client, ids[0], [(b"old", b"value")])
    mutations = [kv.Mutation(id=ids[0], delete=kv.DeleteItems())]
    mutations += [
        kv.Mutation(id=id, put=kv.PutItems(items=[kv.Item(key=b"k", value=id.encode())])) for id in ids[1:]
    ]
    response = client.kv.Mutate(kv.MutateRequest(namespace=NAMESPACE, mutations=mutations), timeout=PATIENCE_S)
    assert [result.status.code for result in response.results] == [code_pb2.OK] * len(mutations)
    assert all(result.result.durability == promised for result in response.results)
    assert pairs(get(client, ids[0])) == []
    for id in ids[1:]:
        assert pairs(get(client, id)) == [(b"k", id.encode())]


def test_compare_and_swap(client, fresh_id):
    def swap(expected, item):
        request = kv.CompareAndSwapRequest(namespace=NAMESPACE, id=fresh_id, key=b"k", item=item, **expected)
        return client.kv.CompareAndSwap(request, timeout=PATIENCE_S)

    absent = {"absent": kv.Absent()}
    assert swap(absent, kv.Item(value=b"1")).swapped
    refused = swap(absent, kv.Item(value=b"2"))
    assert not refused.swapped
    assert (refused.current.key, refused.current.value) == (b"k", b"1")
    assert not swap({"value": b"other"}, kv.Item(value=b"2")).swapped
    assert swap({"value": b"1"}, kv.Item(key=b"k", value=b"2")).swapped
    assert pairs(get(client, fresh_id)) == [(b"k", b"2")]
    assert swap({"value": b"2"}, None).swapped, "without an item the swap deletes"
    assert pairs(get(client, fresh_id)) == []
    gone = swap({"value": b"2"}, kv.Item(value=b"3"))
    assert not gone.swapped and not gone.HasField("current")


def test_compare_and_swap_by_version(client, fresh_id):
    def swap(version, item):
        request = kv.CompareAndSwapRequest(namespace=NAMESPACE, id=fresh_id, key=b"k", item=item, version=version)
        return client.kv.CompareAndSwap(request, timeout=PATIENCE_S)

    put(client, fresh_id, [(b"k", b"1")])
    (read,) = get(client, fresh_id).items
    # Whoever writes the same value again has changed the item.
    put(client, fresh_id, [(b"k", b"1")])
    refused = swap(read.version, kv.Item(value=b"2"))
    assert not refused.swapped and refused.current.value == b"1" and refused.current.version != read.version
    # An item that was read can be sent back as it came, version and all.
    (read,) = get(client, fresh_id).items
    assert read.version == refused.current.version
    read.value = b"2"
    assert swap(read.version, read).swapped
    (read,) = get(client, fresh_id).items
    assert read.value == b"2" and swap(read.version, None).swapped
    assert pairs(get(client, fresh_id)) == []


def test_ttl_counts_down(client, fresh_id):
    item = kv.Item(key=b"k", value=b"v")
    item.ttl.FromSeconds(3600)
    client.kv.Put(kv.PutRequest(namespace=NAMESPACE, id=fresh_id, items=[item]), timeout=PATIENCE_S)
    (read,) = get(client, fresh_id).items
    assert 3500 < read.ttl.ToSeconds() <= 3600


def test_an_idempotency_token_has_one_effect(client, fresh_id):
    token = common.IdempotencyToken(token=b"0123456789abcdef")
    token.generation_time.GetCurrentTime()

    def attempt():
        items = [kv.Item(key=b"k", value=b"by token")]
        request = kv.PutRequest(namespace=NAMESPACE, id=fresh_id, idempotency_token=token, items=items)
        client.kv.Put(request, timeout=PATIENCE_S)

    attempt()
    put(client, fresh_id, [(b"k", b"later")])
    attempt()
    assert pairs(get(client, fresh_id)) == [(b"k", b"later")], "a late retry does not undo a newer write"


def test_scan_streams_the_whole_namespace_in_pages(client):
    with scratch_namespace(client, "py-scan") as name:
        expected = {f"id-{n}": [(f"k{k}".encode(), bytes([n]) * 64) for k in range(4)] for n in range(150)}
        for id, items in expected.items():
            put(client, id, items, namespace=name)
        request = kv.ScanRequest(namespace=name, selection=kv.Selection(item_limit=50))
        pages = list(client.kv.Scan(request, timeout=PATIENCE_S))
        assert len(pages) >= 600 / 50
        assert all(sum(len(entry.items) for entry in page.entries) <= 50 for page in pages)
        assert [bool(page.next_page_token) for page in pages] == [True] * (len(pages) - 1) + [False]
        assert entries(pages) == expected

        resumed = kv.Selection(item_limit=50, page_token=pages[4].next_page_token)
        rest = list(client.kv.Scan(kv.ScanRequest(namespace=name, selection=resumed), timeout=PATIENCE_S))
        assert entries(pages[:5] + rest) == expected, "a scan resumes behind the page that was read"


def entries(pages):
    found = {}
    for page in pages:
        for entry in page.entries:
            found.setdefault(entry.id, []).extend((item.key, item.value) for item in entry.items)
    return found


def test_scan_of_an_empty_namespace_ends(client):
    with scratch_namespace(client, "py-empty") as name:
        pages = list(client.kv.Scan(kv.ScanRequest(namespace=name), timeout=PATIENCE_S))
        assert entries(pages) == {}
