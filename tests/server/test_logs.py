import io
import json
import logging

import pytest
import structlog

from server import logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _as_before():
    yield
    logs.set_up()


def test_json_lines_carry_the_bound_request_id():
    stream = io.StringIO()
    logs.set_up("info", "auto", stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("x").info("hello", rows=3)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["rows"], line["request_id"]) == ("hello", 3, "r1")
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_a_terminal_gets_lines_for_people():
    stream = Terminal()
    logs.set_up("info", "auto", stream)
    structlog.get_logger("x").info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_levels_below_the_asked_one_are_left_out():
    stream = io.StringIO()
    logs.set_up("warning", "json", stream)
    log = structlog.get_logger("x")
    log.info("no")
    log.warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_libraries_log_in_the_same_form():
    stream = io.StringIO()
    logs.set_up("info", "json", stream)
    logging.getLogger("alembic").warning("from a %s", "library")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"]) == ("from a library", "alembic")


def test_a_log_that_cannot_be_written_fails_nothing():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    logs.set_up("info", "json", Full())
    structlog.get_logger("x").info("hello")
    logging.getLogger("x").warning("hello")
