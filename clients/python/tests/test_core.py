"""The core without a gateway: which calls are tried again and how, tokens, addresses, compression, errors, positions."""

import copy
import dataclasses
import gzip
import os
import random

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from prism import errors, types
from prism._core import call, keyvalue, methods, pubsub, retry, status, tokens
from prism._core.addresses import Balancer, is_encrypted, parse
from prism._core.compress import compress, decompress
from prism._core.content import seal, to_object
from prism._core.effects import Call, Emit, End, Failure, Idle, Next, Open, Reply, Sleep
from prism._core.settings import core_of
from prism._core.work import Dead, Later, Leases, verdict_of
from prism.common.v1 import common_pb2
from prism.keyvalue.v1 import keyvalue_pb2 as kv
from prism.pubsub.v1 import pubsub_pb2 as ps


class World:
    """A clock that moves only by what the operation does, and dice that always show the same."""

    def __init__(self, dice=0.5):
        self.now = 100.0
        self.dice = dice
        self.sleeps = []
        self.calls = []

    def core(self, server="a:1", **settings):
        core = call.Core(parse(server), types.Settings(**settings), "ns")
        core.monotonic = lambda: self.now
        core.random = lambda: self.dice
        return core

    def play(self, operation, answers):
        """Runs an operation: each Call or Next takes the next answer, which may be a function of the effect."""
        answers = iter(answers)
        outcome, emitted = None, []
        try:
            while True:
                effect = operation.send(outcome)
                outcome = None
                if isinstance(effect, Sleep):
                    self.sleeps.append(effect.seconds)
                    self.now += effect.seconds
                elif isinstance(effect, Emit):
                    emitted.append(effect.value)
                else:
                    # As it was sent: an operation may go on to change its request.
                    kept = (
                        effect
                        if isinstance(effect, Next)
                        else dataclasses.replace(effect, request=copy.deepcopy(effect.request))
                    )
                    self.calls.append(kept)
                    if isinstance(effect, Call | Next):
                        outcome = next(answers)
                        outcome = outcome(effect) if callable(outcome) else outcome
        except StopIteration as done:
            self.emitted = emitted
            return done.value
        finally:
            self.emitted = emitted
            operation.close()


def refused(reason, code="RESOURCE_EXHAUSTED", after=None):
    kind = errors.BY_REASON.get(reason, errors.PrismError)
    return Failure(kind("no", code=code, reason=reason, retry_after=after, request_id="r"))


def lost():
    return Failure(errors.ConnectionLost("reset", code="UNAVAILABLE"))


def put(core, **more):
    return keyvalue.put(core, "id", {"k": "v"}, None, more.get("token"), more.get("timeout"))


WRITTEN = Reply(kv.PutResponse(result=common_pb2.WriteResult(durability=3, lane=1, lsn=7)))


# --- Calls and their tries


def test_every_try_of_a_write_carries_the_same_token():
    world = World()
    result = world.play(put(world.core()), [lost(), refused("OVERLOADED", after=0.03), lost(), WRITTEN])
    assert result == types.WriteResult("strong", 1, 7, False)
    sent = {effect.request.SerializeToString() for effect in world.calls}
    assert len(world.calls) == 4 and len(sent) == 1
    token = world.calls[0].request.idempotency_token
    assert len(token.token) == 16 and token.generation_time.seconds > 0


def test_two_writes_have_two_tokens_and_their_times_only_grow():
    times = iter([50_000, 40_000, 50_500, 90_000])
    maker = tokens.TokenMaker(lambda: next(times))
    made = [maker.new() for _ in range(4)]
    assert [token.time_ns for token in made] == [50_000, 51_000, 52_000, 90_000]
    assert len({token.value for token in made}) == 4


def test_the_token_of_the_caller_is_used():
    world = World()
    world.play(put(world.core(), token=types.Token(b"mine", 1_500_000_000)), [WRITTEN])
    token = world.calls[0].request.idempotency_token
    assert (token.token, token.generation_time.seconds, token.generation_time.nanos) == (b"mine", 1, 500_000_000)


def test_a_wait_is_what_the_gateway_asks_for_and_a_little_more():
    world = World(dice=0.5)
    world.play(put(world.core()), [refused("STORE_BEHIND", after=0.4), WRITTEN])
    assert world.sleeps == [0.4 * 1.125]


def test_waits_without_a_word_of_the_gateway_double_by_chance_up_to_a_bound():
    backoff = retry.Backoff(0.02, 2.0)
    assert [backoff.wait(n, None, 1.0) for n in (1, 2, 3, 20, 5000)] == [0.02, 0.04, 0.08, 2.0, 2.0]
    assert backoff.wait(7, None, 0.0) == 0.0


def test_refusals_are_tried_four_times_and_the_budget_bounds_them_all():
    world = World(dice=0.0)
    core = world.core()
    counts = []
    for _ in range(20):
        world.calls.clear()
        with pytest.raises(errors.Overloaded) as failed:
            world.play(put(core), [refused("OVERLOADED")] * 9)
        counts.append(len(world.calls))
        assert failed.value.tries == len(world.calls) and not failed.value.outcome_unknown
    assert counts[0] == 4
    # Ten repeats at the beginning, then a tenth of the calls.
    assert sum(counts) == 20 + 11


def test_a_gateway_that_is_away_is_waited_for_until_the_deadline():
    world = World(dice=0.9999)
    with pytest.raises(errors.ConnectionLost) as failed:
        world.play(put(world.core(timeout=5.0)), [lost()] * 99)
    assert world.now <= 105.0 and sum(world.sleeps) > 2.5
    assert failed.value.outcome_unknown and failed.value.token is not None
    assert failed.value.tries == len(world.calls) > 4
    assert "token=error.token" in str(failed.value)


def test_the_deadline_covers_all_tries():
    world = World()

    def slow(effect):
        world.now += 2.0
        return lost()

    with pytest.raises(errors.ConnectionLost):
        world.play(put(world.core(timeout=5.0)), [slow] * 9)
    left = [effect.timeout for effect in world.calls]
    assert left[0] == 5.0 and all(later < earlier - 1.9 for earlier, later in zip(left, left[1:], strict=False))
    # It does not wait for what would come too late.
    late = World()
    with pytest.raises(errors.StoreBehind):
        late.play(put(late.core(timeout=5.0)), [refused("STORE_BEHIND", after=6.0)])
    assert late.sleeps == []


@pytest.mark.parametrize(
    "failure",
    [refused("INVALID_FIELD", "INVALID_ARGUMENT"), refused("TOKEN_REUSED"), refused("STORE_FULL"), refused("STORE_FAILED")],
)
def test_final_errors_are_not_tried_again(failure):
    world = World()
    with pytest.raises(type(failure.error)) as failed:
        world.play(put(world.core()), [failure])
    assert failed.value.tries == 1 and not failed.value.outcome_unknown


def test_calls_without_a_token_are_repeated_only_where_nothing_was_done():
    from prism._core import admin

    world = World(dice=0.0)
    with pytest.raises(errors.ConnectionLost) as failed:
        world.play(admin.create(world.core(), "namespace: x", None), [lost()])
    assert failed.value.outcome_unknown
    again = World(dice=0.0)
    from prism.admin.v1 import namespaces_pb2

    again.play(
        admin.create(again.core(), "namespace: x", None),
        [refused("NAMESPACE_NOT_READY", "UNAVAILABLE", 0.1), Reply(namespaces_pb2.CreateResponse())],
    )
    assert len(again.calls) == 2


def test_a_read_leaves_nothing_unknown():
    world = World(dice=0.9999)
    with pytest.raises(errors.ConnectionLost) as failed:
        world.play(keyvalue.get_item(world.core(timeout=1.0), "id", "k", None), [lost()] * 99)
    assert not failed.value.outcome_unknown


def test_an_unknown_outcome_stays_unknown_whatever_comes_after_it():
    world = World(dice=0.0)
    with pytest.raises(errors.StoreFull) as failed:
        world.play(put(world.core()), [lost(), refused("STORE_FULL")])
    assert failed.value.outcome_unknown


def test_a_reason_of_a_later_gateway_is_repeated_only_as_it_says():
    world = World()
    later = Failure(errors.PrismError("no", code="UNAVAILABLE", reason="LATER_REASON", retry_after=0.1, request_id="r"))
    world.play(put(world.core()), [later, WRITTEN])
    final = Failure(errors.PrismError("no", code="UNAVAILABLE", reason="LATER_REASON", request_id="r"))
    with pytest.raises(errors.PrismError):
        world.play(put(world.core()), [final])


def test_every_reason_has_one_verdict():
    """The table, so that a slip in a class shows: what may be repeated, and after what the outcome is unknown."""
    nothing_done = {
        "NAMESPACE_NOT_READY", "NOT_SERVING", "OVERLOADED", "RATE_LIMITED", "ANSWERS_UNREAD", "REQUEST_INCOMPLETE",
        "STORE_BEHIND", "LOG_BEHIND", "LOG_FULL", "LOG_STALLED", "LOG_UNAVAILABLE", "LANE_POISONED", "LANE_HELD",
        "STORE_BUSY", "STORE_UNREACHABLE",
    }  # fmt: skip
    same_token = {"UNKNOWN_OUTCOME", "PARTLY_DONE", "STORE_IO", "CATALOG_UNAVAILABLE"}
    for reason, kind in errors.BY_REASON.items():
        error = kind("m", reason=reason, code="UNAVAILABLE")
        assert retry.may_repeat(error, False) == (reason in nothing_done), reason
        assert retry.may_repeat(error, True) == (reason in nothing_done | same_token), reason
        assert retry.leaves_outcome_unknown(error) == (reason in same_token), reason
        assert kind.remedy and kind.remedy != errors.PrismError.remedy, reason
        assert kind.__doc__, reason


# --- Several gateways


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2", ("a:1", "b:2")),
        ("http://a:1/,a:1", ("a:1",)),
        ("a", ("a:8980",)),
        ("[::1]:7,[::2]", ("[::1]:7", "[::2]:8980")),
    ],
)
def test_addresses(text, addresses):
    assert parse(text) == addresses


def test_all_gateways_are_encrypted_or_none():
    assert is_encrypted("https://a:1, https://b:2") and not is_encrypted("a:1,http://b:2")
    assert parse("https://a:1") == ("a:1",)
    with pytest.raises(ValueError, match="before each address"):
        is_encrypted("https://a:1,b:2")


@pytest.mark.parametrize("text", ["a:", "a:0", "a:65536", ":1", "ftp://a:1", "a:1,,b:2", "::1:7", "a:x", "a:٣"])
def test_what_is_no_address_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match="server: "):
        parse(text)


def test_a_name_is_a_namespace_and_what_has_a_colon_an_address(monkeypatch):
    monkeypatch.setenv("PRISM_SERVER", "env:1")
    rest = (10.0, 4, None, True, 1)
    assert (core_of("orders", "", "", *rest).namespace, core_of("orders", "", "", *rest).addresses) == ("orders", ("env:1",))
    assert core_of("a:1,b:2", "orders", "", *rest).addresses == ("a:1", "b:2")
    with pytest.raises(ValueError, match="once"):
        core_of("a:1", "", "b:2", *rest)
    monkeypatch.delenv("PRISM_SERVER")
    assert core_of("", "x", "", *rest).addresses == ("127.0.0.1:8980",)
    with pytest.raises(ValueError, match="timeout"):
        core_of("", "x", "", 0.0, 4, None, True, 1)


def test_another_gateway_is_asked_at_once_and_the_one_that_failed_rests():
    world = World(dice=0.0)
    core = world.core("a:1,b:2")
    world.play(put(core), [refused("OVERLOADED", after=1.0), WRITTEN])
    assert [effect.address for effect in world.calls] == [0, 1]
    assert world.sleeps == [0.0]
    world.calls.clear()
    world.play(put(core), [WRITTEN])
    assert [effect.address for effect in world.calls] == [1]
    world.now += 1.1
    world.calls.clear()
    world.play(put(core), [WRITTEN])
    assert [effect.address for effect in world.calls] == [0]


def test_a_try_leaves_time_for_another_gateway():
    world = World(dice=0.0)

    def hangs(effect):
        world.now += effect.timeout
        return Failure(errors.DeadlineExceeded("slow", code="DEADLINE_EXCEEDED"))

    world.play(put(world.core("a:1,b:2", timeout=8.0)), [hangs, WRITTEN])
    assert [(effect.address, effect.timeout) for effect in world.calls] == [(0, 4.0), (1, 2.0)]


def test_rests_double_and_success_ends_them():
    balancer = Balancer(1)
    for rest in (1, 2, 4, 8, 16, 30, 30):
        number = balancer.start(0.0, 0.0)
        balancer.finish(number, False, 0.0)
        assert balancer._states[0].rests_until == rest
    # With none awake the one that rests the least is asked: nobody waits because of rests.
    assert balancer.start(0.0, 0.9) == 0
    balancer.finish(0, True, 0.0)
    assert balancer._states[0].rests_until == 0.0


def test_calls_spread_by_what_is_under_way():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    balancer = Balancer(4)
    counts = [0] * 4
    for _ in range(400):
        counts[balancer.start(0.0, dice.random())] += 1
    assert max(counts) - min(counts) < 40


# --- Errors


def test_an_error_says_what_is_wrong_where_and_what_to_do():
    made = status_pb2.Status(code=3, message='field "items" must not be empty')
    for detail in (
        error_details_pb2.ErrorInfo(reason="INVALID_FIELD", domain="prism", metadata={"field": "items"}),
        error_details_pb2.RequestInfo(request_id="abc"),
        error_details_pb2.RetryInfo(retry_delay={"nanos": 30_000_000}),
    ):
        place = Any()
        place.Pack(detail)
        made.details.append(place)
    error = status.error_of("INVALID_ARGUMENT", "short", made.SerializeToString())
    assert type(error) is errors.InvalidField and isinstance(error, ValueError)
    assert (error.field, error.request_id, error.retry_after, error.code) == ("items", "abc", 0.03, "INVALID_ARGUMENT")
    assert "What to do: correct the field" in str(error)


def test_an_error_without_details_or_with_broken_ones_is_an_error_all_the_same():
    for details in (None, b"", b"\xff\xff\xff", os.urandom(50)):
        error = status.error_of("UNAVAILABLE", "gone", details)
        assert type(error) is errors.ConnectionLost or error.message
    assert isinstance(status.error_of("DEADLINE_EXCEEDED", "", None), TimeoutError)
    assert type(status.error_of("INTERNAL", "x", None)) is errors.PrismError


# --- Compression


def test_large_values_are_compressed_where_it_helps():
    text = b"prism " * 10_000
    packed = compress(text, 16 << 10)
    assert packed is not None and len(packed) < len(text) / 20
    assert gzip.decompress(packed) == text == decompress(packed, len(text))
    assert compress(text, 16 << 10) == packed
    assert compress(text, None) is None and compress(text, len(text)) is None
    noise = os.urandom(100_000)
    assert compress(noise, 0) is None
    # Never twice: what is compressed already gains nothing.
    assert compress(gzip.compress(noise), 0) is None


def test_decompression_is_bounded_and_refuses_what_is_damaged():
    bomb = gzip.compress(b"\0" * (50 << 20))
    with pytest.raises(errors.UnusablePayload, match="longer than 1000 bytes"):
        decompress(bomb, 1000)
    whole = gzip.compress(b"abc" * 1000)
    assert decompress(whole, 3000) == b"abc" * 1000
    with pytest.raises(errors.UnusablePayload, match="longer"):
        decompress(whole, 2999)
    assert decompress(whole + gzip.compress(b"more"), 3004).endswith(b"more")
    for damaged in (whole[:-1], whole[:20], b"", b"no gzip", whole + b"x", whole[:-8] + bytes(8)):
        with pytest.raises(errors.UnusablePayload):
            decompress(damaged, 1 << 20)


def test_items_are_marked_and_read_back():
    world = World()
    core = world.core()
    value = "v" * 20_000
    world.play(keyvalue.put(core, "id", {"big": value, "small": "v"}, 1.5, None, None), [WRITTEN])
    big, small = world.calls[0].request.items
    assert (big.compression, small.compression) == (kv.COMPRESSION_GZIP, 0)
    assert (big.ttl.seconds, big.ttl.nanos) == (1, 500_000_000)
    world.play(keyvalue.items(core, "id", (), b"", b"", None, None), [Reply(kv.GetResponse(items=[big, small]))])
    assert [item.value for item in world.emitted] == [value.encode(), b"v"]
    as_stored = world.core(decompress=False)
    world.play(keyvalue.items(as_stored, "id", (), b"", b"", None, None), [Reply(kv.GetResponse(items=[big]))])
    assert world.emitted[0].value == big.value and world.emitted[0].compression == "gzip"


def test_compressions_of_other_clients_are_named():
    world = World()
    other = kv.Item(key=b"k", value=b"?", compression=kv.COMPRESSION_ZSTD)
    item = world.play(keyvalue.get_item(world.core(), "id", "k", None), [Reply(kv.GetResponse(items=[other]))])
    assert item.raw_value == b"?"
    with pytest.raises(errors.UnusablePayload, match="zstd"):
        _ = item.value


def test_a_swap_by_value_finds_the_value_in_its_compressed_form():
    world = World()
    core = world.core()
    value = b"w" * 20_000
    stored = kv.Item(key=b"k", value=compress(value, 0), compression=kv.COMPRESSION_GZIP, version=b"7")
    refused_first = Reply(kv.CompareAndSwapResponse(swapped=False, current=stored))
    swap = world.play(
        keyvalue.compare_and_swap(core, "id", "k", "new", False, value, None, None, types.Token(b"t", 1), None),
        [refused_first, Reply(kv.CompareAndSwapResponse(swapped=True))],
    )
    assert swap
    first, second = (effect.request for effect in world.calls)
    assert first.value == value and second.value == stored.value
    assert first.idempotency_token.token == b"t" != second.idempotency_token.token
    # The same again has the same tokens, so the gateway gives the same verdicts.
    repeat = World()
    repeat.play(
        keyvalue.compare_and_swap(repeat.core(), "id", "k", "new", False, value, None, None, types.Token(b"t", 1), None),
        [refused_first, Reply(kv.CompareAndSwapResponse(swapped=True))],
    )
    assert repeat.calls[1].request == second
    other = Reply(kv.CompareAndSwapResponse(swapped=False, current=kv.Item(key=b"k", value=b"x")))
    assert not World().play(keyvalue.compare_and_swap(core, "id", "k", "n", False, value, None, None, None, None), [other])


# --- Payloads


def test_payloads_come_back_as_what_they_were():
    for data, kind in (({"a": [1, None, "ü"]}, "application/json"), ("text", "text/plain; charset=utf-8"), (b"\0\xff", "")):
        payload, attributes = seal(data, None, None)
        assert attributes.get("content-type", "") == kind
        assert to_object(payload, kind) == data
    payload, attributes = seal(common_pb2.WriteResult(lane=3), None, None)
    assert attributes["content-type"] == "application/protobuf; type=prism.common.v1.WriteResult"
    assert to_object(payload, attributes["content-type"]) == payload
    for wrong in (float("nan"), object(), {1: {2}}):
        with pytest.raises(TypeError, match="data: "):
            seal(wrong, None, None)


def test_messages_are_compressed_once_and_the_caller_has_the_last_word():
    text = "x" * 50_000
    payload, attributes = seal(text, {"trace": "1"}, 1000)
    assert attributes == {"trace": "1", "content-type": "text/plain; charset=utf-8", "content-encoding": "gzip"}
    event = types.Event(b"i", payload, attributes, "", 1 << 20)
    assert event.payload == text.encode() and event.data == text and "content-encoding" not in event.attributes
    packed = gzip.compress(text.encode())
    assert seal(packed, {"content-encoding": "gzip"}, 1000) == (packed, {"content-encoding": "gzip"})
    assert types.Event(b"i", packed, {"content-encoding": "gzip"}, "", None).payload == packed
    full = {f"a{n}": "" for n in range(64)}
    assert seal(text.encode(), full, 1000) == (text.encode(), full)
    with pytest.raises(errors.UnusablePayload, match="'br'"):
        _ = types.Event(b"i", b"?", {"content-encoding": "br"}, "", 100).payload


# --- Subscriptions


def answer(*numbers, position, gap=None):
    made = ps.SubscribeResponse(position=position)
    for number in numbers:
        made.messages.add(id=b"%d" % number).message.payload = b"%d" % number
    if gap is not None:
        made.gap.messages = gap
    return Reply(made)


def subscribe(world, core=None, idle=None, patience=None, gaps=None, track=None):
    core = core or world.core()
    track = track or pubsub.Track(pubsub.start_of(core, "earliest", None))
    on_gap = None if gaps is None else gaps.append
    return pubsub.subscribe(core, track, pubsub.SubscribeOptions(("t",), 0, idle, patience, on_gap))


def test_a_subscription_goes_on_after_the_last_position_and_leaves_out_what_it_gave():
    world = World(dice=0.0)
    world.play(
        subscribe(world, idle=60.0),
        [
            answer(position=b"p0"),
            answer(1, 2, position=b"p2"),
            Failure(errors.ConnectionLost("reset", code="UNAVAILABLE")),
            lost(),
            answer(position=b"p2"),
            answer(2, 3, position=b"p3"),
            End(),
            answer(3, 4, 4, position=b"p4"),
            Idle(),
        ],
    )
    assert [event.payload for event in world.emitted] == [b"1", b"2", b"3", b"4"]
    assert [event.position for event in world.emitted] == [b"p0", b"p2", b"p3", b"p4"]
    places = [effect.request.start for effect in world.calls if isinstance(effect, Open)]
    assert places[0].start == ps.START_EARLIEST and [place.position for place in places[1:]] == [b"p2", b"p2", b"p3"]


def test_the_position_moves_on_only_with_the_last_event_of_an_answer():
    track = pubsub.Track(ps.StartAt(start=ps.START_EARLIEST))
    list(track.take(answer(position=b"p0").message))
    events = track.take(answer(1, 2, position=b"p2").message)
    assert next(events).position == track.position == b"p0"
    assert next(events).position == track.position == b"p2"
    assert list(track.take(answer(2, position=b"p3").message)) == [] and track.position == b"p3"
    list(track.take(answer(*range(10, 10 + 20_000), position=b"p4").message))
    assert len(track._seen) == 10_000


def test_gaps_reach_the_reader():
    world, gaps = World(), []
    world.play(
        subscribe(world, idle=1.0, gaps=gaps),
        [answer(position=b"p0"), answer(position=b"p1", gap=5), answer(7, position=b"p2"), Idle()],
    )
    assert gaps == [types.Gap(5, None)] and world.emitted[0].gap == types.Gap(5, None)


def test_a_subscription_that_never_stood_is_given_up_and_one_that_stood_is_not():
    world = World(dice=0.9999)
    with pytest.raises(errors.ConnectionLost):
        world.play(subscribe(world, world.core(timeout=3.0)), [lost()] * 99)
    assert world.now <= 103.0
    lasting = World(dice=0.9999)
    lasting.play(subscribe(lasting, lasting.core(timeout=3.0), idle=500.0), [answer(position=b"p0"), *[lost()] * 50, Idle()])
    assert lasting.now > 200.0 and 4.9 < max(lasting.sleeps) <= 5.0
    bounded = World(dice=0.9999)
    with pytest.raises(errors.ConnectionLost):
        bounded.play(subscribe(bounded, patience=20.0), [answer(position=b"p0"), *[lost()] * 50])
    assert bounded.now <= 120.0


@pytest.mark.parametrize(
    "reason", ["NAMESPACE_UNKNOWN", "POSITION_EXPIRED", "POSITION_INVALID", "OTHER_API", "INVALID_FIELD"]
)
def test_what_cannot_get_better_ends_a_subscription(reason):
    world = World()
    with pytest.raises(errors.BY_REASON[reason]):
        world.play(subscribe(world), [answer(position=b"p0"), refused(reason, "NOT_FOUND")])


def test_starts():
    core = World().core()
    core.created_ns = 5_000_000_000
    assert pubsub.start_of(core, None, None).time.seconds == 5
    assert pubsub.start_of(core, None, b"p").position == b"p"
    for start, after in (("latest", b"p"), (None, b""), ("sometime", None)):
        with pytest.raises(ValueError, match="start|after"):
            pubsub.start_of(core, start, after)


def test_a_scan_that_breaks_off_goes_on_after_its_last_page():
    world = World(dice=0.0)
    page = lambda id, token: Reply(kv.ScanResponse(entries=[{"id": id, "items": [{"key": b"k"}]}], next_page_token=token))  # noqa: E731
    asked = []

    def second(effect):
        asked.append(world.calls[-2].request.selection.page_token)
        return page("b", b"")

    world.play(keyvalue.scan(world.core(), None), [page("a", b"t1"), lost(), second])
    assert [id for id, _ in world.emitted] == ["a", "b"] and asked == [b"t1"]
    with pytest.raises(errors.NamespaceUnknown):
        World().play(keyvalue.scan(World().core(), None), [refused("NAMESPACE_UNKNOWN", "NOT_FOUND")])


# --- Work


def test_what_an_end_of_a_handler_means():
    assert verdict_of(None).done
    plain = verdict_of(KeyError("x"))
    assert (plain.done, plain.reason, plain.delay, plain.dead) == (False, "KeyError: 'x'", None, False)
    assert verdict_of(Dead("never")).dead and verdict_of(Dead("never")).reason == "never"
    assert verdict_of(Later(5)).delay == 5
    assert len(verdict_of(ValueError("x" * 9999)).reason) == 1024


def test_leases_are_extended_each_third_while_the_handler_runs():
    leases = Leases(30.0)
    work = types.Work(b"i", b"", {}, "", None, receipt=b"r")
    leases.begin(work, 0.0)
    assert leases.due(9.9) == [] and leases.due(10.0) == [b"r"] and leases.due(10.1) == [] and leases.due(20.1) == [b"r"]
    leases.end(work)
    assert leases.due(99.0) == []


def test_methods_are_those_of_the_protos():
    """Every path exists in the services' descriptors, with the response that it names."""
    from prism.admin.v1 import namespaces_pb2
    from prism.queue.v1 import queue_pb2

    services = {
        service.full_name: service
        for module in (kv, ps, queue_pb2, namespaces_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    listed = [each for each in vars(methods).values() if isinstance(each, methods.Method)]
    assert len(listed) > 20
    for method in listed:
        service, _, name = method.path[1:].partition("/")
        assert services[service].methods_by_name[name].output_type is method.response.DESCRIPTOR
