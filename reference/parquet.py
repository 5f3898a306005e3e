"""The reader of Parquet files, which is of the extra ``reference``."""

from __future__ import annotations

from typing import Any

from reference.errors import NotInstalledError


def reader() -> Any:  # noqa: ANN401 - the module has no types
    """Returns the module ``pyarrow.parquet``.

    Raises:
        NotInstalledError: it is missing.
    """
    try:
        import pyarrow.parquet  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            "pyarrow is not installed; pip install 'tokenpace[reference]' brings it"
        ) from error
    return pyarrow.parquet
