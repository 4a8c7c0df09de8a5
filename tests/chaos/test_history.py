"""Histories: what is written is what is read, also after a kill."""

from dataclasses import replace

import pytest
from history import (
    INFINITY,
    HistoryError,
    Operation,
    Outcome,
    Recorder,
    Reply,
    Request,
    check_one_in_flight,
    judged,
    read_history,
    write_history,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import run


def operation(**changes):
    whole = Operation(1, "k", "register", Request("v"), 10, 20, Reply(revision=1), Outcome.OK)
    return replace(whole, **changes)


@settings(max_examples=20, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_what_is_written_is_read(chance, tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "run.jsonl"
    operations, _ = run(chance)
    write_history(path, operations)
    assert read_history(path) == sorted(operations, key=lambda each: each.call_ns)


def test_a_recorder_survives_its_own_kill(tmp_path):
    path = tmp_path / "run.jsonl"
    clock = iter(range(100)).__next__
    recorder = Recorder(path, clock)
    recorder.call(1, "a", "register", Request("v1"))
    recorder.call(2, "b", "register", Request("v2"))
    done = recorder.answer(1, Outcome.OK, Reply(revision=7))
    recorder.call(1, "a", "get")
    recorder.close()
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        read = read_history(path)
        assert len(read) == min(whole[:end].count(b"\n"), 2) + (end == len(whole))
    assert read[0] == done
    unfinished = [each for each in read if each.return_ns is None]
    assert [each.outcome for each in unfinished] == [Outcome.INFO] * 2
    path.write_bytes(whole[:-3])
    with Recorder(path, clock) as again:
        again.call(9, "c", "get")
        again.answer(9, Outcome.OK)
    assert [each.key for each in read_history(path)] == ["a", "b", "c"]


def test_damage_before_the_end_is_not_overlooked(tmp_path):
    path = tmp_path / "run.jsonl"
    write_history(path, [operation(), operation(call_ns=30, return_ns=40)])
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(HistoryError, match=r"run\.jsonl:1 is damaged"):
        read_history(path)


def test_a_client_has_one_operation_in_flight(tmp_path):
    with pytest.raises(HistoryError, match="two operations in flight"):
        check_one_in_flight([operation(), operation(call_ns=15, return_ns=30)])
    with Recorder(tmp_path / "run.jsonl") as recorder:
        recorder.call(1, "a", "get")
        with pytest.raises(HistoryError, match="in flight"):
            recorder.call(1, "a", "get")


def test_unknown_writes_never_end_and_unknown_reads_say_nothing():
    write = operation(outcome=Outcome.INFO)
    read = operation(f="get", outcome=Outcome.INFO)
    overload = operation(outcome=Outcome.FAIL, reply=Reply(reason="OVERLOADED"))
    refusal = operation(outcome=Outcome.FAIL, reply=Reply(reason="ALREADY_EXISTS"))
    kept = list(judged([write, read, overload, refusal]))
    assert kept == [replace(write, return_ns=None), refusal]
    assert kept[0].end_ns == INFINITY
