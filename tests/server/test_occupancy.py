"""Others on a device are told from workers of ours, under the ids of a container's host, too."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from server.errors import ServiceError

BEYOND_ALL_IDS = 1 << 22
"""The kernel gives no process a number from here on."""
OURS, OTHER = (f"{BEYOND_ALL_IDS + index} ?" for index in range(2))


@pytest.fixture
def listed(state, monkeypatch):
    """What the driver lists; its reader leaves out what it is told to."""
    found = []

    def read(name, own):
        return SimpleNamespace(processes=[t for t in found if int(t.split()[0]) not in own])

    monkeypatch.setattr("profiler.telemetry.read", read)
    return found


@pytest.fixture
def device(state):
    return state.devices.get("local")


def refused(device, state, **changes):
    with pytest.raises(ServiceError) as caught:
        state.occupancy.note_and_check(device, **changes)
    return str(caught.value)


def test_all_that_is_listed_are_others_while_none_of_ours_is_there(listed, device, state):
    state.occupancy.note_and_check(device)
    listed.append(OTHER)
    assert OTHER in refused(device, state)


def test_forced_it_goes_on_beside_others(listed, device, state):
    listed.append(OTHER)
    assert state.occupancy.note_and_check(device, force=True).processes == [OTHER]


def test_an_id_that_came_with_our_worker_is_not_refused(listed, device, state):
    state.occupancy.note_others(device)
    listed.append(OURS)
    state.occupancy.note_and_check(device, beside_ours=True)


def test_who_was_there_before_our_worker_is_refused_beside_it(listed, device, state):
    listed.append(OTHER)
    state.occupancy.note_others(device)
    listed[:0] = [OURS]
    for _ in range(2):
        said = refused(device, state, beside_ours=True)
        assert OTHER in said
        assert OURS not in said
    listed.remove(OTHER)
    state.occupancy.note_and_check(device, beside_ours=True)


def test_a_check_while_none_of_ours_is_there_notes_who_is(listed, device, state):
    """A live measurement begins behind one, and a job may be asked for beside it."""
    listed.append(OTHER)
    state.occupancy.note_and_check(device, force=True)
    listed.append(OURS)
    said = refused(device, state, beside_ours=True)
    assert OTHER in said
    assert OURS not in said
    listed.clear()
    state.occupancy.note_and_check(device)
    listed.append(OTHER)  # the id is another's now
    state.occupancy.note_and_check(device, beside_ours=True)


def test_a_process_of_this_machine_that_came_later_is_refused(listed, device, state):
    state.occupancy.note_others(device)
    listed += [OURS, f"{os.getppid()} train"]
    said = refused(device, state, beside_ours=True)
    assert "train" in said
    assert OURS not in said


def test_a_worker_under_an_id_of_its_own_is_known(listed, device, state):
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        listed.append(f"{child.pid} python")
        state.occupancy.note_and_check(device)
        state.occupancy.note_and_check(device, beside_ours=True)
        child.stdin.close()


def test_what_is_noted_of_one_device_is_of_no_other(listed, device, state):
    listed.append(OTHER)
    state.occupancy.note_others(device)
    state.occupancy.note_and_check(replace(device, stored_name="local:1"), beside_ours=True)
    assert OTHER in refused(device, state, beside_ours=True)
