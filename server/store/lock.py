"""One daemon a data folder."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from server.store.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "lock"


class FolderLock:
    """Holds a folder until :meth:`release` or the end of the process, however it ends.

    The folder is made where it is missing.

    Raises:
        StoreUnavailableError: another process holds it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        remedy = "name a folder that can be written with --data-dir"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(
                folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise StoreUnavailableError(
                f"the data folder {folder} cannot be written ({error.strerror}); {remedy}"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace") or "unknown"
            self.release()
            raise StoreUnavailableError(
                f"another daemon (process {holder}) uses the data folder {folder};"
                " end it, or name another folder with --data-dir"
            ) from error
        except OSError as error:
            self.release()
            raise StoreUnavailableError(
                f"the data folder {folder} cannot be written ({error.strerror}); {remedy}"
            ) from error

    def release(self) -> None:
        """Gives the folder free; again and again does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
