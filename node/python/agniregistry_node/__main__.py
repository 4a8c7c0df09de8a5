"""`python -m agniregistry_node`: the same as `agni-node`."""

from agniregistry_node.cli import main

raise SystemExit(main())
