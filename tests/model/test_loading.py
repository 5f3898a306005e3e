"""Loading without collections leaves them as they were."""

import gc

import pytest

from model.loading import no_collection


def test_nothing_is_collected_meanwhile_and_all_later_even_behind_a_failure():
    assert gc.isenabled()
    with pytest.raises(ImportError), no_collection():
        assert not gc.isenabled()
        raise ImportError("no such library")
    assert gc.isenabled()


def test_what_was_loaded_is_left_out_of_collections():
    before = gc.get_freeze_count()
    with no_collection():
        loaded = [[] for _ in range(1_000)]
    assert gc.get_freeze_count() >= before + len(loaded)
