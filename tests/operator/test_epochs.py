"""An operator that was deposed and doesn't know it: a real node refuses what it still asks for."""

from __future__ import annotations

import pytest

from agniregistry.client import AsyncClient, RetryPolicy
from agniregistry.errors import AgniError
from agniregistry.placement import TransferLeader
from agniregistry_node import Node
from agniregistry_operator.link import Link
from agniregistry_operator.model import actions as a


class PlainLink(Link):
    """To a node of this machine, without certificates."""

    def _client(self, address: str) -> AsyncClient:
        if address not in self._clients:
            self._clients[address] = AsyncClient(address, retry=RetryPolicy(max_attempts=1))
        return self._clients[address]


async def test_a_deposed_operators_calls_are_refused() -> None:
    with Node() as node:
        here = (node.address,)
        old, new = PlainLink(1_000), PlainLink(2_000)
        try:
            seen = await old.look(here)
            assert seen is not None
            (member,) = seen.members
            drain = a.DrainMember(member.node_id, member.name, "")
            give_back = a.ReturnMember(member.node_id, member.name, "")
            transfer = a.MoveStep(TransferLeader(0, member.node_id, ""))
            await old.change(drain, here)
            await new.change(give_back, here)
            for action in (drain, give_back, transfer):
                with pytest.raises(AgniError, match="somebody else has taken over") as refused:
                    await old.change(action, here)
                assert refused.value.reason == "EPOCH_OUTDATED"
                assert not refused.value.retryable
            await new.change(transfer, here)
            after = await new.look(here)
            assert after is not None
            assert after.members[0].state is seen.members[0].state, "nothing was drained"
        finally:
            await old.aclose()
            await new.aclose()
