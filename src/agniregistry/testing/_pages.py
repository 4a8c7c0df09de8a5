"""The fake's pages: a list is kept as it was when its first page was asked for."""

from __future__ import annotations

import base64
import json
import os
from collections import OrderedDict
from dataclasses import dataclass

from agniregistry import types as t
from agniregistry.errors import PageTokenExpiredError, PageTokenInvalidError

LISTS_KEPT_MAX = 64
"""So many lists can be walked through at a time; the oldest one's token expires."""


@dataclass(frozen=True, slots=True)
class Matched:
    """All that a list shows, page by page."""

    wanted: t.Filter
    instances: tuple[t.Instance, ...]
    header: t.Header
    resume_token: bytes


class Pages:
    """The lists that are being walked through."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Matched] = OrderedDict()

    def first(self, matched: Matched, size: int) -> t.Page:
        """The first page."""
        name = os.urandom(8).hex()
        if len(matched.instances) > size:
            self._kept[name] = matched
            if len(self._kept) > LISTS_KEPT_MAX:
                self._kept.popitem(last=False)
        return _page(name, matched, 0, size)

    def following(self, token: str, wanted: t.Filter, size: int) -> t.Page:
        """A later page."""
        name, offset = _read_token(token)
        matched = self._kept.get(name)
        if matched is None:
            raise PageTokenExpiredError(
                "page_token's state is no longer kept, start at the first page",
                field="page_token",
            )
        if matched.wanted != wanted:
            raise PageTokenInvalidError(
                "page_token was given with another filter, start at the first page",
                field="page_token",
            )
        return _page(name, matched, offset, size)


def _page(name: str, matched: Matched, offset: int, size: int) -> t.Page:
    end = offset + size
    last = end >= len(matched.instances)
    following = base64.urlsafe_b64encode(json.dumps([name, end]).encode()).decode()
    return t.Page(
        instances=matched.instances[offset:end],
        next_page_token="" if last else following,
        resume_token=matched.resume_token if last else b"",
        headers=(matched.header,),
    )


def _read_token(token: str) -> tuple[str, int]:
    try:
        name, offset = json.loads(base64.urlsafe_b64decode(token))
        return str(name), int(offset)
    except (ValueError, TypeError) as error:
        raise PageTokenInvalidError(
            "page_token can't be read, start at the first page", field="page_token"
        ) from error
