"""`python -m agniregistry.cli` is agnictl, where no script was installed."""

from agniregistry.cli.app import main

main()
