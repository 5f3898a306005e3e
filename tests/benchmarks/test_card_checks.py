"""Steps of a lent card: shares of the time, limits, outputs, and what a failure stops."""

import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def card_checks(script):
    return script("card_checks")


def test_the_campaign_has_eight_of_fourteen_minutes_and_all_shares_leave_some(card_checks):
    steps = card_checks.plan(Path("/out"), 14 * 60.0, "")
    names = [step.name for step in steps]
    assert names == ["check", "tests", "campaign", "compact", "held_out", "learning_curve"]
    campaign = steps[names.index("campaign")]
    assert campaign.command[3:] == (
        *("profiler", "campaign", "--budget", "480.0s"),
        *("--out", "/out/campaign.jsonl", "--force"),
    )
    assert campaign.share * 14 * 60 > 480
    assert 0.9 < sum(step.share for step in steps) < 1.0
    assert steps[-1].share == 0.0
    assert all("/out/campaign.jsonl" in step.command for step in steps[3:])


def test_a_processor_has_no_compact_file(card_checks):
    steps = card_checks.plan(Path("/out"), 60.0, "cpu")
    assert "compact" not in [step.name for step in steps]
    for name in ("check", "campaign", "held_out", "learning_curve"):
        (step,) = [step for step in steps if step.name == name]
        assert ("--device", "cpu") in list(zip(step.command, step.command[1:], strict=False))


def test_remains_of_a_step_that_was_killed_refuse_no_other(card_checks):
    steps = card_checks.plan(Path("/out"), 60.0, "")
    forced = [step.name for step in steps if "--force" in step.command]
    assert forced == ["check", "campaign"]


def test_a_commit_is_passed_on_to_the_campaign(card_checks):
    steps = card_checks.plan(Path("/out"), 60.0, "", "a" * 40)
    given = [step.name for step in steps if "--commit" in step.command]
    assert given == ["campaign"]
    assert ("--commit", "a" * 40) in list(zip(steps[2].command, steps[2].command[1:], strict=False))


@pytest.fixture
def steps(card_checks):
    """Makes steps of programs, with the shares of each."""

    def make(**programs):
        return [
            card_checks.Step(name, share, (sys.executable, "-u", "-c", text))
            for name, (share, text) in programs.items()
        ]

    return make


HANGING = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid)
time.sleep(60)
"""


def running(process_id):
    """Whether a process runs: one that has ended may wait to be reaped."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_step_that_fails_or_hangs_stops_no_other(card_checks, steps, tmp_path):
    programs = steps(
        fails=(0.25, "import sys; print('said'); print('why', file=sys.stderr); sys.exit(3)"),
        hangs=(0.25, HANGING),
        runs=(0.5, "import os; print(os.getcwd())"),
    )
    begin = time.monotonic()
    ended = card_checks.run_all(programs, 6.0, tmp_path, "# Checks\n")
    assert time.monotonic() - begin < 30  # a busy machine takes a while to start processes
    assert [it.code for it in ended] == [3, "time over", 0]
    assert (tmp_path / "fails.txt").read_text().split() == ["said", "why"]
    assert (tmp_path / "runs.txt").read_text().strip() == str(card_checks.ROOT)
    child = int((tmp_path / "hangs.txt").read_text())
    assert not running(child)
    # What a step left over is the next one's.
    assert ended[1].limit_s > 0.25 * 6.0
    page = (tmp_path / card_checks.PAGE).read_text()
    assert page.startswith("# Checks\n")
    for it in ended:
        assert f"| {it.step.name} | {it.seconds:.1f} | {it.limit_s:.1f} | {it.code} |" in page


def test_what_has_no_time_left_is_said_and_not_run(card_checks, steps, tmp_path):
    programs = steps(late=(0.0, "print('ran')"))
    (late,) = card_checks.run_all(programs, 0.5, tmp_path, "")
    assert (late.code, late.seconds) == ("no time left", 0.0)
    assert not (tmp_path / "late.txt").exists()
    assert "| late | 0.0 | 0.5 | no time left | - |" in (tmp_path / card_checks.PAGE).read_text()


def test_an_interrupt_lets_a_step_tell_how_far_it_came(card_checks, steps, tmp_path):
    waiting = """
import time
try:
    print("begun")
    time.sleep(60)
except KeyboardInterrupt:
    print("three of five")
"""
    (ended,) = card_checks.run_all(steps(waits=(1.0, waiting)), 4.0, tmp_path, "")
    assert ended.code == "time over"
    assert (tmp_path / "waits.txt").read_text().split("\n")[:2] == ["begun", "three of five"]


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (0, "time over")])
def test_the_exit_code_tells_whether_all_went_well(
    card_checks, command, tmp_path, monkeypatch, codes
):
    programs = [card_checks.Step(f"step{place}", 0.5, ()) for place in range(len(codes))]
    monkeypatch.setattr(card_checks, "plan", lambda *_: programs)
    told = dict(zip([step.name for step in programs], codes, strict=True))
    monkeypatch.setattr(
        card_checks,
        "run",
        lambda step, limit_s, out: card_checks.Ended(step, 1.0, limit_s, told[step.name]),
    )
    code, printed = command(card_checks, "--out", tmp_path / "card", "--minutes", "0.1")
    assert code == (0 if codes == (0, 0) else 1)
    assert "| step0 | 1.0 |" in printed
    page = (tmp_path / "card" / "steps.md").read_text()
    assert page.startswith("# Checks of a card\n")
    assert "card_checks.py --out" in page


def test_the_page_tells_the_commit_that_is_given(
    card_checks, steps, command, tmp_path, monkeypatch
):
    monkeypatch.setattr("evaluation.heading.ROOT", tmp_path)  # a copy without git
    monkeypatch.setattr(card_checks, "plan", lambda *_: steps(runs=(1.0, "")))
    command(card_checks, "--out", tmp_path, "--minutes", "0.1", "--commit", "0123abcd" * 5)
    assert ", commit 0123abc.\n" in (tmp_path / card_checks.PAGE).read_text()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "1441"])
def test_wrong_minutes_are_refused(card_checks, command, tmp_path, capsys, minutes):
    with pytest.raises(SystemExit) as ended:
        command(card_checks, "--out", tmp_path / "card", "--minutes", minutes)
    assert ended.value.code == 2
    assert "--minutes" in capsys.readouterr().err
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("commit", ["abc", "0" * 40])
def test_a_wrong_commit_is_refused_before_any_step(card_checks, command, tmp_path, capsys, commit):
    if not (card_checks.ROOT / ".git").exists():
        pytest.skip("needs a checkout")
    with pytest.raises(SystemExit) as ended:
        command(card_checks, "--out", tmp_path / "card", "--commit", commit)
    assert ended.value.code == 2
    assert "--commit: " in capsys.readouterr().err
    assert not (tmp_path / "card").exists()
