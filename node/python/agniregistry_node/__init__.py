"""A data node of AgniRegistry: the compiled engine and the process around it.

`agni-node run` is the process; `Node` is the same registry inside a Python program, for tests of
code that uses it. Replication and requests never pass through Python: it starts the engine,
watches signals and stops it.
"""

from agniregistry_node.config import NodeConfig
from agniregistry_node.embedded import Node
from agniregistry_node.errors import AgniNodeError, ConfigError

__all__ = ["AgniNodeError", "ConfigError", "Node", "NodeConfig"]
