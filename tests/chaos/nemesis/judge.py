"""All checkers over one run: what a scenario has to pass, whatever its faults were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lease_check
import linearizable
import version_order
import watch_check
from event_log import Log
from history import Operation, Outcome, Violation, read_history
from lease_check import Takeover
from watch_check import Positions, Stream

from nemesis.watches import read_watch

SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """What is left of a run."""

    operations: Sequence[Operation]
    log: Log | None
    """Every change, unless the watcher of everything was told of a gap."""
    chains: tuple[tuple[Stream, ...], ...] = ()
    """The watchers: each with its streams, one resuming after the other."""
    takeovers: tuple[Takeover, ...] = ()
    """When leaders changed, or nodes were started again."""
    server_faults_only: bool = True
    """No client was cut off or paused."""
    ends: Positions = field(default_factory=dict)
    """The registry's last revisions, if every watcher was to come that far."""

    @property
    def writes(self) -> int:
        """Acknowledged writes."""
        return sum(each.is_write and each.outcome is Outcome.OK for each in self.operations)


def read_run(
    folder: Path,
    takeovers: Sequence[Takeover] = (),
    server_faults_only: bool = True,
    ends: Positions | None = None,
) -> Run:
    """A run from the files that the load has written: history.jsonl, log.watch and others.

    `ends` are read from ends.json unless they are given.
    """
    if ends is None and (folder / "ends.json").exists():
        read = json.loads((folder / "ends.json").read_text())
        ends = {int(partition): revision for partition, revision in read.items()}
    watches = {path.stem: read_watch(path) for path in sorted(folder.glob("*.watch"))}
    return Run(
        operations=read_history(folder / "history.jsonl"),
        log=watches["log"].log() if "log" in watches else None,
        chains=tuple(tuple(each.streams) for each in watches.values()),
        takeovers=tuple(takeovers),
        server_faults_only=server_faults_only,
        ends=ends or {},
    )


def judge(run: Run) -> list[Violation]:
    """Everything that any checker has against a run."""
    leased = {each.key for each in run.operations if each.request.ttl_ms}
    plain = [each for each in run.operations if each.key not in leased]
    verdicts = linearizable.check(plain, seconds_max=SECONDS_MAX)
    found = linearizable.violations(verdicts)
    for verdict in verdicts:
        if verdict.result is linearizable.Result.UNKNOWN:
            # Not judged is not passed: the load has to be of a shape that can be.
            found.append(Violation("I2", f"not judged within {SECONDS_MAX} s: {verdict}"))
    found += version_order.check(run.operations, run.log)
    found += lease_check.check(
        run.operations, run.log, run.takeovers, server_faults_only=run.server_faults_only
    )
    if run.log is not None:
        registered = {
            (each.key, each.request.value) for each in run.operations if each.f == "register"
        }
        found += run.log.check_resurrections(registered)
        for chain in run.chains:
            found += watch_check.check_chain(chain, run.log)
            if run.ends:
                found += watch_check.check_ends(chain[-1:], run.log, run.ends)
    return found
