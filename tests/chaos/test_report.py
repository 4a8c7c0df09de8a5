"""Reports: figures are right, and the picture is well-formed whatever the run was like."""

import re
from random import Random
from xml.etree import ElementTree as ET

from history import Operation, Outcome, Reply, Request, Violation
from hypothesis import given
from hypothesis import strategies as st
from report import buckets, decades, draw, nice, percentile, write_gap_s, write_report
from simulated import MS, run

NS = 1_000_000_000


def writes(*returns_s, wait_ms=5):
    return [
        Operation(
            *(0, "k", "register", Request(f"v{at}")),
            *(int(at * NS) - wait_ms * MS, int(at * NS), Reply(), Outcome.OK),
        )
        for at in returns_s
    ]


def test_throughput_and_latency_by_span():
    run_of = [*writes(0.5, 0.6, 0.7, wait_ms=2), *writes(2.5, wait_ms=40)]
    spans = buckets(run_of, 0, NS)
    assert [each.rates["ok"] for each in spans] == [3, 0, 1]
    assert [each.p99_ms for each in spans] == [2, None, 40]


def test_percentiles_are_values_that_were_seen():
    values = [float(each) for each in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7


@given(top=st.floats(1e-3, 1e9))
def test_marks_are_round_and_reach_the_top(top):
    marks = nice(top)
    assert marks[0] == 0
    assert 2 <= len(marks) <= 7
    assert marks[-1] >= top * 0.999
    low, *_, high = decades(top, top * 3)
    assert low <= top * 1.0001
    assert high >= top * 3 * 0.9999


def test_the_gap_of_a_fault_reaches_to_the_next_write():
    acked = writes(1, 2, 5.5, 6)
    assert write_gap_s(acked, 3 * NS, 4 * NS) == 3.5
    assert write_gap_s(acked, int(5.7 * NS), int(5.8 * NS)) == 0.5


def test_a_page_and_its_picture(tmp_path):
    operations, _ = run(Random(1), calls=200)
    end = max(each.return_ns for each in operations)
    faults = [("kill n1 <leader>", end // 4, end // 3), ("pause & go", end // 2, end // 2)]
    violation = Violation("I2", "stale", (operations[0],))
    page = write_report(tmp_path, "kill-leader", operations, faults, [violation], ["seed 1"])
    text = page.read_text()
    assert "**1 violations.** 200 operations" in text
    assert "| kill n1 <leader> |" in text
    assert "![throughput and latency over time](kill-leader.svg)" in text
    acked = sum(each.f == "get" and each.outcome is Outcome.OK for each in operations)
    assert f"| get | {acked} |" in text
    picture = (tmp_path / "kill-leader.svg").read_text()
    tree = ET.fromstring(picture)
    titles = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("kill n1 <leader>" in each for each in titles) == 2
    words = {each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"operations/s", "latency, ms (log)", "seconds of the run", "pause & go"} <= words


def test_an_empty_run_can_be_drawn():
    for operations in ([], writes(1)):
        picture = draw(operations)
        ET.fromstring(picture)
        assert not re.search(r"nan|inf\b", picture)
