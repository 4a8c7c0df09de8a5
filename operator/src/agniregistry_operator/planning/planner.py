"""`plan`: from what is seen and what is wanted to a sentence, the next safe actions, the status.

The parts below are asked in turn; the first that has something to do decides. So there is one
operation at a time, and after a restart of the operator the same picture gives the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agniregistry_operator.manifests.base import selector
from agniregistry_operator.model.actions import Action, MoveStep, key_of
from agniregistry_operator.model.desired import Desired
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.model.status import QUORUM_HEALTHY, Status
from agniregistry_operator.planning import conditions as say
from agniregistry_operator.planning.gates import why_unready
from agniregistry_operator.planning.moving import balance, scale_in
from agniregistry_operator.planning.repair import (
    bootstrap,
    give_up,
    is_doomed,
    restart_broken,
    take_back,
    wait_for_nodes,
    wait_for_room,
)
from agniregistry_operator.planning.rolling import update, update_hash
from agniregistry_operator.planning.trust import TrustPlan, plan_trust
from agniregistry_operator.planning.upkeep import missing_stateful_sets, taken_names, upkeep
from agniregistry_operator.planning.view import Outcome, View

IDENTITY_DEADLINE_S = 20.0
"""How long certificates, or what they need, may be missing before somebody is told: what is applied
together comes in any order."""

QUORUM_DEADLINE_S = 60.0
"""How long a quorum may be missing before it counts as a standstill: elections end far earlier."""


@dataclass(frozen=True)
class Plan:
    """What to do now, and what to say."""

    sentence: str
    actions: tuple[Action, ...]
    status: Status
    keeps_status: bool = False
    """Whether nothing is to be written: too little is known yet."""


def plan(observed: Observed, desired: Desired, now: float) -> Plan:
    """Answer the next safe actions. Pure: the same picture always gives the same plan."""
    view = View(observed, desired, now)
    if desired.deleting:
        return Plan("it is being deleted; what it owns goes with it", (), observed.status)
    trust = plan_trust(view)
    if _has_just_come(view, trust):
        words = "waiting for a certificate of the operator's own"
        return Plan(words, trust.requests, observed.status, keeps_status=True)
    if desired.paused:
        outcome = Outcome("paused: nothing is changed")
        return Plan(outcome.sentence, trust.requests, _status(view, outcome, trust))
    found = taken_names(view, trust)
    if found:
        words = f"{', '.join(found)} is there and belongs to somebody else; rename one of the two"
        outcome = Outcome(words, stalled=("NameTaken", words))
    else:
        outcome = _decide(view, trust)
        there = view.is_founded and not desired.hibernate
        missing = missing_stateful_sets(view, view.wanted) if there else []
        actions = (*upkeep(view, trust), *missing, *outcome.actions)
        outcome = replace(outcome, actions=_distinct(actions))
    outcome = _with_quorum(view, _with_refusals(view, outcome))
    status = _status(view, outcome, trust)
    return Plan(outcome.sentence, outcome.actions, status)


def _has_just_come(view: View, trust: TrustPlan) -> bool:
    """Whether the operator was started a moment ago, and can't ask a founded registry yet.

    What another operator has said of it before is better than what can be said now.
    """
    is_new = view.observed.attended_s < IDENTITY_DEADLINE_S
    can_ask = view.observed.has_identity or not trust.requests
    return is_new and view.is_founded and not can_ask


def _distinct(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Each action once: upkeep and an operation may want the same."""
    return tuple({key_of(action): action for action in actions}.values())


def _decide(view: View, trust: TrustPlan) -> Outcome:
    """The one operation of now."""
    if trust.blocked and not view.is_founded:
        reason, words = trust.blocked
        operation = view.operation("Bootstrap", "Identity")
        is_late = view.now - operation.since >= IDENTITY_DEADLINE_S
        stalled = (reason, words) if is_late else None
        return Outcome(words, operation, stalled=stalled, moves=False)
    if view.desired.hibernate:
        return _hibernate(view)
    outcome = (
        restart_broken(view)
        or bootstrap(view)
        or give_up(view)
        or take_back(view)
        or wait_for_nodes(view)
        or _in_order(view)
        or wait_for_room(view)
        or Outcome("")
    )
    return _with_moves(view, trust, outcome)


def _in_order(view: View) -> Outcome | None:
    """Update and scale-in: whichever has begun goes on, else whoever leaves goes first.

    No update goes on while a node is silent; one that is to leave is in the way until it has left.
    """
    before = view.observed.status.operation
    leaving = (view.member(index) for index in view.leaving)
    is_in_the_way = any(member is not None and not member.reachable for member in leaving)
    if before is not None and before.kind == "Update" and not is_in_the_way:
        return update(view) or scale_in(view)
    return scale_in(view) or update(view)


def _hibernate(view: View) -> Outcome:
    left = len(view.observed.pods)
    if not left:
        return Outcome("hibernating: all volumes are kept", moves=False)
    operation = view.operation("Hibernate", "Stop", progress=f"{left} pods left")
    return Outcome(f"going to sleep: {left} pods to stop", operation, moves=False)


def _with_moves(view: View, trust: TrustPlan, outcome: Outcome) -> Outcome:
    """Adds what may go on beside an operation: balancing, and the rotation of roots."""
    moves = balance(view) if outcome.moves else None
    if moves is not None:
        outcome = replace(
            outcome,
            sentence=outcome.sentence or moves.sentence,
            operation=outcome.operation or moves.operation,
            actions=(*outcome.actions, *moves.actions),
            notes=moves.notes,
        )
    if trust.sentence:
        operation = outcome.operation or trust.operation
        sentence = outcome.sentence or trust.sentence
        stalled = outcome.stalled or trust.stalled
        outcome = replace(outcome, operation=operation, sentence=sentence, stalled=stalled)
    return outcome if outcome.sentence else replace(outcome, sentence=_settled(view, outcome))


def _settled(view: View, outcome: Outcome) -> str:
    if view.registry is None and not view.observed.has_identity:
        return say.without_identity(view)
    if view.registry is None:
        return f"nobody answers: {view.observed.registry_fault or 'no node is reached'}"
    if outcome.notes:
        return outcome.notes[0]
    count = len(view.wanted)
    return "1 node is ready" if count == 1 else f"all {count} nodes are ready and balanced"


def _with_refusals(view: View, outcome: Outcome) -> Outcome:
    """Says what was refused the last time, if it is wanted still.

    A step of the planner that came too late is none of these: the next one is made anew.
    """
    wanted = {key_of(action) for action in outcome.actions if not isinstance(action, MoveStep)}
    for key, words in view.observed.refusals.items():
        if key in wanted and outcome.stalled is None:
            return replace(outcome, stalled=("Refused", f"{key} was refused: {words}"))
    return outcome


def _with_quorum(view: View, outcome: Outcome) -> Outcome:
    """A quorum that doesn't come back by itself is a standstill, whatever else is said."""
    lost, before = say.quorum(view), view.observed.status.condition(QUORUM_HEALTHY)
    if outcome.stalled or lost.holds is not False or before is None or before.holds is not False:
        return outcome
    kind = outcome.operation.kind if outcome.operation else ""
    # Whoever wakes, or is a single node that restarts, has none until it is there.
    is_meant = kind == "Wake" or (kind in ("Update", "Replace") and len(view.wanted) == 1)
    deadline = view.desired.ready_deadline_s if is_meant else QUORUM_DEADLINE_S
    if view.now - before.since < deadline:
        return outcome
    return replace(outcome, stalled=("NoQuorum", lost.message))


def _skipped(view: View) -> tuple[int, ...]:
    """The nodes that have left out of turn: until one is no member any more, it may stay."""
    if view.registry is None or view.desired.paused:
        return view.observed.status.skipped
    return tuple(sorted(index for index in view.skipped if view.member(index) is None))


def _status(view: View, outcome: Outcome, trust: TrustPlan) -> Status:
    before = view.observed.status
    cluster_id = before.cluster_id
    if not cluster_id and view.registry is not None and not view.desired.paused:
        joined = all(view.member(index) is not None for index in view.founders)
        cluster_id = view.registry.cluster_id if joined else ""
    replaced = outcome.replaced or before.replaced
    doomed = outcome.doomed or (before.doomed if is_doomed(view) else "")
    if not view.desired.replace:
        replaced = ""
    shown = sorted({*view.wanted, *view.leaving})
    labels = ",".join(f"{key}={value}" for key, value in selector(view.desired).items())
    waits = view.desired.supervised and not view.desired.hibernate
    kept = view.desired.paused
    return Status(
        observed_generation=before.observed_generation if kept else view.desired.generation,
        message=outcome.sentence,
        conditions=say.conditions(view, outcome, trust),
        nodes=tuple(say.node_status(view, index) for index in shown),
        ready_nodes=sum(why_unready(view, index) is None for index in view.wanted),
        current_nodes=len(view.observed.stateful_sets),
        leader_balance=say.leader_balance(view),
        selector=labels,
        operation=before.operation if kept else outcome.operation,
        update_hash=update_hash(view) if waits else "",
        cluster_id=cluster_id,
        skipped=_skipped(view),
        adopted=before.adopted if kept else view.desired.adopted,
        trust=before.trust if kept else trust.trust,
        version=say.version(view),
        replaced=replaced,
        doomed=doomed,
    )
