"""The contract of watches: created, live, current state, resumption, removal, progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t


def take(watch: Any, count: int) -> list[t.Change]:
    """The next changes, of however many messages."""
    changes: list[t.Change] = []
    while len(changes) < count:
        item = next(watch)
        if isinstance(item, t.Change):
            changes.append(item)
    return changes


def until(watch: Any, kind: type) -> list[t.WatchItem]:
    """Everything up to and with the first item of this kind."""
    items: list[t.WatchItem] = [next(watch)]
    while not isinstance(items[-1], kind):
        items.append(next(watch))
    return items


@pytest.fixture
def started(registry: Any, make: Any) -> Callable[..., Any]:
    """Opens watches on the namespace and waits until they exist."""

    def start(filter: t.Filter | None = None, **options: Any) -> Any:
        watch = registry.watch(filter or make.filter(), **options)
        assert isinstance(next(watch), t.Started)
        return watch

    return start


def test_changes_come_as_they_happen(registry: Any, make: Any, started: Any) -> None:
    with started() as watch:
        created = make.put(owner="one")
        changed = make.put(owner="two")
        removed = registry.deregister(make.key())
        first, second, third = take(watch, 3)
    assert (first.type, first.revision, first.created) == (
        t.EventType.PUT,
        created.revision,
        True,
    )
    assert first.record.spec.owner == "one"
    assert first.partition == created.header.partition
    assert first.live
    assert (second.revision, second.created) == (changed.revision, False)
    assert second.record.spec.owner == "two"
    assert (third.type, third.revision) == (t.EventType.DEREGISTERED, removed.revision)
    assert third.key == make.key()
    assert third.record is None


def test_a_watch_sees_only_what_its_filter_matches(make: Any, started: Any) -> None:
    with started(make.filter(kind=t.Kind.GATEWAY, regions=("eu",))) as watch:
        make.put("us-1", region="us")
        make.put("eu-1", region="eu")
        make.put("worker", region="eu", kind=t.Kind.AGENT)
        make.put("eu-2", region="eu")
        names = {change.key.name for change in take(watch, 2)}
    assert names == {"eu-1", "eu-2"}


def test_what_no_longer_matches_is_removed(make: Any, started: Any) -> None:
    with started(make.filter(regions=("eu",))) as watch:
        make.put(region="eu")
        moved = make.put(region="us")
        make.put(region="eu")
        put, removed, back = take(watch, 3)
    assert put.type is t.EventType.PUT
    assert (removed.type, removed.revision) == (t.EventType.REMOVED, moved.revision)
    assert removed.key == make.key()
    assert removed.record is None
    assert back.type is t.EventType.PUT


def test_an_expiry_is_told_as_such(make: Any, started: Any) -> None:
    with started() as watch:
        make.put(ttl_ms=1000)
        put, expired = take(watch, 2)
    assert put.type is t.EventType.PUT
    assert expired.type is t.EventType.EXPIRED
    assert expired.key == make.key()
    assert expired.revision > put.revision


def test_the_current_state_comes_first_if_asked(registry: Any, make: Any, started: Any) -> None:
    for name in ("a", "b", "c"):
        make.put(name)
    registry.deregister(make.key("b"))
    with started(include_current=True) as watch:
        assert not watch.resume_token, "whoever resumed here would miss the state"
        items = until(watch, t.Synced)
        make.put("d")
        (live,) = take(watch, 1)
    current = [item for item in items if isinstance(item, t.Change)]
    assert {change.key.name for change in current} == {"a", "c"}
    assert not any(change.live for change in current)
    assert all(change.record is not None for change in current)
    assert live.live
    assert live.key.name == "d"


def test_a_current_state_has_a_token_only_when_it_is_whole(make: Any, started: Any) -> None:
    for number in range(3):
        make.put(f"n{number}")
    with started(include_current=True) as watch:
        while not isinstance(next(watch), t.Synced):
            assert not watch.resume_token
        token = watch.resume_token
    make.put("later")
    with started(resume_token=token) as watch:
        assert take(watch, 1)[0].key.name == "later"


def test_an_empty_current_state_is_complete_too(started: Any) -> None:
    with started(include_current=True) as watch:
        assert [type(item) for item in until(watch, t.Synced)] == [t.Synced]


def test_a_watch_resumes_without_gap_or_repeat(make: Any, started: Any, registry: Any) -> None:
    with started() as watch:
        make.put("a")
        take(watch, 1)
        token = watch.resume_token
    make.put("b")
    make.put("c", ttl_ms=60_000)
    registry.deregister(make.key("a"))
    with started(resume_token=token) as watch:
        make.put("d")
        changes = take(watch, 4)
    seen = {(change.key.name, change.type) for change in changes}
    assert seen == {
        ("b", t.EventType.PUT),
        ("c", t.EventType.PUT),
        ("a", t.EventType.DEREGISTERED),
        ("d", t.EventType.PUT),
    }


def test_a_list_can_be_watched_from_without_a_gap(registry: Any, make: Any, started: Any) -> None:
    make.put("a")
    page = registry.list(make.filter(kind=t.Kind.GATEWAY))
    make.put("b")
    with started(resume_token=page.resume_token) as watch:
        (change,) = take(watch, 1)
    assert [i.key.name for i in page.instances] == ["a"]
    assert change.key.name == "b"


def test_progress_is_told_when_nothing_happens(started: Any, make: Any) -> None:
    with started(progress_interval_ms=100) as watch:
        assert isinstance(next(watch), t.Progress)
        token = watch.resume_token
    make.put()
    with started(resume_token=token) as watch:
        assert take(watch, 1)[0].key == make.key()


def test_the_record_before_the_change(make: Any, started: Any, registry: Any) -> None:
    make.put(owner="one")
    with started(include_previous=True) as watch:
        make.put(owner="two")
        registry.deregister(make.key())
        changed, removed = take(watch, 2)
    assert changed.previous.spec.owner == "one"
    assert removed.previous.spec.owner == "two"


def test_every_watcher_sees_every_change_in_order(make: Any, started: Any) -> None:
    watches = [started() for _ in range(3)]
    puts = [make.put(owner=str(number)) for number in range(50)]
    for watch in watches:
        with watch:
            changes = take(watch, 50)
        assert [change.revision for change in changes] == [put.revision for put in puts]


@pytest.mark.parametrize("token", [b"x", b"\x00" * 60, b"not a token at all"])
def test_a_token_that_is_none_is_refused(registry: Any, make: Any, token: bytes) -> None:
    with pytest.raises(errors.ResumeTokenInvalidError) as caught:
        next(registry.watch(make.filter(), resume_token=token))
    assert caught.value.reason == "RESUME_TOKEN_INVALID"
    assert caught.value.field == "resume_token"


def test_a_watch_that_is_closed_ends(started: Any) -> None:
    watch = started()
    watch.close()
    watch.close()
    assert list(watch) == []
