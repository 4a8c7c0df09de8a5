"""XXH3-64 of a key, in plain Python: which partition it belongs to is worth no dependency.

Exact for the lengths that keys have (5 to 509 bytes), so the branches of the algorithm for fewer
than 4 and for more than 1,024 bytes are left out. A usual key costs a few microseconds, far less
than the hop between nodes that knowing its partition saves (docs/decisions/ has the figures).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

BYTES_MIN, BYTES_MAX = 4, 1024
"""The lengths that can be hashed, in bytes."""

_MASK: Final = (1 << 64) - 1
_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_P32: Final = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64: Final = (
    *(0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9),
    *(0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5),
)
_word = Struct("<I").unpack_from
_pair = Struct("<QQ").unpack_from
_lanes = Struct("<8Q").unpack_from
_LONG_SECRETS: Final = tuple(_lanes(_SECRET, 8 * stripe) for stripe in range(16))
_LAST_SECRET: Final = _lanes(_SECRET, 121)
_MERGE_SECRET: Final = _lanes(_SECRET, 11)
# The keys of each 16-byte step: of the usual lengths, and of what 129 to 240 bytes have beyond.
_STEPS: Final = tuple(_pair(_SECRET, 16 * step) for step in range(8))
_LATER_STEPS: Final = tuple(_pair(_SECRET, 16 * step + 3) for step in range(7))
_END_STEP: Final = _pair(_SECRET, 119)


def xxh3_64(data: bytes) -> int:
    """XXH3-64 with seed 0.

    Raises:
        ValueError: When the length is outside of `BYTES_MIN`..`BYTES_MAX`.
    """
    length = len(data)
    if 16 < length <= 128:
        return _up_to_128(data, length)
    if not BYTES_MIN <= length <= BYTES_MAX:
        raise ValueError(f"data must have {BYTES_MIN}..{BYTES_MAX} bytes, not {length}")
    if length <= 8:
        return _up_to_8(data, length)
    if length <= 16:
        return _up_to_16(data, length)
    return _up_to_240(data, length) if length <= 240 else _long(data, length)


def _avalanche(value: int) -> int:
    value ^= value >> 37
    value = value * 0x165667919E3779F9 & _MASK
    return value ^ value >> 32


def _mixed(data: bytes, at: int, key: tuple[int, int]) -> int:
    low, high = _pair(data, at)
    product: int = (low ^ key[0]) * (high ^ key[1])
    return (product ^ product >> 64) & _MASK


def _up_to_8(data: bytes, length: int) -> int:
    flip = int.from_bytes(_SECRET[8:16], "little") ^ int.from_bytes(_SECRET[16:24], "little")
    value: int = (_word(data, length - 4)[0] + (_word(data, 0)[0] << 32)) ^ flip
    value ^= (value << 49 | value >> 15) & _MASK ^ (value << 24 | value >> 40) & _MASK
    value = value * 0x9FB21C651E98DF25 & _MASK
    value ^= (value >> 35) + length
    value = value * 0x9FB21C651E98DF25 & _MASK
    return value ^ value >> 28


def _up_to_16(data: bytes, length: int) -> int:
    keys = _lanes(_SECRET, 24)
    low = int.from_bytes(data[:8], "little") ^ keys[0] ^ keys[1]
    high = int.from_bytes(data[-8:], "little") ^ keys[2] ^ keys[3]
    product = low * high
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return _avalanche((length + swapped + high + (product ^ product >> 64 & _MASK)) & _MASK)


def _up_to_128(data: bytes, length: int) -> int:
    total = length * _P64[0]
    for step in range((length - 1) // 32 + 1):
        total += _mixed(data, 16 * step, _STEPS[2 * step])
        total += _mixed(data, length - 16 * (step + 1), _STEPS[2 * step + 1])
    return _avalanche(total & _MASK)


def _up_to_240(data: bytes, length: int) -> int:
    total = length * _P64[0]
    for step, key in enumerate(_STEPS):
        total += _mixed(data, 16 * step, key)
    total = _avalanche(total & _MASK)
    for step in range(8, length // 16):
        total += _mixed(data, 16 * step, _LATER_STEPS[step - 8])
    return _avalanche((total + _mixed(data, length - 16, _END_STEP)) & _MASK)


def _long(data: bytes, length: int) -> int:
    lanes = [_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0]]
    for stripe in range((length - 1) // 64):
        _accumulate(lanes, _lanes(data, 64 * stripe), _LONG_SECRETS[stripe])
    _accumulate(lanes, _lanes(data, length - 64), _LAST_SECRET)
    total = length * _P64[0]
    for lane in range(0, 8, 2):
        product = ((lanes[lane] ^ _MERGE_SECRET[lane]) & _MASK) * (
            (lanes[lane + 1] ^ _MERGE_SECRET[lane + 1]) & _MASK
        )
        total += (product ^ product >> 64) & _MASK
    return _avalanche(total & _MASK)


def _accumulate(lanes: list[int], words: tuple[int, ...], keys: tuple[int, ...]) -> None:
    for lane, (word, key) in enumerate(zip(words, keys, strict=True)):
        keyed = word ^ key
        lanes[lane ^ 1] += word
        lanes[lane] += (keyed & 0xFFFFFFFF) * (keyed >> 32)
