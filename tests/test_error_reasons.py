"""docs/api.md lists every reason that the server can give, with the code and status it gives."""

from __future__ import annotations

import re
from pathlib import Path

from agniregistry import errors

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "node/crates/agni-server/src"
CORE = ROOT / "node/crates/agni-core/src"
NEW = re.compile(r'RpcError::new\(\s*Code::(\w+),\s*"([A-Z_]+)"')
TOKEN = re.compile(r'RpcError::token\(\s*"\w+",\s*"([A-Z_]+)",(?=([^}]*))')
CODE_SET = re.compile(r"error\.code = Code::(\w+)")
ROW = re.compile(r"^\| ([A-Z_]+) \| ([A-Z_, ]+) \| ([\d, ]+) \|", re.MULTILINE)
CLIENT_ROW = re.compile(r"^\| ([A-Z_]+) \| ([A-Z_]+) \| [a-z]", re.MULTILINE)


def snake(name: str) -> str:
    """InvalidArgument → INVALID_ARGUMENT."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).upper()


def given() -> dict[str, set[str]]:
    """Each reason in the server's source, with its gRPC codes."""
    found: dict[str, set[str]] = {}
    for path in sorted(SERVER.rglob("*.rs")):
        text = path.read_text()
        for code, reason in NEW.findall(text):
            found.setdefault(reason, set()).add(snake(code))
        for reason, rest in TOKEN.findall(text):
            changed = CODE_SET.search(rest)
            found.setdefault(reason, set()).add(
                snake(changed[1]) if changed else "INVALID_ARGUMENT"
            )
    # What the system group refuses at apply comes with its reason from the core.
    listed = (CORE / "system/apply.rs").read_text()
    block = listed[listed.index("pub const REASONS") : listed.index("];")]
    own = {"INVALID_FIELD": "INVALID_ARGUMENT", "NOT_FOUND": "NOT_FOUND"}
    for reason in re.findall(r'"([A-Z_]+)"', block):
        found.setdefault(reason, set()).add(own.get(reason, "FAILED_PRECONDITION"))
    return found


def http_status(code: str, reason: str) -> int:
    """What `RpcError::http_status` says, read from its source."""
    source = (SERVER / "status.rs").read_text()
    body = source[source.index("pub fn http_status") :]
    numbers = {
        "PAYLOAD_TOO_LARGE": 413,
        "INSUFFICIENT_STORAGE": 507,
        "GONE": 410,
        "METHOD_NOT_ALLOWED": 405,
        "UNSUPPORTED_MEDIA_TYPE": 415,
        "BAD_REQUEST": 400,
        "FORBIDDEN": 403,
        "NOT_FOUND": 404,
        "CONFLICT": 409,
        "TOO_MANY_REQUESTS": 429,
        "NOT_IMPLEMENTED": 501,
        "SERVICE_UNAVAILABLE": 503,
        "GATEWAY_TIMEOUT": 504,
        "INTERNAL_SERVER_ERROR": 500,
    }
    for by_code, by_reason, status in re.findall(
        r'\(((?:Code::\w+(?: \| )?)+|_), (?:_|"(\w+)")\) => StatusCode::(\w+)', body
    ):
        codes = {snake(name) for name in re.findall(r"Code::(\w+)", by_code)}
        if (by_reason == reason) if by_reason else (code in codes):
            return numbers[status]
    return 500


def test_every_reason_is_documented_with_its_code_and_status() -> None:
    page = (ROOT / "docs/api.md").read_text()
    listed = {
        reason: (set(codes.split(", ")), [int(status) for status in statuses.split(", ")])
        for reason, codes, statuses in ROW.findall(page)
    }
    found = given()
    assert len(found) > 20, "the source no longer looks as this test expects"
    assert set(listed) == set(found)
    for reason, codes in found.items():
        documented, statuses = listed[reason]
        assert documented == codes, reason
        assert set(statuses) == {http_status(code, reason) for code in codes}, reason


def test_the_sdk_knows_every_reason_that_asks_for_an_own_reaction() -> None:
    page = (ROOT / "docs/api.md").read_text()
    own = set(CLIENT_ROW.findall(page))
    known = {cls.default_reason: cls.code for cls in subclasses(errors.AgniError)}
    assert own == {(reason, known[reason]) for reason, _ in own}
    server = set(given())
    undocumented = set(known) - server - {reason for reason, _ in own}
    branches = {cls.default_reason for cls in subclasses(errors.AgniError) if cls.__subclasses__()}
    assert undocumented <= branches, "a class for a reason that nobody gives"


def subclasses(cls: type[errors.AgniError]) -> set[type[errors.AgniError]]:
    """A class and all that are derived from it."""
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))
