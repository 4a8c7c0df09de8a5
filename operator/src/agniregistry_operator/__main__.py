"""`python -m agniregistry_operator`."""

from agniregistry_operator.main import main

raise SystemExit(main())
