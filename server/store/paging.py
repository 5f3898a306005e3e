"""Pages of a listing, and the tokens that lead from one to the next."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy import func, select

from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Row, Table
    from sqlalchemy.engine import Connection

DEFAULT_SIZE = 50
MAX_SIZE = 1_000

_MAX_NUMBER = (1 << 63) - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the items that match.

    Attributes:
        items: in the order of the listing.
        next_token: leads to the next page; empty on the last.
        total_size: number of all that match.
    """

    items: tuple[T, ...]
    next_token: str
    total_size: int


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for; names as in the API.

    Raises:
        InvalidFieldError: page_size is out of range; names it.
    """

    page_size: int = 0
    page_token: str = ""

    def __post_init__(self) -> None:
        """Checks the range of the size."""
        if not 0 <= self.page_size <= MAX_SIZE:
            raise InvalidFieldError(
                "page_size",
                f"{self.page_size} is not in 0 to {MAX_SIZE}; 0 asks for {DEFAULT_SIZE}",
            )

    @property
    def size(self) -> int:
        """Items in one page."""
        return self.page_size or DEFAULT_SIZE

    def position(self, listing: str) -> int | None:
        """Returns the number that the token carries, None for the first page.

        Args:
            listing: name of the listing; a token of another one is refused.

        Raises:
            InvalidFieldError: the token was not made here; names page_token.
        """
        if not self.page_token:
            return None
        try:
            text = base64.urlsafe_b64decode(self.page_token.encode()).decode()
            name, _, number = text.rpartition(":")
            position = int(number)
            canonical = _token(listing, position) == self.page_token
        except (ValueError, binascii.Error):
            canonical = False
        if not canonical or not 0 <= position <= _MAX_NUMBER or name != listing:
            raise InvalidFieldError(
                "page_token",
                "is not the next_page_token of this listing; leave it empty for the first page",
            )
        return position


def page_of(listing: str, items: Sequence[T], request: PageRequest) -> Page[T]:
    """Returns a page of a list that stays the same while the daemon runs."""
    start = request.position(listing) or 0
    end = start + request.size
    token = _token(listing, end) if end < len(items) else ""
    return Page(tuple(items[start:end]), token, len(items))


def newest_first(
    connection: Connection,
    table: Table,
    request: PageRequest,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> Page[Row[tuple[object, ...]]]:
    """Returns a page of a table's rows that meet all conditions.

    The token carries the number of the page's last row: rows that are added
    meanwhile come before it and move nothing.
    """
    last = request.position(table.name)
    number = table.c.number
    total = connection.scalar(select(func.count()).select_from(table).where(*conditions)) or 0
    older = [] if last is None else [number < last]
    query = select(table).where(*conditions, *older).order_by(number.desc()).limit(request.size + 1)
    rows = connection.execute(query).all()
    token = _token(table.name, rows[request.size - 1].number) if len(rows) > request.size else ""
    return Page(tuple(rows[: request.size]), token, total)


def _token(listing: str, position: int) -> str:
    return base64.urlsafe_b64encode(f"{listing}:{position}".encode()).decode()
