"""What a running study shows: lines for pipes, a picture of bounded size for terminals."""

import io
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorasweep.study import live
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.live import Live
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.space import Choice, Interval, Space
from lorasweep.study.trial import Trial
from lorasweep.study.view import Lines, View, build_view
from lorasweep.study.wording import clock, duration, shown
from tests.conftest import ROOT
from tests.study.sessions import launch, trials_of, until

POINT = {"optim.lr": 0.00023456, "lora.r": 64, "lora.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
SPACE = Space(
    (Interval("optim.lr", 1e-5, 1e-3, log=True), Choice("lora.r", (8, 64)),
     Choice("lora.target_modules", ("all-linear", POINT["lora.target_modules"]))),
    fixed=POINT,
)  # fmt: skip


def study(verbosity: str = "normal", **settings: Any) -> Definition:
    run = {"verbosity": verbosity, "evaluation": {"objective": settings.pop("judged", "loss")}}
    given = Settings(**{"sampler": "tpe", "n_trials": 20, "baseline": True, **settings})
    return Definition("first", Path("outputs/studies/first"), given, SPACE, lambda point: Composed(run, [], [], ""))


def console(width: int = 100, height: int = 40, terminal: bool = True) -> Console:
    return Console(
        width=width, height=height, file=io.StringIO(), force_terminal=terminal, color_system=None, legacy_windows=False
    )


def text(screen: Console) -> str:
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def picture(view: Live) -> list[str]:
    """The lines that are drawn now."""
    screen = console(view.console.width, view.console.height)
    with screen.capture() as drawn:
        screen.print(view.draw())
    return [line.rstrip() for line in drawn.get().splitlines()]


def trial(number: int, state: State = State.RUNNING, value: float | None = None, **facts: Any) -> Trial:
    kind = "baseline" if number == 0 else "sampled"
    reason = facts.pop("reason", None)
    return Trial(number, state, POINT, "", kind, None if value is None else [value], facts, reason)


def play(view: View, slots: int, endings: list[Trial]) -> None:
    """A session with trials that have ended and others that run."""
    view.begin(slots)
    for ending in endings:
        view.started(trial(ending.number), 0)
        view.ended(ending)
    for slot in range(slots):
        view.started(trial(len(endings) + slot), slot)
        view.step(len(endings) + slot, 30, 120)
        view.reported(len(endings) + slot, 1.98765)
    view.tick()


ENDINGS = [
    trial(0, State.COMPLETE, 2.0, seconds_in_slot=100.0),
    trial(1, State.COMPLETE, 1.5, seconds_in_slot=100.0),
    trial(2, State.PRUNED, seconds_in_slot=40.0),
    trial(3, State.OUT_OF_MEMORY, seconds_in_slot=40.0),
    trial(4, State.FAILED, reason="RuntimeError: broken"),
]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize("height", [12, 24, 40])
def test_the_picture_fits_the_terminal_and_shows_what_matters(width: int, slots: int, height: int) -> None:
    view = Live(console(width, height), study())
    play(view, slots, ENDINGS)
    lines = picture(view)
    view.end()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    drawn = "\n".join(lines)
    for words in ("5/20 trials", f"{slots} running", "2 complete", "1 pruned", "1 failed", "best  loss 1.5  trial 1"):
        assert words in drawn
    assert " 30/120" in drawn
    assert "1.988" in drawn
    assert "Ctrl-C: finish the running trials" in drawn


def test_all_running_trials_are_drawn_where_there_is_room_and_counted_where_there_is_not() -> None:
    tall, low = Live(console(100, 40), study()), Live(console(100, 20), study())
    for view in (tall, low):
        play(view, 16, ENDINGS)
        view.end()
    assert sum("30/120" in line for line in picture(tall)) == 16
    drawn = sum("30/120" in line for line in picture(low))
    assert f"{16 - drawn} more run" in "\n".join(picture(low))


def test_the_best_is_compared_with_the_baseline_and_its_values_are_short() -> None:
    view = Live(console(), study())
    play(view, 1, ENDINGS)
    view.end()
    drawn = "\n".join(picture(view))
    assert "best  loss 1.5  trial 1, 0.5 (25.0%) better than the baseline" in drawn
    assert "lr 0.0002346, r 64, target_modules q_proj,k_proj,+2" in drawn


def test_where_more_is_better_the_highest_is_the_best() -> None:
    view = Live(console(), study(judged="exact_match", direction="maximize"))
    play(view, 1, ENDINGS)
    view.end()
    assert "best  exact_match 2  trial 0, the config as it stands" in "\n".join(picture(view))


@pytest.mark.parametrize(("width", "columns"), [(60, ["loss", "peak_gib", "seconds"]), (50, ["loss", "peak_gib"])])
def test_of_several_objectives_as_many_are_shown_as_fit_beside_the_first(width: int, columns: list[str]) -> None:
    view = Live(console(width), study(objectives=["objective", "memory/peak_gib", "train/seconds"]))
    several = replace(trial(0, State.COMPLETE, 2.0), values=[2.0, 7.5, 33.0])
    play(view, 1, [several, trial(1, State.FAILED)])
    view.end()
    lines = picture(view)
    (headings,) = (line.split() for line in lines if line.lstrip().startswith("trial"))
    assert [name for name in headings if name in ("loss", "peak_gib", "seconds")] == columns
    (row,) = (line for line in lines if "complete baseline" in line)
    assert row.split()[3 : 3 + len(columns)] == ["2", "7.5", "33"][: len(columns)]
    assert "best  loss 2, peak_gib 7.5, seconds 33" in "\n".join(lines)
    assert max(map(len, lines)) <= width


def test_the_time_left_follows_from_what_trials_took_and_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.time, "monotonic", lambda: 1000.0)
    view = Live(console(), study(n_trials=20))
    assert view.seconds_left() is None
    play(view, 4, [trial(n, State.COMPLETE, 1.0, seconds_in_slot=100.0) for n in range(8)])
    view.end()
    assert view.seconds_left() == pytest.approx((4 * 100 + 8 * 100) / 4)


def test_trials_of_earlier_sessions_count_and_one_that_is_run_again_is_there_once() -> None:
    view = Live(console(), study())
    view.begin(1)
    view.ended(trial(0, State.COMPLETE, 2.0))
    view.started(trial(1), 0)
    view.ended(trial(1, State.INTERRUPTED, reason="its process was killed by SIGKILL"))
    assert "1/20 trials" in "\n".join(picture(view))
    view.started(trial(1), 0)
    view.end()
    drawn = "\n".join(picture(view))
    assert "1 running  1 complete" in drawn
    assert "interrupted" not in drawn


def test_what_is_wrong_stays_on_the_screen_once_and_not_again_in_the_next_session() -> None:
    screen = console()
    view = Live(screen, study())
    view.begin(1)
    view.ended(trial(3, State.FAILED, reason="RuntimeError: of yesterday"))
    view.started(trial(4), 0)
    view.ended(trial(4, State.FAILED, reason="RuntimeError: of today"))
    view.say("a message")
    view.end()
    assert "of yesterday" not in text(screen)
    assert text(screen).count("trial 4 failed: RuntimeError: of today") == 1
    assert "a message" in text(screen)


def test_drawing_happens_at_most_eight_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    view = Live(console(), study())
    view.begin(1)
    drawn: list[float] = []
    monkeypatch.setattr(view, "draw", lambda: drawn.append(now[0]) or "")
    for _ in range(200):
        now[0] += 0.01
        view.tick()
    view.end()
    assert 10 <= len(drawn) <= 17


def test_a_pipe_gets_lines_a_terminal_the_picture_and_quiet_only_what_is_wrong() -> None:
    assert isinstance(build_view(console(), study()), Live)
    assert isinstance(build_view(console(terminal=False), study()), Lines)
    screen = console()
    quiet = build_view(screen, study("quiet"))
    play(quiet, 2, ENDINGS)
    quiet.end()
    assert text(screen) == "trial 4 failed: RuntimeError: broken\n"


def test_lines_begin_with_what_is_searched() -> None:
    screen = console(80, terminal=False)
    build_view(screen, study()).begin(4)
    for words in (
        "first",
        "optim.lr",
        "1e-05 to 0.001, logarithmic",
        "tpe, 20 trials, 4 at the same time",
        "minimize loss",
    ):
        assert words in text(screen)


def test_the_header_says_what_the_command_line_takes_out_of_the_space() -> None:
    screen = console(80, terminal=False)
    build_view(screen, replace(study(), taken_out=("lora.alpha=8",))).begin(1)
    assert text(screen).count("lora.alpha=8 is fixed by the command line and leaves the space") == 1


def test_values_are_short() -> None:
    assert [shown(value) for value in (None, True, 0.000234567, 1e-5, 3, 1.0, "linear", [], ["q_proj", "v_proj"])] == [
        "null", "true", "0.0002346", "1e-05", "3", "1", "linear", "", "q_proj,v_proj",
    ]  # fmt: skip
    assert all(len(shown(value)) <= 18 for value in ("x" * 50, ["x" * 50], ["x" * 50] * 3, ["abc"] * 40))
    assert [duration(seconds) for seconds in (1.25, 10, 119, 120, 7200, 200_000)] == [
        "1.2 seconds", "10 seconds", "119 seconds", "2 minutes", "2.0 hours", "2.3 days",
    ]  # fmt: skip
    assert [clock(seconds) for seconds in (0, 42.4, 61, 3723)] == ["0:00", "0:42", "1:01", "1:02:03"]


def test_a_study_goes_on_without_those_who_watched_it(tmp_path: Path) -> None:
    session = launch(tmp_path / "pipe", seconds=0.1, n_trials=4, slots=1)
    assert session.stdout
    until(lambda: "trial 1 started" in session.stdout.readline())
    session.stdout.close()
    ours, theirs = pty.openpty()
    shown = launch(tmp_path / "terminal", {"TERM": "xterm"}, output=theirs, seconds=0.1, n_trials=4, slots=1)
    os.close(theirs)
    seen = bytearray()
    until(lambda: seen.extend(os.read(ours, 1 << 16)) or b"1/4 trials" in seen)
    os.close(ours)
    for folder, process in (("pipe", session), ("terminal", shown)):
        assert process.wait(60) == 0
        assert [trial.state for trial in trials_of(tmp_path / folder)] == [State.COMPLETE] * 4
        assert (tmp_path / folder / "leaderboard.csv").exists()


PROGRAM = """
import sys
from pathlib import Path
from rich.console import Console
from lorasweep.study.session import run_session
from lorasweep.study.view import build_view
from tests.study.toy import toy
study = toy(Path(sys.argv[1]), seconds=0.2, n_trials=500, slots=1)
print("RESULT", run_session(study, build_view(Console(), study)))
"""


def test_an_interrupted_study_leaves_a_clean_screen_with_its_leaderboard(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "100", "LINES": "30", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "s")], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen, told, deadline = b"", 0, time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            seen += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        at_work = b"/500 trials" in seen and b"1/4" in seen
        if (at_work and told == 0) or (b"finishing 1 running" in seen and told == 1):
            process.send_signal(signal.SIGINT)  # the second time all is stopped at once, and may be at its end already
            told += 1
    assert process.wait(60) == 0
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1  # the cursor is hidden, and shown again
    after = seen.rpartition(b"\x1b[?25h")[2].decode()
    assert "RESULT interrupted" in after
    assert "all of it:" in after
    assert "Ctrl-C" not in after
    assert (tmp_path / "s" / "leaderboard.csv").exists()
