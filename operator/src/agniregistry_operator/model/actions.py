"""What a plan may ask for. Each is idempotent: done twice, it does no more than once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agniregistry.placement import SetWanted, TransferLeader


@dataclass(frozen=True)
class ApplyChild:
    """Applies an object as it should be."""

    kind: str
    name: str
    manifest: Mapping[str, Any] = field(repr=False)
    why: str = ""
    is_new: bool = False
    """Whether no such object was seen: one that is there all the same is somebody else's."""


@dataclass(frozen=True)
class DeleteChild:
    """Deletes an object that the operator applied and no longer wants."""

    kind: str
    name: str
    why: str = ""


@dataclass(frozen=True)
class DeletePod:
    """Deletes a node's pod, so that its StatefulSet makes a new one."""

    index: int
    name: str
    uid: str
    why: str
    force: bool = False
    """Without waiting for its machine, which is gone."""


@dataclass(frozen=True)
class DeleteStatefulSet:
    """Deletes a node's StatefulSet."""

    index: int
    name: str
    why: str
    orphan: bool = False
    """Leaves the pod alone: the StatefulSet is made again around it."""


@dataclass(frozen=True)
class DeleteClaim:
    """Deletes a node's volume, with all that is on it."""

    index: int
    name: str
    uid: str
    why: str


@dataclass(frozen=True)
class KeepClaim:
    """Applies a claim's size and whether it goes with the registry."""

    index: int
    name: str
    manifest: Mapping[str, Any] = field(repr=False)
    why: str = ""


@dataclass(frozen=True)
class DrainMember:
    """Has a member hand over what it leads."""

    node_id: int
    name: str
    why: str


@dataclass(frozen=True)
class ReturnMember:
    """Takes that back."""

    node_id: int
    name: str
    why: str


@dataclass(frozen=True)
class RemoveMember:
    """Lets a member go for ever."""

    node_id: int
    name: str
    why: str


@dataclass(frozen=True)
class MoveStep:
    """One step of the placement planner."""

    step: SetWanted | TransferLeader

    @property
    def why(self) -> str:
        """The planner's reason."""
        return self.step.why


@dataclass(frozen=True)
class RequestIdentity:
    """Has the operator's own certificate issued; answers with the issuer's root."""

    issuer: Mapping[str, str]
    generation: int
    why: str


Action = (
    ApplyChild
    | DeleteChild
    | DeletePod
    | DeleteStatefulSet
    | DeleteClaim
    | KeepClaim
    | DrainMember
    | ReturnMember
    | RemoveMember
    | MoveStep
    | RequestIdentity
)


def key_of(action: Action) -> str:
    """What an action is about, in a word: refusals and Events are told apart by it."""
    kind = type(action).__name__
    match action:
        case ApplyChild() | DeleteChild():
            return f"{kind} {action.kind}/{action.name}"
        case MoveStep():
            return f"{kind} {type(action.step).__name__} {action.step.partition}"
        case RequestIdentity():
            return f"{kind} {action.generation}"
        case _:
            return f"{kind} {action.name}"
