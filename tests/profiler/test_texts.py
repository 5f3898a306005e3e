"""Errors as a line for a person."""

import pytest

from profiler.texts import one_line, typed_line

LINE = "CUDA error: an illegal memory access was encountered Search for it."
LONG = "CUDA error: an illegal memory access was encountered\n  Search for it.\n" + "Or not. " * 40


def test_an_error_is_its_beginning_on_one_line():
    assert one_line(RuntimeError(LONG)).startswith(LINE)
    assert typed_line(RuntimeError(LONG)).startswith(f"RuntimeError: {LINE}")
    assert len(one_line(RuntimeError(LONG))) == 200


@pytest.mark.parametrize("line", [one_line, typed_line])
def test_an_error_without_a_text_is_called_by_its_type(line):
    assert line(MemoryError("\n")) == "MemoryError"
