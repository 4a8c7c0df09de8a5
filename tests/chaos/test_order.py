"""Linearizability and version order: what is right passes, each planted fault is found."""

from dataclasses import replace
from random import Random

import pytest
import version_order
from event_log import Change, Log, LogEvent
from history import Operation, Outcome, Reply, Request, judged
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linearizable import Result, check, check_key, violations
from record_model import Illegal, step
from simulated import MS, run

chances = st.randoms(use_true_random=False)


def rules(found):
    return {each.rule for each in found}


def write(at_ms, value, revision, *, f="register", proc=0, key="k", end_ms=None, **request):
    reply = Reply(revision=revision, store_revision=revision, created=revision == 1)
    end = (at_ms + 1 if end_ms is None else end_ms) * MS
    asked = Request(value, **request)
    return Operation(proc, key, f, asked, at_ms * MS, end, reply, Outcome.OK)


def read(at_ms, value, revision, *, store=0, proc=1, end_ms=None, key="k", **request):
    reply = Reply(revision=revision, store_revision=store or revision, value=value)
    end = (at_ms + 1 if end_ms is None else end_ms) * MS
    return Operation(proc, key, "get", Request(**request), at_ms * MS, end, reply, Outcome.OK)


@settings(max_examples=60, deadline=None)
@given(chance=chances)
def test_right_histories_pass(chance):
    operations, registry = run(chance)
    log = Log(registry.events)
    verdicts = check(operations)
    assert {each.result for each in verdicts} <= {Result.OK}, [str(each) for each in verdicts]
    assert version_order.check(operations) == []
    assert version_order.check(operations, log) == []
    registered = {(each.key, each.request.value) for each in operations if each.f == "register"}
    assert log.check_resurrections(registered) == []


@settings(max_examples=30, deadline=None)
@given(chance=chances)
def test_a_read_of_an_overwritten_value_is_found_in_any_history(chance):
    operations, _ = run(chance, unknown=0.0, keys=1, calls=40)
    end = max(each.return_ns for each in operations) + MS
    newest = max(each.reply.store_revision for each in operations)
    old = [each for each in operations if each.reply.value and each.reply.revision < newest]
    assume(old)
    operations.append(replace(old[0], proc=99, call_ns=end, return_ns=end + 1))
    assert "version order (a)" in rules(version_order.check(operations))
    assert check(operations)[0].result is Result.VIOLATION


def possible(state, left):
    """Every order that time allows, one after the other: slow, and too simple to be wrong."""
    definite = [each for each in left if each.outcome is not Outcome.INFO]
    if not definite:
        return True
    first_return = min(each.end_ns for each in definite)
    for each in left:
        if each.call_ns <= first_return:
            new = step(state, each)
            rest = [other for other in left if other is not each]
            if not isinstance(new, Illegal) and possible(new, rest):
                return True
    return False


def test_the_search_agrees_with_trying_every_order():
    chance = Random(11)
    results = []
    for _ in range(400):
        operations, _ = run(chance, clients=4, keys=1, calls=9, unknown=0.25)
        reads = [n for n, each in enumerate(operations) if each.f == "get" and each.outcome == "ok"]
        if len(reads) > 1 and chance.random() < 0.7:
            one, other = chance.sample(reads, 2)
            operations[one] = replace(operations[one], reply=operations[other].reply)
        operations = list(judged(operations))
        verdict = check_key("key0", operations)
        assert (verdict.result is Result.OK) is possible(None, operations)
        results.append(verdict.result)
    assert min(results.count(Result.OK), results.count(Result.VIOLATION)) > 30


def test_stale_read_is_found():
    operations = [write(0, "v1", 1), write(10, "v2", 2), read(20, "v1", 1)]
    (verdict,) = check(operations)
    assert verdict.result is Result.VIOLATION
    assert verdict.offending == operations[2]
    assert verdict.prefix == (operations[0], operations[1])
    assert rules(violations([verdict])) == {"I2"}
    assert "which has no place" in str(verdict)
    assert "version order (a)" in rules(version_order.check(operations))


def test_stale_read_of_nothing_is_found():
    operations = [write(0, "v1", 1), read(20, None, 0)]
    assert check(operations)[0].result is Result.VIOLATION
    assert rules(version_order.check(operations)) == {"I1"}
    older = [write(0, "v1", 1), write(2, "v2", 2), read(20, None, 0, store=1)]
    assert "version order (a)" in rules(version_order.check(older))


def test_stale_read_while_the_write_is_in_flight_is_right():
    operations = [write(0, "v1", 1), write(10, "v2", 2, end_ms=40), read(20, "v1", 1)]
    assert check(operations)[0].result is Result.OK
    assert version_order.check(operations) == []


def test_lost_write_is_found():
    written = [write(0, "v1", 1), write(10, "v2", 2)]
    log = Log(run_log([("v1", 1)]))
    found = version_order.check(written, log)
    assert rules(found) == {"I1"}
    lost = [*written, read(20, None, 0, store=2)]
    assert check(lost)[0].result is Result.VIOLATION


def run_log(values):
    """A log of one key's puts."""
    return [LogEvent(0, revision, "k", Change.PUT, value) for value, revision in values]


def test_duplicate_revision_is_found():
    operations = [write(0, "v1", 1), write(10, "v2", 2), write(20, "v3", 2, key="j")]
    assert "I5" in rules(version_order.check(operations))
    again = Log(run_log([("v1", 1), ("v2", 2), ("v3", 2)]))
    assert rules(again.check_revisions()) == {"I5"}
    hole = Log(run_log([("v1", 1), ("v3", 3)]))
    assert "leaves a hole" in str(hole.check_revisions()[0])


def test_revision_reused_after_a_restart_is_found():
    operations = [write(0, "v1", 1), write(5, "v2", 2), read(10, "v2", 2), read(20, "v9", 2)]
    operations.append(write(15, "v9", 2, proc=3))
    assert "I5" in rules(version_order.check(operations))


def test_write_that_does_not_advance_is_found():
    operations = [write(0, "v1", 5), write(10, "v2", 5, key="j"), write(20, "v3", 4, key="i")]
    found = [each for each in version_order.check(operations) if "(a)" in each.rule]
    assert [each.operations[1] for each in found] == operations[1:]


def test_read_from_the_future_is_found():
    operations = [write(0, "v1", 1), read(5, "v2", 2), write(10, "v2", 2)]
    assert "version order (b)" in rules(version_order.check(operations))
    assert check(operations)[0].result is Result.VIOLATION


def test_value_nobody_wrote_is_found():
    assert rules(version_order.check([read(5, "v2", 2)])) == {"version order (c)"}


def test_value_of_another_revision_is_found():
    operations = [write(0, "v1", 1), read(5, "v1", 3)]
    assert "version order (c)" in rules(version_order.check(operations))
    log = Log(run_log([("v1", 1), ("v2", 2)]))
    seen = [write(0, "v1", 1), write(2, "v2", 2, end_ms=9), read(5, "v1", 1, store=2)]
    assert "version order (c)" in rules(version_order.check(seen, log))


def test_refused_write_that_is_seen_is_found():
    refused = replace(
        write(0, "v1", 0), outcome=Outcome.FAIL, reply=Reply(reason="STALE_INCARNATION")
    )
    assert "version order (c)" in rules(version_order.check([refused, read(5, "v1", 1)]))


def test_resurrected_record_is_found():
    removed = replace(write(10, "", 2, f="deregister"), request=Request())
    removed = replace(removed, reply=replace(removed.reply, existed=True))
    operations = [write(0, "v1", 1), removed, read(20, "v1", 1)]
    assert check(operations)[0].result is Result.VIOLATION
    assert "version order (a)" in rules(version_order.check(operations))


def test_two_winners_of_one_compare_and_set_are_found():
    operations = [
        write(0, "v1", 1, expected_revision=0),
        write(10, "v2", 2, proc=1, expected_revision=1, end_ms=20),
        write(10, "v3", 3, proc=2, expected_revision=1, end_ms=20),
    ]
    assert check(operations)[0].result is Result.VIOLATION


def test_stale_incarnation_that_overwrites_is_found():
    operations = [write(0, "v1", 1, incarnation=5), write(10, "v2", 2, incarnation=4)]
    assert check(operations)[0].result is Result.VIOLATION


@pytest.mark.parametrize(("applied", "right"), [("v2", True), ("v1", True), ("v9", False)])
def test_an_unknown_write_may_have_happened_or_not(applied, right):
    unknown = replace(write(10, "v2", 0, proc=7), outcome=Outcome.INFO, reply=Reply())
    revision = {"v1": 1, "v2": 2, "v9": 9}[applied]
    verdict = check([write(0, "v1", 1), unknown, read(20, applied, revision)])[0]
    assert (verdict.result is Result.OK) is right


def test_a_stale_read_goes_back_for_one_client_only_as_a_violation():
    old = {"consistency": "stale"}
    operations = [write(0, "v1", 1), write(2, "v2", 2), read(10, "v2", 2, **old)]
    back = replace(read(20, "v1", 1, **old), reply=Reply(0, 1, 1, value="v1", age_ms=50))
    assert version_order.check([*operations, back])[0].rule == "I3"
    assert version_order.check([*operations, replace(back, proc=5)]) == []
    dishonest = replace(back, proc=5, reply=replace(back.reply, age_ms=5))
    assert rules(version_order.check([*operations, dishonest])) == {"I3"}


def test_a_budget_ends_the_search():
    operations, _ = run(Random(4), clients=8, keys=1, calls=120, unknown=0.3)
    verdict = check_key("k", operations, steps_max=20)
    assert (verdict.result, verdict.steps) == (Result.UNKNOWN, 21)
    assert check(operations, seconds_max=60)[0].result in (Result.OK, Result.UNKNOWN)
