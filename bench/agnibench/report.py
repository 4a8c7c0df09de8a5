"""Turns a result file into `docs/benchmarks.md`."""

from __future__ import annotations

from typing import Any

HEAD = """\
# Benchmarks

Written by `make bench`; don't edit. Each figure comes from the machine named below, both servers
with their data on the same disk, both with every write made durable (fdatasync) before it is
answered.
"""

METHOD = """\
## How it is measured

- The server runs on one core, the load generator on another (`taskset`). Both sides are driven by
  the same generator (`node/crates/agni-bench`): one thread, raw HTTP/2, requests encoded before
  the clock starts, a closed loop of *connections × streams* requests in flight.
- Both sides alternate, and who goes first changes each round. A ratio is taken within a round;
  the table shows the smallest, the median and the largest of them. Rates and percentiles are
  medians over the rounds.
- While a cell runs, the CPU that other processes use is recorded; a disturbed cell is measured
  again, and the least disturbed try counts. "others" is the worst that was left, in cores.
- A write carries the roadmap's gateway: the same spec bytes as our record and as etcd's value,
  10,000 keys in turn, and a number that makes each write differ from the stored one, because a
  repeated registration is answered without writing.
- `get` asks for the default consistency, `range` leaves `serializable` unset: both linearizable.
- Renewals of one lease go over long-lived streams on both sides, one message and its answer in
  turn. etcd has no message for many leases; the packed row counts leases and is set against
  etcd's renewals at 8×16.
- Restart is the time from starting the process until the first answered request, with warm file
  caches; ours includes starting Python.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def rate(value: float) -> str:
    """A rate for people."""
    return f"{value:,.0f}"


def latency(side: dict[str, Any]) -> str:
    """p50 / p99 in milliseconds."""
    return f"{side['p50_us'] / 1000:.2f} / {side['p99_us'] / 1000:.2f}"


def comparison(rows: list[dict[str, Any]]) -> str:
    """The cells in which both sides alternated."""
    out = []
    for row in rows:
        ratio, ours, theirs = row["ratio"], row["ours"], row["theirs"]
        others = max(ours["other_cpu_max"], theirs["other_cpu_max"])
        out.append(
            [
                row["title"],
                row["shape"],
                rate(ours["rate"]["median"]),
                rate(theirs["rate"]["median"]),
                f"{ratio['min']} / **{ratio['median']}** / {ratio['max']}",
                row["asked"],
                latency(ours),
                latency(theirs),
                f"{others:.2f}",
            ]
        )
    head = ["what", "c×s", "ours /s", "etcd /s", "ratio min / median / max", "asked"]
    head += ["ours p50 / p99 ms", "etcd p50 / p99 ms", "others"]
    return table(head, out)


def echo_section(results: dict[str, Any]) -> str:
    """The bare echo, and how much of it reads reach."""
    if not isinstance(results.get("echo"), list):
        return ""
    reads = results.get("reads")
    reached = {
        row["shape"]: row["ours"]["rate"]["median"]
        for row in (reads if isinstance(reads, list) else [])
    }
    rows = []
    for row in results["echo"]:
        bare = row["ours"]["rate"]["median"]
        share = f"{reached[row['shape']] / bare:.0%}" if row["shape"] in reached else "–"
        rows.append([row["shape"], rate(bare), latency(row["ours"]), share])
    head = ["c×s", "echo /s", "p50 / p99 ms", "our get reaches (asked: 80 % at 1×128)"]
    return "## Bare echo\n\nA tonic server that only echoes, on the same core.\n\n" + table(
        head, rows
    )


def syscall_section(results: dict[str, Any]) -> str:
    """System calls of a durable write."""
    part = results.get("syscalls")
    if not isinstance(part, dict) or "agniregistry" not in part:
        return ""
    rows = [
        [
            name,
            str(part[name]["per_request"]),
            ", ".join(f"{call} {share}" for call, share in part[name]["calls"].items()),
        ]
        for name in ("agniregistry", "etcd")
    ]
    text = "## System calls of a durable write at 1×128\n\nBy `strace -c -f`; asked: at most 0.4.\n"
    return text + "\n" + table(["server", "calls a write", "most frequent"], rows)


def million_section(results: dict[str, Any]) -> str:
    """Memory and restart."""
    part = results.get("million")
    if not isinstance(part, dict) or "ours" not in part:
        return ""
    ours, theirs = part["ours"], part["theirs"]

    def row(what: str, unit: str, our_field: str, their_field: str, asked: str) -> list[str]:
        cells = [(ours, our_field), (theirs, their_field)]
        texts = [f"{side[field]} {unit}" if field else "–" for side, field in cells]
        return [what, *texts, asked]

    rows = [
        row("resident, empty", "MiB", "resident_empty_mib", "resident_empty_mib", "–"),
        row("resident, loaded", "MiB", "resident_mib", "resident_mib", "600 MB"),
        row("loading it", "s", "load_seconds", "load_seconds", "–"),
        row("on disk, log / all", "MiB", "disk_wal_mib", "disk_mib", "–"),
        row("restart, log alone", "s", "restart_wal_seconds", "", "6 s"),
        row("resident after that", "MiB", "resident_after_wal_mib", "", "600 MB"),
        row("taking a snapshot", "s", "snapshot_seconds", "", "–"),
        row("restart, snapshot", "s", "restart_snapshot_seconds", "restart_seconds", "3 s"),
        row(
            "resident after that",
            "MiB",
            "resident_after_snapshot_mib",
            "resident_after_restart_mib",
            "600 MB",
        ),
    ]
    head = f"## {ours['records']:,} gateways of the roadmap's size\n\n"
    return head + table(["what", "ours", "etcd", "asked"], rows)


def markdown(results: dict[str, Any]) -> str:
    """The whole document."""
    about = results["machine"]
    sync = results["fdatasync"]
    generator = results.get("generator") or {}
    parts = [
        HEAD,
        (
            f"Measured {results['measured']} on {about['cpu']}, {about['cores']} cores,"
            f" {about['memory_mib']:,} MiB, Linux {about['kernel']}, {about['file_system']};"
            f" {results['rounds']} rounds of {results['seconds']:g} s each.\n"
        ),
        (
            f"Bare fdatasync of 512 appended bytes: p50 {sync['p50_us']} µs,"
            f" p99 {sync['p99_us']} µs.\n"
        ),
    ]
    rows: list[dict[str, Any]] = []
    for name in ("writes", "reads", "renewals"):
        part = results.get(name)
        if isinstance(part, list):
            rows += part
        elif isinstance(part, dict):
            parts.append(f"**{name} failed**: {part['failed']}\n")
    if rows:
        parts.append(f"## Against etcd {results['etcd']}\n\n" + comparison(rows))
    parts += [echo_section(results), syscall_section(results), million_section(results)]
    parts.append(METHOD)
    if generator.get("h2load_rps"):
        parts.append(
            f"- The generator against h2load on the same read from etcd at 1×128:"
            f" {rate(generator['loadgen_rps'])} and {rate(generator['h2load_rps'])} per second.\n"
        )
    return "\n".join(part for part in parts if part)
