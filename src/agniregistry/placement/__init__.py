"""Pure planners: where a key belongs, and where a partition should live."""

from agniregistry.placement.ring import RingNode, key_hash, partition_of, placement

__all__ = ["RingNode", "key_hash", "partition_of", "placement"]
