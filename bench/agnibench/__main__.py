"""`python -m agnibench`: measures everything, writes the result file and `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import compare, machine, million, report, syscalls
from .drive import Driver, h2load_rate
from .servers import Server

PARTS = ("writes", "reads", "renewals", "echo", "syscalls", "million")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="agnibench", description=__doc__)
    parser.add_argument("--loadgen", type=Path, required=True, help="the load generator's binary")
    parser.add_argument("--echo", type=Path, required=True, help="the bare echo's binary")
    parser.add_argument("--etcd", type=Path, required=True, help="etcd's binary")
    parser.add_argument("--rounds", type=int, default=5, help="how often both sides alternate")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--tries", type=int, default=3, help="of a cell that was disturbed")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the memory test")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--json", type=Path, required=True, help="the result file to write")
    parser.add_argument("--markdown", type=Path, help="the document to write")
    return parser.parse_args()


def check_generator(bench: compare.Bench, seconds: float) -> dict[str, float | None]:
    """The same read from etcd by our load generator and by h2load."""
    server = bench.etcd()
    server.start()
    try:
        cell = next(cell for cell in compare.read_cells(server.folder) if cell.shape == "1×128")
        own = bench.driver.cell(server, cell.theirs).rate
        other = h2load_rate(server.address, cell.theirs, max(2.0, seconds))
        return {"loadgen_rps": own, "h2load_rps": other}
    finally:
        server.stop()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Runs the parts that were asked for."""
    driver = Driver(options.loadgen, seconds=options.seconds, warmup=1.0, tries=options.tries)
    bench = compare.Bench(folder, driver, options.etcd, options.echo)
    out: dict[str, object] = {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": machine.describe(folder),
        "etcd": machine.version_of(options.etcd),
        "fdatasync": machine.fdatasync_us(folder),
    }

    def renewals() -> list[dict[str, object]]:
        cells: list[compare.Cell] = []

        def prepare(ours: Server, theirs: Server) -> None:
            cells.extend(compare.renew_cells(bench, ours, theirs))

        return bench.alternate(cells, options.rounds, prepare)

    def writes() -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for cell in compare.write_cells(bench.fresh("bodies")):
            rows += bench.alternate([cell], options.rounds, None)
        return rows

    def reads() -> list[dict[str, object]]:
        cells = compare.read_cells(bench.fresh("bodies"))
        out["generator"] = check_generator(bench, options.seconds)
        return bench.alternate(
            cells, options.rounds, lambda ours, theirs: compare.fill(bench, ours, theirs)
        )

    def memory() -> dict[str, object]:
        sides: dict[str, Callable[[compare.Bench, int], dict[str, float]]]
        sides = {"ours": million.ours, "theirs": million.theirs}
        return {name: side(bench, options.records) for name, side in sides.items()}

    parts: dict[str, Callable[[], object]] = {
        "writes": writes,
        "reads": reads,
        "renewals": renewals,
        "echo": lambda: bench.echo(options.rounds),
        "syscalls": lambda: syscalls.both(bench),
        "million": memory,
    }
    for name in options.parts:
        print(f"-- {name}", flush=True)
        try:
            out[name] = parts[name]()
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            out[name] = {"failed": str(error).split("\n")[0]}
    return out


def main() -> int:
    """Runs and writes; 1 where a part failed."""
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.work, prefix="agnibench-") as folder:
        results = measure(options, Path(folder))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = report.markdown(results)
    print(text)
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(text)
    failed = [part for part in results.values() if isinstance(part, dict) and "failed" in part]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
