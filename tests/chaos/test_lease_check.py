"""Leases: lives that are right pass, each planted fault is found by the number of its promise."""

from dataclasses import replace
from random import Random

import pytest
from event_log import Change, Log, LogEvent
from history import HistoryError, Outcome, Reply, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from lease_check import LEASE_LOST, Takeover, check
from simulated_leases import MS, TTL_MS, life


def rules(found):
    return {each.rule for each in found}


@pytest.fixture
def kept():
    """A record renewed every second six times, then let go; and its log."""
    operations, log, _ = life(Random(3))
    return operations, log


def of(operations, f, *outcomes):
    outcomes = outcomes or (Outcome.OK,)
    return [each for each in operations if each.f == f and each.outcome in outcomes]


def at(operation, ms, **changes):
    """The operation at another time, a millisecond long."""
    call_ns = int(ms * MS)
    return replace(operation, call_ns=call_ns, return_ns=call_ns + MS, **changes)


def last_renewal_ms(operations):
    return of(operations, "renew")[-1].call_ns / MS


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 32), renewals=st.integers(2, 8), outage=st.booleans())
def test_right_lives_pass(seed, renewals, outage):
    operations, log, takeovers = life(Random(seed), renewals=renewals, outage=outage)
    assert check(operations, log, takeovers) == []
    assert check(operations, None, takeovers) == []


def test_early_expiry_is_found_by_a_read(kept):
    operations, log = kept
    read = at(of(operations, "get")[0], last_renewal_ms(operations) + TTL_MS - 50)
    gone = replace(read, proc=9, reply=Reply(store_revision=1))
    found = check([*operations, gone], log)
    assert rules(found) == {"I6"}
    assert found[0].operations[-1] == gone


def test_early_expiry_is_found_by_a_lost_lease(kept):
    operations, log = kept
    (lost,) = of(operations, "renew", Outcome.FAIL)
    early = at(lost, last_renewal_ms(operations) + TTL_MS - 50)
    assert "I6" in rules(check([*operations, early], log))


def test_early_expiry_is_found_in_the_log(kept):
    operations, _ = kept
    operations = [each for each in operations if each.f == "renew"]
    seen = int((last_renewal_ms(operations) + TTL_MS - 20) * MS)
    log = Log([LogEvent(0, 2, "gw", Change.EXPIRED, seen_ns=seen)])
    assert "I6" in rules(check(operations, log))


def test_a_deregistered_record_is_not_an_early_expiry(kept):
    operations, _ = kept
    base = last_renewal_ms(operations)
    operations = [each for each in operations if each.call_ns <= base * MS]
    read = at(of(operations, "get")[0], base + 100)
    gone = replace(read, proc=9, reply=Reply(store_revision=2))
    removal = at(gone, base + 50, f="deregister", outcome=Outcome.INFO)
    assert check([*operations, gone, removal]) == []
    assert "I6" in rules(check([*operations, gone]))


def test_zombie_is_found(kept):
    operations, log = kept
    shown = of(operations, "get")[0]
    in_time = at(shown, last_renewal_ms(operations) + TTL_MS + 900)
    assert "I7" not in rules(check([*operations, replace(in_time, proc=9)], log))
    late = at(shown, last_renewal_ms(operations) + TTL_MS + 1_100)
    assert "I7" in rules(check([*operations, late]))
    suspect = replace(late, reply=replace(late.reply, status="suspect"))
    assert "I7" not in rules(check([*operations, suspect]))


def test_zombie_after_a_failover_is_found(kept):
    operations, _ = kept
    base = last_renewal_ms(operations)
    operations = [each for each in operations if each.call_ns <= base * MS]
    shown = of(operations, "get")[0]
    failover = [Takeover(int((base + 1_000) * MS), int((base + 1_500) * MS))]
    in_time = at(shown, base + 2 * TTL_MS + 2_900)
    late = at(shown, base + 2 * TTL_MS + 3_100)
    assert rules(check([*operations, in_time], takeovers=failover)) == set()
    assert rules(check([*operations, late], takeovers=failover)) == {"I7"}
    assert rules(check([*operations, in_time])) == {"I7"}


def test_an_unknown_renewal_may_have_prolonged_it(kept):
    operations, _ = kept
    base = last_renewal_ms(operations)
    operations = [each for each in operations if each.call_ns <= base * MS]
    unknown = at(of(operations, "renew")[0], base + 2_000, outcome=Outcome.INFO)
    late = at(of(operations, "get")[0], base + TTL_MS + 1_100)
    assert check([*operations, unknown, late]) == []


def test_takeover_that_does_not_grant_a_full_time_is_found(kept):
    operations, _ = kept
    base = last_renewal_ms(operations)
    operations = [each for each in operations if each.call_ns <= base * MS]
    gone = at(of(operations, "get")[0], base + TTL_MS + 1_000, reply=Reply(), proc=9)
    takeover = Takeover(int((base + 1_500) * MS), int((base + 1_600) * MS))
    assert rules(check([*operations, gone], takeovers=[takeover])) == {"I10"}
    assert check([*operations, gone]) == []
    elsewhere = replace(takeover, partition=5)
    assert check([*operations, gone], takeovers=[elsewhere]) == []


def test_resurrected_record_is_found(kept):
    operations, log = kept
    (lost,) = of(operations, "renew", Outcome.FAIL)
    shown = of(operations, "get")[0]
    again = at(shown, lost.call_ns / MS + 100)
    assert "I11" in rules(check([*operations, again], log))
    renewed = at(of(operations, "renew")[0], lost.call_ns / MS + 100)
    assert "I11" in rules(check([*operations, renewed], log))


def test_resurrected_record_is_found_without_a_log(kept):
    operations, _ = kept
    base = last_renewal_ms(operations)
    operations = [each for each in operations if each.call_ns <= base * MS]
    removal = at(operations[0], base + 20, f="deregister", request=Request(), proc=2)
    removal = replace(removal, reply=Reply(revision=2, store_revision=2, existed=True))
    again = at(of(operations, "get")[0], base + 40)
    assert "I11" in rules(check([*operations, removal, again]))


def test_record_that_comes_back_unregistered_is_found_in_the_log():
    log = Log(
        [
            LogEvent(0, 1, "gw", Change.PUT, "v1"),
            LogEvent(0, 2, "gw", Change.EXPIRED),
            LogEvent(0, 3, "gw", Change.PUT, "v2"),
        ]
    )
    assert log.check_resurrections({("gw", "v1"), ("gw", "v2")}) == []
    assert rules(log.check_resurrections({("gw", "v1")})) == {"I11"}


def test_lost_record_of_a_diligent_owner_is_found():
    operations, _, _ = life(Random(5), renewals=8, outage=True)
    tries = of(operations, "renew", Outcome.OK, Outcome.INFO)
    unknown = of(operations, "renew", Outcome.INFO)
    assert unknown
    until = unknown[-1].call_ns
    operations = [each for each in tries if each.call_ns <= until]
    acked_ms = max(each.call_ns for each in operations if each.outcome is Outcome.OK) / MS
    # Without an answer for longer than its time to live, but it went on trying.
    more = [at(unknown[0], acked_ms + 1_000 * number) for number in range(1, 6)]
    operations = [each for each in operations if each.outcome is Outcome.OK] + more
    lost = at(more[0], acked_ms + 5_500, outcome=Outcome.FAIL, reply=Reply(reason=LEASE_LOST))
    assert "I28" in rules(check([*operations, lost]))
    assert "I28" not in rules(check([*operations, lost], server_faults_only=False))
    lazy = [*operations[:-4], lost]
    assert "I28" not in rules(check(lazy))


def test_a_renewal_says_its_time_to_live(kept):
    operations, _ = kept
    renewal = replace(of(operations, "renew")[0], request=Request(lease_id=1))
    with pytest.raises(HistoryError, match="ttl_ms must be given"):
        check([renewal])
