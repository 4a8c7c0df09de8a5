"""Sizes as Kubernetes writes them, compared as numbers."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?"
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {unit: 1 << (10 * power) for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi"], 1)}


def bytes_of(text: str) -> int:
    """The bytes of a quantity such as 10Gi; 0 of an empty one.

    Raises:
        ValueError: It is none.
    """
    if not text:
        return 0
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"must be a quantity such as 10Gi, not {text!r}")
    number, binary, decimal, exponent = found.groups()
    if binary:
        return math.ceil(Decimal(number) * _BINARY.get(binary, 1 << 60))
    power = int(exponent) if exponent else _DECIMAL.get(decimal or "", 0)
    return math.ceil(Decimal(number).scaleb(power))
