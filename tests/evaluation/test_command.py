"""The command: what it lists and refuses, how it ends, and a table run for real."""

import importlib
import signal
import subprocess
import sys

import pytest

from evaluation import published, requirements
from evaluation.__main__ import main
from evaluation.tables import TABLES
from tokenpace.command import main as tokenpace

COMMAND = (sys.executable, "-m", "tokenpace.command", "evaluate")


def test_help_tells_the_flags(capsys):
    assert tokenpace(["evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("--out", "--table", "--limit", "--list"):
        assert flag in out


def test_list_names_each_table_and_every_name_makes_a_section(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TABLES)
    for module, _ in TABLES.values():
        assert callable(importlib.import_module(f"evaluation.{module}").section)


def test_a_missing_package_names_the_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(requirements.PACKAGES, "no_such_module", "no-such-package")
    assert main(["--out", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert "needs no-such-package" in error
    assert "pip install 'tokenpace[evaluation]'" in error
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("arguments", [["--table", "nothing"], ["--limit", "99"], ["--limit", "x"]])
def test_wrong_usage_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    if requirements.missing():
        pytest.skip(requirements.missing())
    assert main(["--out", str(tmp_path / "file" / "page")]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_exit_code_is_that_of_the_evaluation():
    ended = subprocess.run(
        [*COMMAND, "--table", "nothing"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "invalid choice" in ended.stderr


@pytest.mark.usefixtures("package")
def test_an_interrupt_is_passed_on(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "--table", "operations", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "operations: begins" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        # At its end: the evaluation holds it open as long as it lives.
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("package")
def test_a_table_runs_to_its_page(tmp_path, monkeypatch, capsys):
    rows = [row for row in published.read_rows() if row.engine == "gpt-fast"]
    monkeypatch.setattr(published, "read_rows", lambda: rows)
    assert main(["--out", str(tmp_path), "--table", "published"]) == 0
    printed = capsys.readouterr()
    assert "published latencies of gpt-fast: 31 rows" in printed.err
    page = (tmp_path / "accuracy.md").read_text()
    assert f"Command: `tokenpace evaluate --out {tmp_path} --table published`" in page
    assert "Not finished" not in page
    (line,) = [text for text in page.splitlines() if text.startswith("| gpt-fast | TPOT")]
    assert line in printed.out
    _, engine, figure, count, models, errors, *_ = (part.strip() for part in line.split("|"))
    assert (engine, figure, count, models) == ("gpt-fast", "TPOT", "31", "6")
    assert 1 < float(errors.split()[0]) < 12
    assert (tmp_path / "published.png").stat().st_size > 10_000
