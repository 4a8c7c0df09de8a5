"""Watch guarantees: right streams pass in any cut, each planted fault is found by its name."""

from dataclasses import replace
from random import Random

import pytest
from event_log import Change, Log, LogEvent, position_of
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import difference, even, everything, held_at, mend, middle, run, watch
from watch_check import (
    Message,
    Phase,
    Stream,
    WatchEvent,
    check,
    check_chain,
    check_ends,
    check_seam,
)

# Seeds, not choices: a whole log is too much to shrink.
chances = st.integers(0, 1 << 32).map(Random)
filters = st.sampled_from([everything, even])


def log_of(chance):
    _, registry = run(chance, keys=6, calls=100)
    assert len(registry.revisions) == registry.partitions
    return Log(registry.events)


def rules(found):
    return {each.rule for each in found}


@settings(max_examples=40, deadline=None)
@given(chance=chances, match=filters)
def test_right_watches_pass(chance, match):
    log = log_of(chance)
    stream = watch(chance, log, match)
    ends = {p: events[-1].revision for p, events in log.partitions.items()}
    assert check(stream, log) == []
    assert check_ends([stream], log, ends) == []


@settings(max_examples=40, deadline=None)
@given(chance=chances, match=filters)
def test_right_resumes_on_other_nodes_pass(chance, match):
    log = log_of(chance)
    at = middle(chance, log)
    first = replace(watch(chance, log, match, until=at), whole=True)
    second = watch(chance, log, match, start=at, node="n2")
    second = replace(second, resumed_from="n1")
    assert check_chain([first, second], log) == []


@settings(max_examples=40, deadline=None)
@given(chance=chances, present=st.booleans())
def test_right_listings_and_differences_pass(chance, present):
    log = log_of(chance)
    one, two = middle(chance, log), middle(chance, log)
    low = {p: min(one[p], two[p]) for p in one}
    high = {p: max(one[p], two[p]) for p in one}
    held = held_at(log, low)
    assert check_seam(held, low, everything, log) == []
    rest = watch(chance, log, start=high).messages[1:]
    messages = [Message(Phase.CREATED, positions=low), *difference(log, low, high, present), *rest]
    stream = Stream("n1", everything, messages, start=low, held=held, whole=True, previous=True)
    assert check(stream, log) == []


@pytest.fixture
def log():
    change = [
        ("a", Change.PUT, "v2"),
        ("b", Change.PUT, "v4"),
        ("a", Change.PUT, "v6"),
        ("b", Change.EXPIRED, None),
        ("a", Change.PUT, "v7"),
        ("a", Change.DEREGISTERED, None),
        ("c", Change.PUT, "v8"),
    ]
    return Log(LogEvent(0, at, key, what, value) for at, (key, what, value) in enumerate(change, 1))


def stream_of(log, match=everything, **changes):
    """A stream of one event a message; created comes first."""
    messages = [Message(Phase.CREATED, positions={0: 0})]
    for each in log.project(match)[0]:
        value = each.event.value if each.change is Change.PUT else None
        place = (0, each.event.revision, each.event.key, each.change)
        event = WatchEvent(*place, value, each.previous, each.created)
        messages.append(Message(Phase.LIVE, (event,), {0: each.event.revision}))
    whole = {"node": "n1", "match": match, "messages": messages, "previous": True}
    return Stream(**{**whole, **changes})


def planted(stream, place, **changes):
    """The stream with its message at a place changed in its only event."""
    message = stream.messages[place]
    event = replace(message.events[0], **changes)
    return replace(stream, messages=mend(stream.messages, place, replace(message, events=(event,))))


def test_reordered_watch_event_is_found(log):
    messages = list(stream_of(log).messages)
    messages[2], messages[3] = messages[3], messages[2]
    messages = [replace(each, positions=None) for each in messages]
    assert "Ordered" in rules(check(stream_of(log, messages=messages), log))


def test_event_sent_twice_is_found(log):
    messages = list(stream_of(log).messages)
    messages.insert(3, messages[2])
    assert rules(check(stream_of(log, messages=messages), log)) == {"Unique"}


def test_revision_sent_in_parts_is_found(log):
    stream = stream_of(log)
    part = replace(stream.messages[2].events[0], key="other")
    messages = list(stream.messages)
    messages.insert(3, replace(messages[2], events=(part,)))
    assert "Atomic" in rules(check(replace(stream, messages=messages), log))


@pytest.mark.parametrize("tokens", [True, False])
def test_gap_is_found(log, tokens):
    messages = mend(stream_of(log).messages, 2, None)
    if not tokens:
        messages = [replace(each, positions=None) for each in messages[1:]]
    assert rules(check(stream_of(log, messages=messages), log)) == {"Reliable"}


def test_gap_at_the_end_is_found(log):
    stream = replace(stream_of(log), messages=stream_of(log).messages[:-1])
    assert check(stream, log) == []
    assert rules(check_ends([stream], log, {0: 7})) == {"Reliable"}


def test_event_left_out_on_resume_is_found(log):
    messages = [Message(Phase.CREATED, positions={0: 2}), *stream_of(log).messages[4:]]
    stream = stream_of(log, messages=messages, start={0: 2})
    assert rules(check(stream, log)) == {"Resumable"}
    moved = replace(stream, node="n2", resumed_from="n1")
    assert rules(check(moved, log)) == {"I25"}


def test_duplicate_on_resume_is_found(log):
    messages = stream_of(log).messages
    first = stream_of(log, messages=messages[:4])
    second = [Message(Phase.CREATED, positions={0: 3}), *messages[3:]]
    again = stream_of(log, messages=second, start={0: 3})
    assert rules(check_chain([first, again], log)) == {"Unique"}


def test_event_sent_again_though_the_token_is_older_is_found(log):
    messages = stream_of(log).messages
    first = stream_of(log, messages=messages[:4])
    second = [Message(Phase.CREATED, positions={0: 2}), *messages[3:]]
    again = stream_of(log, messages=second, start={0: 2})
    assert rules(check_chain([first, again], log)) == {"Unique"}


def test_event_after_progress_is_found(log):
    messages = list(stream_of(log).messages)
    messages[2:2] = [Message(Phase.PROGRESS, positions={0: 2})]
    found = rules(check(stream_of(log, messages=messages), log))
    assert found == {"Bookmarkable", "Reliable"}


def test_progress_that_goes_back_is_found(log):
    messages = [*stream_of(log).messages, Message(Phase.PROGRESS, positions={0: 7})]
    messages.append(Message(Phase.PROGRESS, positions={0: 5}))
    assert rules(check(stream_of(log, messages=messages), log)) == {"Bookmarkable"}


def test_event_that_does_not_match_is_found(log):
    stream = stream_of(log, even)
    # Revision 5 makes "a" odd, so that it's removed from this watch; 6 is then not for it.
    assert [each.events[0].revision for each in stream.messages[1:]] == [1, 2, 3, 4, 5, 7]
    assert stream.messages[5].events[0].change is Change.REMOVED
    assert check(stream, log) == []
    odd = Message(Phase.LIVE, (WatchEvent(0, 6, "a", Change.DEREGISTERED),), {0: 6})
    messages = [*stream.messages[:6], odd, *stream.messages[6:]]
    assert rules(check(replace(stream, messages=messages), log)) == {"Filter"}


def test_wrong_previous_value_is_found(log):
    assert rules(check(planted(stream_of(log), 3, previous="v9"), log)) == {"PrevKV"}


def test_wrong_created_flag_is_found(log):
    assert rules(check(planted(stream_of(log), 3, created=True), log)) == {"IsCreate"}
    assert rules(check(planted(stream_of(log), 1, created=False), log)) == {"IsCreate"}


def test_event_with_another_value_is_found(log):
    assert rules(check(planted(stream_of(log), 3, value="v66"), log)) == {"Reliable"}


def test_removal_of_the_wrong_type_is_found(log):
    found = check(planted(stream_of(log), 4, change=Change.DEREGISTERED), log)
    assert rules(found) == {"I24"}


def test_removal_without_an_event_is_found(log):
    messages = mend(stream_of(log).messages, 4, None)
    assert rules(check(stream_of(log, messages=messages), log)) == {"I24"}


def test_gap_between_list_and_watch_is_found(log):
    held = held_at(log, {0: 3})
    assert check_seam(held, {0: 3}, everything, log) == []
    assert rules(check_seam(held_at(log, {0: 2}), {0: 3}, everything, log)) == {"I22"}
    assert rules(check_seam({**held, "z": (3, "v1")}, {0: 3}, everything, log)) == {"I22"}


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize(
    "plant", ["lost removal", "lost record", "old record", "not complete", "goes back"]
)
def test_difference_that_is_not_exact_is_found(log, present, plant):
    held = held_at(log, {0: 3})
    created = Message(Phase.CREATED, positions={0: 3})
    gap, sync, synced = difference(log, {0: 3}, {0: 7}, present)
    right = [created, gap, sync, synced]
    stream = stream_of(log, messages=right, start={0: 3}, held=held, whole=True)
    assert check(stream, log) == []
    match plant:
        case "lost removal":
            # A key named as present keeps a removed record; without names, nothing removes it.
            events = tuple(each for each in sync.events if each.key != "a")
            right[2] = replace(sync, events=events, present=("a",) if present else ())
        case "lost record":
            events = tuple(each for each in sync.events if each.key != "c")
            right[2] = replace(sync, events=events)
        case "old record":
            right[2] = replace(sync, events=(WatchEvent(0, 1, "a", Change.PUT, "v2"),))
        case "not complete":
            right.insert(3, Message(Phase.LIVE, (), {0: 7}))
        case "goes back":
            right[3] = replace(synced, positions={0: 1})
    assert "I23" in rules(check(replace(stream, messages=right), log))


def test_what_was_skipped_without_a_gap_is_found(log):
    _, sync, synced = difference(log, {0: 3}, {0: 7}, present=False)
    created = Message(Phase.CREATED, positions={0: 3})
    silent = replace(sync, phase=Phase.LIVE, positions={0: 7})
    stream = stream_of(log, messages=[created, silent, synced], start={0: 3})
    assert {"Ordered", "Reliable", "I24", "Resumable"} & rules(check(stream, log))


def test_current_state_is_exact_but_for_what_is_overdue(log):
    current = tuple(WatchEvent(0, *place) for place in [(2, "b", Change.PUT, "v4")])
    created = Message(Phase.CREATED, positions={0: 3})
    whole = [created, Message(Phase.SYNC, current), Message(Phase.SYNCED, positions={0: 3})]
    assert rules(check(stream_of(log, messages=whole), log)) == {"I23"}
    newer = WatchEvent(0, 3, "a", Change.PUT, "v6")
    whole[1] = Message(Phase.SYNC, (*current, newer))
    assert check(stream_of(log, messages=whole), log) == []
    whole[1] = Message(Phase.SYNC, (newer,))
    assert rules(check(stream_of(log, messages=whole), log)) == {"I23"}
    leased = Log(replace(each, ttl_ms=5) for each in log.partitions[0])
    assert check(stream_of(leased, messages=whole), leased) == []


def test_resume_tokens_are_read():
    token = b"\x01R" + bytes(16) + b"\x01" + b"\x03" + b"\x05\xac\x02\x00" + b"CRC4"
    assert position_of(token) == {0: 5, 1: 300, 2: 0}


def test_planted_faults_are_found_in_large_logs():
    """The same fault in the middle of much else."""
    chance = Random(7)
    log = log_of(chance)
    stream = watch(chance, log)
    live = [n for n, each in enumerate(stream.messages) if each.phase is Phase.LIVE]
    for place in live:
        less = replace(stream, messages=mend(stream.messages, place, None))
        assert {"Reliable", "I24"} & rules(check(less, log))
