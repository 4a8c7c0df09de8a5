"""How a plan stands, in one sentence for people."""

from __future__ import annotations

from agniregistry.placement.planner import Plan

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def summary(plan: Plan) -> str:
    """Answer one sentence: what moves, what is to go, what is wrong.

    >>> summary(Plan((), (), 3, 9, 9 * 2**20, 0))
    'moving 3 of 12 replicas, 9 to go (9.0 MiB)'
    """
    parts = []
    total = plan.moves_in_flight + plan.remaining_moves
    if total:
        size = f" ({_size(plan.remaining_bytes)})" if plan.remaining_bytes else ""
        noun = "replica" if total == 1 else "replicas"
        parts.append(
            f"moving {plan.moves_in_flight} of {total} {noun}, {plan.remaining_moves} to go{size}"
        )
    transfers = plan.transfers + plan.remaining_transfers
    if transfers:
        noun = "leadership" if transfers == 1 else "leaderships"
        parts.append(f"{plan.transfers} of {transfers} {noun} changing hands")
    if not parts:
        parts.append("balanced" if not plan.problems else "nothing to move")
    if plan.problems:
        count = len(plan.problems)
        noun = "problem" if count == 1 else "problems"
        parts.append(f"{count} {noun}: {plan.problems[0].message}")
    return "; ".join(parts)


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
