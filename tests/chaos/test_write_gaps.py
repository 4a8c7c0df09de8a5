"""Write gaps: which partition counts as hit by a kill, and how long it took no write."""

import math

from write_gaps import (
    Acknowledged,
    Kill,
    Led,
    beginnings_ns,
    hit,
    longest_ms,
    notes,
    of_faults,
    of_kills,
    told,
)

MS = 1_000_000


def acknowledged(*times_ms, term=1):
    return [Acknowledged(at * MS, term) for at in times_ms]


def with_a_hole(after_ms, until_ms, end_ms, term=2):
    """A write each 20 ms; none within the hole, and behind it in another term."""
    return [
        *acknowledged(*range(0, after_ms + 1, 20)),
        *acknowledged(*range(until_ms, end_ms, 20), term=term),
    ]


def test_a_gap_counts_where_it_ends():
    writes = acknowledged(0, 100, 130, 600, 610)
    assert longest_ms(writes, 110 * MS, 200 * MS) == 30
    assert longest_ms(writes, 110 * MS, 600 * MS) == 470
    assert longest_ms(writes, 605 * MS, math.inf) == 10
    assert longest_ms(writes, 140 * MS, 590 * MS) == math.inf, "no write came meanwhile"
    assert longest_ms(writes, 700 * MS, math.inf) == math.inf, "no write came any more"


def test_a_fault_reaches_to_the_next_one():
    probed = {0: acknowledged(0, 10, 110, 120, 420, 430), 1: acknowledged(*range(0, 440, 10))}
    assert of_faults(probed, [15 * MS, 130 * MS]) == [{0: 100, 1: 10}, {0: 300, 1: 10}]


def test_two_faults_at_once_are_one():
    """Two nodes stopped together: the first had an infinite gap, between it and the second."""
    assert beginnings_ns([(0, 50), (1, 90), (80, 95), (95, 99)]) == [0, 95]
    assert beginnings_ns([(7, 9), (1, 3)]) == [1, 7]


def test_the_partitions_that_were_led_are_apart_from_the_others():
    probed = {
        0: with_a_hole(1_000, 2_200, 5_000),
        1: with_a_hole(1_000, 1_060, 5_000, term=1),
        2: acknowledged(*range(0, 5_000, 20)),
    }
    led = {0: Led("n1", 1), 1: Led("n2", 1), 2: Led("n3", 1)}
    kill = Kill("n1", 1_010 * MS, led)
    assert hit(probed, kill) == {0}
    assert of_kills(probed, [kill]) == ([1_200], [60])
    said = notes(probed, [kill])
    assert said[0].endswith("1 kills: median 1,200 ms, p99 1,200 ms, longest 1,200 ms")
    assert said[1].endswith("1 kills: median 60 ms, p99 60 ms, longest 60 ms")
    assert said[2].endswith(": 20 ms")


def test_who_led_is_not_known_after_a_change():
    """The look says that n2 led in term 1, but the last write before the kill is of term 2."""
    probed = {0: acknowledged(0, 20, 40, term=2), 1: acknowledged(0, 20, 40)}
    kill = Kill("n1", 30 * MS, {0: Led("n2", 1)})
    assert hit(probed, kill) == {0, 1}, "nobody is known to lead partition 1 either"
    assert of_kills(probed, [kill]) == ([20], []), "then nothing is said of others"


def test_figures_are_of_values_that_were_seen():
    assert told([float(each) for each in range(1, 101)]) == (
        "median 50 ms, p99 99 ms, longest 100 ms"
    )
    assert told([]) == "none"
