"""A real Kubernetes for tests: built from published modules, run beside the tests, gone after them.

`Cluster` is what tests use; `python -m agni_e2e` is for people and for make. docs/e2e.md tells the
story; e2e/cluster/ holds what is compiled.
"""

from agni_e2e.cluster import Cluster
from agni_e2e.errors import PlatformError

__all__ = ["Cluster", "PlatformError"]
