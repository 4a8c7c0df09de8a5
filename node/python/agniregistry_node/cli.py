"""The command line `agni-node`.

agni-node run --config node.yaml       serves until SIGTERM or Ctrl-C
agni-node config check|show|docs       all faults · what applies, and from where · the manual
agni-node version                      version and build profile
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from agniregistry_node.config import PRESETS, fields
from agniregistry_node.docs import settings_manual
from agniregistry_node.errors import EXIT_OK, AgniNodeError, ConfigError
from agniregistry_node.layers import Layered, load
from agniregistry_node.process import run


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Every setting as a flag, made from the fields."""
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings (AGNI_CONFIG)")
    parser.add_argument(
        "--preset", metavar="NAME", help=f"{' or '.join(PRESETS)} (AGNI_PRESET): a base to start at"
    )
    group = parser.add_argument_group("settings", "flag > environment > file > preset > default")
    for spec in fields():
        unit = f" [{spec.about.unit}]" if spec.about.unit else ""
        text = f"{spec.about.text}{unit} default: {spec.default!r}".replace("%", "%%")
        group.add_argument(spec.flag, dest=spec.name, metavar="VALUE", help=text)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="agni-node", description="A data node of AgniRegistry.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_settings(commands.add_parser("run", help="serve until SIGTERM or Ctrl-C"))
    config = commands.add_parser("config", help="look at settings without starting anything")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_settings(actions.add_parser("check", help="list all faults of the settings"))
    add_settings(actions.add_parser("show", help="print what applies, and where it comes from"))
    actions.add_parser("docs", help="print the manual of all settings (Markdown)")
    commands.add_parser("version", help="print version and build profile")
    return parser


def load_from(arguments: argparse.Namespace, env: Mapping[str, str]) -> Layered:
    """The layers that this command line and environment name."""
    given = {spec.name: getattr(arguments, spec.name) for spec in fields()}
    flags = {name: text for name, text in given.items() if text is not None}
    return load(path=arguments.config, preset=arguments.preset, env=env, flags=flags)


def show(layered: Layered) -> None:
    """Prints the settings as YAML that `--config` would take, with each one's source."""
    import yaml

    for spec in fields():
        value = getattr(layered.config, spec.name)
        text = yaml.safe_dump({spec.name: value}, allow_unicode=True, width=1_000).strip()
        print(f"{text:<44}  # {layered.sources[spec.name]}")


def dispatch(arguments: argparse.Namespace) -> int:
    """Carries out one command."""
    if arguments.command == "version":
        from agniregistry_node._bridge import build_profile, version

        print(f"agni-node {version} ({build_profile} build)")
        return EXIT_OK
    if arguments.command == "config" and arguments.action == "docs":
        print(settings_manual(), end="")
        return EXIT_OK
    layered = load_from(arguments, os.environ)
    if arguments.command == "run":
        return run(layered)
    if arguments.action == "show":
        show(layered)
    else:
        print("the settings are fine")
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; answers the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return dispatch(arguments)
    except ConfigError as error:
        for fault in error.faults:
            print(f"agni-node: {fault}", file=sys.stderr)
        return error.exit_code
    except AgniNodeError as error:
        print(f"agni-node: {error} ({error.code})", file=sys.stderr)
        return error.exit_code
