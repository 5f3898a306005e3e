"""The commit of the source that measures: git's word, else its user's."""

import argparse
import shutil
import subprocess

import pytest

from model.errors import InvalidFieldError
from model.source import commit_of
from profiler.__main__ import main
from profiler.source import commit_argument
from reference import campaigns

GIVEN = "0123456789abcdef" * 2 + "01234567"
OTHER = "f" * 40


@pytest.fixture
def checkout(tmp_path):
    """A folder with one commit, and its hash."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "file").write_text("as committed")

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@localhost")
        command = ("git", *identity, *arguments)
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "All of it")
    return folder, git("rev-parse", "HEAD").stdout.strip()


def test_a_copy_without_git_is_of_the_commit_that_is_given(tmp_path):
    assert commit_of(GIVEN, tmp_path) == GIVEN
    assert commit_of("", tmp_path) == ""


def test_a_checkout_tells_its_own(checkout):
    folder, commit = checkout
    assert commit_of("", folder) == commit
    assert commit_of(commit, folder) == commit
    with pytest.raises(InvalidFieldError, match=f"{OTHER} is not the checkout's, {commit}; leave"):
        commit_of(OTHER, folder)
    (folder / "file").write_text("changed")
    assert commit_of(commit, folder) == f"{commit}-dirty"
    with pytest.raises(InvalidFieldError, match="-dirty; leave it out"):
        commit_of(OTHER, folder)


@pytest.mark.parametrize("text", ["", "abc", "a" * 39, "a" * 41, "g" * 40, f"{GIVEN}-dirty"])
def test_no_full_hash_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="40 hexadecimal digits"):
        commit_argument(text)


def test_a_hash_may_be_in_capitals():
    assert commit_argument(GIVEN.upper()) == GIVEN


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a campaign without time to measure, from a source in a folder; returns its code."""
    # Limits and environment would stay in force for the tests behind.
    monkeypatch.setattr("profiler.process_limits.limit_memory", lambda size: None)
    monkeypatch.setattr("profiler.process_limits.be_first_out_of_memory", lambda: None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    def run(folder, *options):
        monkeypatch.setattr("profiler.identity.ROOT", folder)
        out = tmp_path / "campaign.jsonl"
        asked = ("campaign", "--device", "cpu", "--budget", "0.01s", "--out", str(out))
        return main([*asked, *options]), out

    return run


def test_the_command_writes_the_commit_that_it_is_given(command, tmp_path, capsys):
    code, out = command(tmp_path, "--commit", GIVEN)
    assert code == 1
    assert "over before anything was measured" in capsys.readouterr().err
    assert campaigns.read(out).header.commit == GIVEN


def test_the_command_does_without_a_commit(command, checkout, capsys):
    code, out = command(checkout[0])
    assert code == 1
    assert "over before anything was measured" in capsys.readouterr().err
    assert campaigns.read(out).header.commit == checkout[1]


def test_the_command_refuses_a_commit_that_git_denies(command, checkout, capsys):
    code, out = command(checkout[0], "--commit", OTHER)
    assert code == 2
    assert "error: commit: " in capsys.readouterr().err
    assert not out.exists()


def test_the_command_refuses_half_a_hash(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command(tmp_path, "--commit", "abc")
    assert ended.value.code == 2
    assert "--commit: 'abc' is no full hash" in capsys.readouterr().err
