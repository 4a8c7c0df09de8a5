"""Where the faults of one run live: what was broken, when, and how all of it is healed.

A run's name holds the pid and the start of its process, so that a later run can tell what dead
ones left behind, and never touches what belongs to a living one.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from nemesis.watchdog import Action, Guard, Watchdog, started_at

COMMAND_S_MAX = 20.0
GUARD_S = 120.0
"""How long a fault may last unless it says so: longer than any that a test makes."""

_runs = itertools.count(1)
_NAME = re.compile(r"agni-(\d+)-(\d+)-\d+")


class NemesisError(Exception):
    """A fault could not be made or healed."""


class UnavailableError(NemesisError):
    """This machine can't make such a fault; the message says what is missing."""


def run(argv: Sequence[str], text: str = "") -> str:
    """Runs a command to its end; answers what it printed.

    Raises:
        NemesisError: if it fails, with what it said.
    """
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
    )
    if done.returncode:
        raise NemesisError(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout}")
    return done.stdout


def need_root() -> None:
    """Raises: UnavailableError: unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise UnavailableError("needs root: run the chaos tests as root")


def need_tool(name: str, package: str) -> str:
    """The path of a program; `package` is where Debian has it.

    Raises:
        UnavailableError: if it isn't installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise UnavailableError(f"needs {name}: install the package {package}")
    return found


def belongs_to_the_dead(name: str) -> bool:
    """Whether a name was given by a run whose process is gone."""
    match = _NAME.search(name)
    return match is not None and started_at(int(match[1])) != match[2]


class Fault:
    """One fault that is under way. As a context manager it heals at the end."""

    def __init__(self, name: str, heal: Callable[[], None], guard: Guard | None) -> None:
        self.name = name
        self.began_ns = time.monotonic_ns()
        self.healed_ns: int | None = None
        self._heal = heal
        self._guard = guard

    def heal(self) -> None:
        """Ends it; a second call does nothing."""
        if self.healed_ns is None:
            self._heal()
            self.healed_ns = time.monotonic_ns()
            if self._guard is not None:
                self._guard.release()

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()


class Lab:
    """One run: its name, its folder, its faults and what must be cleared away at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.name = f"agni-{os.getpid()}-{started_at(os.getpid())}-{next(_runs)}"
        self.watchdog = Watchdog()
        self.faults: list[Fault] = []
        self._clear: list[Callable[[], None]] = []

    def guard(self, actions: Sequence[Action], seconds: float = GUARD_S) -> Guard:
        """Has the watchdog undo something; to be called before it is done."""
        return self.watchdog.guard(actions, seconds)

    def fault(
        self,
        name: str,
        make: Callable[[], None],
        heal: Callable[[], None],
        undo: Sequence[Action] = (),
        seconds: float = GUARD_S,
    ) -> Fault:
        """Makes a fault that is healed by `heal`, or by the watchdog's `undo` after `seconds`."""
        guard = self.guard(undo, seconds) if undo else None
        fault = Fault(name, heal, guard)
        # It counts as begun before it is made, so that one that is half made is healed, too.
        self.faults.append(fault)
        make()
        return fault

    def at_end(self, clear: Callable[[], None]) -> None:
        """Has something cleared away when the run ends; the newest first."""
        self._clear.append(clear)

    def heal(self) -> None:
        """Heals all faults, the newest first; what can't be healed is raised at the end."""
        self._each([fault.heal for fault in reversed(self.faults)])

    def close(self) -> None:
        """Heals everything and clears away everything."""
        clear = list(reversed(self._clear))
        self._clear.clear()
        self._each([self.heal, *clear, self.watchdog.close])

    def spans(self) -> list[tuple[str, int, int]]:
        """The faults with their beginnings and ends, for the report."""
        now = time.monotonic_ns()
        return [(each.name, each.began_ns, each.healed_ns or now) for each in self.faults]

    @staticmethod
    def _each(steps: Sequence[Callable[[], None]]) -> None:
        wrong: list[Exception] = []
        for step in steps:
            try:
                step()
            except (NemesisError, OSError, subprocess.SubprocessError) as error:
                wrong.append(error)
        if wrong:
            raise NemesisError("; ".join(map(str, wrong)))

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
