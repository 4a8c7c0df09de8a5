"""What one record may do: the sequential model that linearizability is judged by.

A state is none (no record) or (value, incarnation, revision, ttl in ms). Revisions are no more
than labels here: what a write was told is what reads and compare-and-set must name; an unknown
write has an unknown label until something names it. Draining is not modelled.
"""

from __future__ import annotations

from history import Operation, Outcome

State = tuple[str, int, int | None, int] | None
"""Value, incarnation, revision (none: not known yet) and time to live; or no record."""


class Illegal:
    """The answer for what can't have happened in a state."""


ILLEGAL = Illegal()


def step(state: State, operation: Operation) -> State | Illegal:
    """The state after an operation, or ILLEGAL where its answer contradicts the state.

    An unknown write that would change nothing is ILLEGAL, too: it need not be placed at all,
    as it may never have been applied.
    """
    match operation.f:
        case "get":
            return _get(state, operation)
        case "register":
            return _register(state, operation)
        case "update":
            return _update(state, operation)
        case "deregister":
            return _deregister(state, operation)
        case "expire":
            return None if state is not None and state[3] else ILLEGAL
    return ILLEGAL


def _bound(state: State, revision: int) -> State | Illegal:
    """The state with its label known to be this one."""
    if state is None or state[2] not in (None, revision):
        return ILLEGAL
    return (state[0], state[1], revision, state[3])


def _get(state: State, operation: Operation) -> State | Illegal:
    reply = operation.reply
    if reply.value is None:
        return None if state is None else ILLEGAL
    if state is None or (reply.value, reply.incarnation) != state[:2]:
        return ILLEGAL
    return _bound(state, reply.revision)


def _refusals(state: State, operation: Operation) -> tuple[str, ...]:
    """The refusals that are possible, and "" if it may be carried out."""
    request = operation.request
    expected = request.expected_revision
    stored: int | None = 0
    if state is not None:
        if 0 < request.incarnation < state[1]:
            return ("STALE_INCARNATION",)
        stored = state[2]
    if expected is None or expected == stored:
        return ("",)
    if stored is None and expected != 0:
        return ("", "REVISION_MISMATCH")
    return ("ALREADY_EXISTS" if expected == 0 else "REVISION_MISMATCH",)


def _refused(state: State, operation: Operation, possible: tuple[str, ...]) -> State | Illegal:
    """The state it stays in, if it was refused as it had to be."""
    if operation.outcome is Outcome.FAIL:
        return state if operation.reply.reason in possible else ILLEGAL
    return ILLEGAL


def _register(state: State, operation: Operation) -> State | Illegal:
    request, reply = operation.request, operation.reply
    wanted = request.incarnation or (state[1] if state else 0)
    same = state is not None and (state[0], state[1], state[3]) == (
        request.value,
        wanted,
        request.ttl_ms,
    )
    if same:
        # A repeat changes nothing and succeeds before the expected revision is looked at.
        if operation.outcome is Outcome.OK and not reply.created:
            return _bound(state, reply.revision)
        return ILLEGAL
    possible = _refusals(state, operation)
    if operation.outcome is Outcome.FAIL or "" not in possible:
        return _refused(state, operation, possible)
    known = operation.outcome is Outcome.OK
    if known and reply.created != (state is None):
        return ILLEGAL
    return (request.value, wanted, reply.revision if known else None, request.ttl_ms)


def _update(state: State, operation: Operation) -> State | Illegal:
    request, reply = operation.request, operation.reply
    if state is None:
        return _refused(state, operation, ("NOT_FOUND",))
    possible = _refusals(state, operation)
    known = operation.outcome is Outcome.OK
    if request.value == state[0] and possible != ("STALE_INCARNATION",):
        return _bound(state, reply.revision) if known else ILLEGAL
    if operation.outcome is Outcome.FAIL or "" not in possible:
        return _refused(state, operation, possible)
    return (request.value, state[1], reply.revision if known else None, state[3])


def _deregister(state: State, operation: Operation) -> State | Illegal:
    known = operation.outcome is Outcome.OK
    if state is None:
        return None if known and not operation.reply.existed else ILLEGAL
    possible = _refusals(state, operation)
    if operation.outcome is Outcome.FAIL or "" not in possible:
        return _refused(state, operation, possible)
    return None if not known or operation.reply.existed else ILLEGAL
