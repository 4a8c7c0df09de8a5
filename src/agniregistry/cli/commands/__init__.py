"""One module a group of commands; `agniregistry.cli.app` says which command lives where."""
