"""`agni-operator` with registries that are played: `operator_process.py SOCKET OPTIONS…`.

All of it is the product's, but for how registries are reached.
"""

from __future__ import annotations

import sys
from functools import partial

from played_link import PlayedLink

from agniregistry_operator.main import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[2:], link=partial(PlayedLink, stage=sys.argv[1])))
