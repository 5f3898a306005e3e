"""What goes wrong with the store, in words for the person who runs the daemon."""

from __future__ import annotations


class StoreError(Exception):
    """Something is wrong with the store."""


class StoreUnavailableError(StoreError):
    """The store cannot be opened, read or written; the text names the remedy."""


class StoreFullError(StoreError):
    """There is no room for a row; nothing that was stored is lost."""


class NameTakenError(StoreError):
    """There is something of that name already; nothing was stored."""
