"""Logs of the daemon: structured, on standard error alone."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


class _Stream:
    """Standard error that never fails.

    A closed terminal or a full disk behind a redirected log must not turn an
    answer into an error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def set_up(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Sends the logs of this process to standard error.

    Args:
        level: least level that is logged: debug, info, warning or error.
        form: "console", "json", or "auto": console where the stream is a terminal.
        stream: instead of standard error.
    """
    target = stream if stream is not None else sys.stderr
    number = getattr(logging, level.upper())
    console = form == "console" or (form == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=target.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    output = _Stream(target)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(output),  # type: ignore[arg-type]
        # Loggers of modules outlive this call where it is made again.
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module; their lines look the same.
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
