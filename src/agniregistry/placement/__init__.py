"""Pure planners: where a partition should live, and the steps that lead there.

```
observed Cluster ──► goal_of ──► leaders_of ──► plan ──► steps for whoever carries them out
```
Where a key belongs is in `agniregistry.placement.ring`, which alone needs xxhash.
"""

from agniregistry.placement.goal import Goal, goal_of
from agniregistry.placement.leaders import Leaders, leaders_of
from agniregistry.placement.observe import Cluster, Node, NodeState, Partition, leader_of
from agniregistry.placement.planner import Limits, Plan, plan
from agniregistry.placement.problems import Problem
from agniregistry.placement.progress import summary
from agniregistry.placement.steps import SetWanted, Step, TransferLeader

__all__ = [
    "Cluster",
    "Goal",
    "Leaders",
    "Limits",
    "Node",
    "NodeState",
    "Partition",
    "Plan",
    "Problem",
    "SetWanted",
    "Step",
    "TransferLeader",
    "goal_of",
    "leader_of",
    "leaders_of",
    "plan",
    "summary",
]
