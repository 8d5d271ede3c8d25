"""What going on takes: the same run, a checkpoint that is whole, room on the disk; what it says where it cannot."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors import SafetensorError

from lorasweep import checkpoints, lora, metrics, record, reproduce, resume
from lorasweep.ending import Result
from lorasweep.host import ALONE, Host, Interrupted
from lorasweep.record import Launch
from lorasweep.reproduce.facts import Weight
from lorasweep.results import read_results
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Run
from lorasweep.watched_trainer import WatchedTrainer
from tests.conftest import composed, tiny
from tests.resume.children import Kill, Stopper, child, differing, left_by, resumed_after, tell_the_end

RUN = (
    "train.max_steps=6",
    "train.save_every=2",
    "evaluation.times=3",
    "lora.dropout=0.1",
    "train.keep_checkpoints=null",
)


def go(run: Run, folder: Path, host: Host = ALONE) -> Result:
    """Train here, of a folder that holds a run the rest of it."""
    run = replace(run, resume=str(folder) if (folder / "run.yaml").exists() else None)
    return train(run, Launch(folder, []), host)


def log(folder: Path) -> str:
    return (folder / "train.log").read_text()


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr(WatchedTrainer, "train", WatchedTrainer.train)
    tell_the_end()
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert go(tiny(*RUN), folder).state == "complete"
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    result = go(tiny(*RUN), folder, Stopper(5))
    assert (result.state, result.exit_code, result.error) == ("interrupted", 75, "stopped after step 5 of 6")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another run, stopped after the same step."""
    folder = tmp_path_factory.mktemp("other") / "run"
    assert go(tiny(*RUN, "lora.r=8", "train.max_steps=7"), folder, Stopper(5)).state == "interrupted"
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """The folder of a run that was stopped after its fifth step, with checkpoints of steps 2, 4 and 5."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(stopped: Path, whole: Path) -> None:
    assert "It goes on after step 5, with\n  python train.py resume=" in log(stopped)
    assert go(tiny(*RUN), stopped).state == "complete"
    assert differing(left_by(stopped), left_by(whole)) == []
    before, after = (json.loads((path / "record.json").read_text()) for path in (whole, stopped))
    assert resumed_after(stopped) == [5]
    assert before.keys() | {"resumed"} == after.keys()
    assert "going on after step 5 of 6" in log(stopped)


def test_times_and_tokens_go_on_too(stopped: Path) -> None:
    before = json.loads((stopped / "summary.json").read_text())
    # what was spent when the checkpoint was written; writing it, which the summary knows of, may take longer than a step
    kept = json.loads((stopped / "checkpoints" / "step-000005" / "state.json").read_text())["parts"]
    assert go(tiny(*RUN), stopped).state == "complete"
    after = json.loads((stopped / "summary.json").read_text())
    assert after["train/seconds"] > kept["TrainingMetrics"]["seconds"] > 0
    assert after["seconds"] > kept["Metrics"]["seconds"] > 0
    assert after["memory/peak_gib"] >= before["memory/peak_gib"]
    seconds = [entry["seconds"] for entry in metrics.read(stopped)]
    assert seconds == sorted(seconds)


def test_without_save_every_a_checkpoint_is_there_while_it_is_needed(tmp_path: Path, whole: Path) -> None:
    run = tiny(*RUN, "train.save_every=null")
    assert go(run, tmp_path / "run", Stopper(3)).state == "interrupted"
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]
    assert go(run, tmp_path / "run").state == "complete"
    assert resumed_after(tmp_path / "run") == [3]
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert differing(left_by(tmp_path / "run"), left_by(whole)) == []


FILES = (
    "tensors.safetensors", "state.json", "trainer_state.json", "metrics.jsonl", "evaluation.jsonl", "manifest.json",
    "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/README.md",
)  # fmt: skip
CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte off": lambda path: path.write_bytes(path.read_bytes().rstrip()[:-1]),
    "a bit flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 16]) + path.read_bytes()[-8:]
    ),
    "of another run": lambda path: None,  # in the test
}


def test_the_files_of_a_checkpoint_are_those_that_are_broken_here(stopped: Path) -> None:
    place = stopped / "checkpoints" / "step-000005"
    found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert found == set(FILES)


@pytest.mark.parametrize(
    ("name", "corruption"),
    [
        pytest.param(name, corruption, marks=[pytest.mark.slow] if number % 7 else [])
        for number, (name, corruption) in enumerate((name, corruption) for name in FILES for corruption in CORRUPTIONS)
        if (name, corruption) != ("adapter/README.md", "of another run")  # PEFT's card is the same for both
    ],
)
def test_a_broken_checkpoint_costs_steps_and_nothing_else(
    name: str, corruption: str, stopped: Path, whole: Path, other: Path
) -> None:
    path = stopped / "checkpoints" / "step-000005" / name
    before = path.read_bytes()
    CORRUPTIONS[corruption](path)
    if corruption == "of another run":
        shutil.copyfile(other / "checkpoints" / "step-000005" / name, path)
    assert not path.exists() or path.read_bytes() != before
    assert go(tiny(*RUN), stopped).state == "complete"
    assert "step-000005 cannot be gone on from and is now step-000005.broken" in log(stopped)
    assert "going on after step 4 of 6" in log(stopped)
    assert differing(left_by(stopped), left_by(whole)) == []
    assert "step-000005.broken" in [path.name for path in (stopped / "checkpoints").iterdir()]


def test_with_no_checkpoint_that_is_whole_a_run_begins_again_and_says_so(stopped: Path, whole: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        (path / "state.json").unlink()
    assert go(tiny(*RUN), stopped).state == "complete"
    assert log(stopped).count("cannot be gone on from") == 3
    assert "there is no checkpoint to go on from: the run begins at step 0" in log(stopped)
    assert differing(left_by(stopped), left_by(whole)) == []


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, whole: Path) -> None:
    assert child(tiny(*RUN), tmp_path / "run", Kill("forward", 2)) < 0
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert go(tiny(*RUN), tmp_path / "run").state == "complete"
    assert differing(left_by(tmp_path / "run"), left_by(whole)) == []


def test_checkpoints_of_another_run_are_not_gone_on_from(stopped: Path, tmp_path: Path, whole: Path) -> None:
    other = tmp_path / "other"
    assert go(tiny(*RUN, "train.seed=1"), other, Stopper(4)).state == "interrupted"
    shutil.rmtree(stopped / "checkpoints")
    shutil.copytree(other / "checkpoints", stopped / "checkpoints")
    assert go(tiny(*RUN), stopped).state == "complete"
    assert "it is of another run, with train.seed 1, not 42" in log(stopped)
    assert "the run begins at step 0" in log(stopped)
    assert differing(left_by(stopped), left_by(whole)) == []


@pytest.mark.parametrize(
    ("change", "key", "before"),
    [
        ("train.seed=7", "train.seed", 42), ("optim.lr=1e-3", "optim.lr", 0.01), ("train.batch_size=2", "train.batch_size", 8),
        ("scheduler.kwargs={num_cycles: 2}", "scheduler.kwargs", {}), ("lora.r=8", "lora.r", 16),
        ("data.limit=23", "data.limit", 24), ("train.log_every=2", "train.log_every", 1),
    ],
)  # fmt: skip
def test_another_run_is_refused_with_both_values(change: str, key: str, before: object, stopped: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    overrides = (
        [*RUN, change] if not change.startswith("scheduler") else [*RUN, "scheduler=cosine_with_restarts", change]
    )
    with pytest.raises(UserError) as caught:
        go(tiny(*overrides), stopped)
    problem = next(problem for problem in caught.value.problems if problem.key == key)
    assert problem.allowed.startswith(f"{before!r}, as the run was begun")
    assert "experiment=saved" in problem.allowed
    files[stopped / ".lock"] = (stopped / ".lock").stat().st_mtime_ns
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == files, "nothing was touched"


def rates(folder: Path) -> list[float]:
    return [entry["train/lr"] for entry in metrics.read(folder) if "train/lr" in entry]


def back_to_step_2(folder: Path) -> Path:
    """Take the newer checkpoints away."""
    for step in (4, 5):
        shutil.rmtree(folder / "checkpoints" / f"step-00000{step}")
    return folder


def test_another_rate_and_length_are_gone_on_with_if_it_is_said_so(stopped: Path, whole: Path, tmp_path: Path) -> None:
    back_to_step_2(stopped)
    changes = ("optim.lr=1e-3", "train.max_steps=8", "evaluation.times=4")
    assert go(tiny(*RUN, *changes, "resume_anyway=true"), stopped, Stopper(3)).state == "interrupted"
    assert go(tiny(*RUN, *changes), tmp_path / "new").state == "complete"
    assert rates(stopped) == [*rates(whole)[:2], rates(tmp_path / "new")[2]]
    assert "optim.lr has changed: 0.01 -> 0.001" in log(stopped)
    (again,) = json.loads((stopped / "record.json").read_text())["resumed"]
    assert again["changed"]["optim.lr"] == [0.01, 0.001]
    with pytest.raises(UserError, match=r"optim\.lr"):
        go(tiny(*RUN), stopped)
    assert go(tiny(*RUN, *changes), stopped).state == "complete", "from here on this is how it is trained"
    assert rates(stopped)[2:] == rates(tmp_path / "new")[2:]


@pytest.mark.slow
def test_what_was_changed_can_be_gone_on_with_however_soon_it_is_killed(stopped: Path) -> None:
    back_to_step_2(stopped)
    changed = tiny(*RUN, "optim.lr=1e-3", "resume_anyway=true")
    assert child(changed, stopped, Kill("forward", 1)) < 0
    assert go(tiny(*RUN, "optim.lr=1e-3"), stopped).state == "complete"
    assert log(stopped).count("going on after step 2 of 6") == 2


@pytest.mark.slow
def test_another_seed_is_another_stream_from_there_on(stopped: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "again")
    ends = []
    for folder in (stopped, tmp_path / "again"):
        assert go(tiny(*RUN, "train.seed=7", "resume_anyway=true"), folder).state == "complete"
        ends.append(left_by(folder))
    assert differing(*ends) == []
    assert "metrics.jsonl" in differing(ends[0], left_by(whole))


def test_scores_by_another_measure_begin_anew(stopped: Path) -> None:
    assert go(tiny(*RUN, "evaluation.max_samples=2", "resume_anyway=true"), stopped).state == "complete"
    lines = [json.loads(line) for line in (stopped / "evaluation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6]
    assert len(lines[0]["row_losses"]) == 2


def test_another_adapter_or_optimizer_is_nothing_to_go_on_with(stopped: Path) -> None:
    with pytest.raises(UserError) as caught:
        go(tiny(*RUN, "lora.r=8", "optim.name=adamw_8bit", "quant=fp4", "resume_anyway=true"), stopped)
    assert {problem.key for problem in caught.value.problems} >= {"lora.r", "optim.name", "quant.method"}
    assert not any("resume_anyway" in problem.allowed for problem in caught.value.problems)


def test_what_changes_nothing_about_a_run_may_change(stopped: Path) -> None:
    back_to_step_2(stopped)
    free = ("train.save_every=1", "train.keep_checkpoints=1", "tracking.tags=[again]", "verbosity=debug", "name=again")
    assert go(tiny(*RUN, *free), stopped).state == "complete"
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step-000005"]
    assert "again" in (stopped / "run.yaml").read_text()
    assert "again" in (stopped / "experiment" / "saved.yaml").read_text()


def rows(path: Path, word: str = "same") -> Path:
    lines = [{"prompt": f"question {number}", "completion": f"{word} {number}"} for number in range(12)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_row_that_was_changed_is_noticed_though_its_file_looks_the_same(tmp_path: Path) -> None:
    path, folder = rows(tmp_path / "rows.jsonl"), tmp_path / "run"
    overrides = (
        "model=tiny", "tracking.wandb=disabled", "verbosity=quiet", "data=jsonl", f"data.files={path}", "train.max_steps=4",
        "evaluation.generate=0", "train.save_every=1",
    )  # fmt: skip
    assert go(composed(*overrides), folder, Stopper(2)).state == "interrupted"
    facts = path.stat()
    path.write_text(path.read_text().replace("same 11", "some 11").replace("same 3", "some 3"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    with pytest.raises(UserError, match=r"rows of (train|eval)"):
        go(composed(*overrides), folder)
    shutil.copytree(folder, tmp_path / "anyway")
    assert go(composed(*overrides, "resume_anyway=true"), tmp_path / "anyway").state == "complete"
    assert "going on after step 2 of 4" in log(tmp_path / "anyway")
    rows(path)
    assert go(composed(*overrides), folder).state == "complete"


def test_other_code_is_refused_unless_it_is_said_to_be_fine(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {**record.installed_packages(), "torch": "9.9"}
    monkeypatch.setattr(record, "installed_packages", lambda: packages)
    monkeypatch.setattr(record, "code_hash", lambda: "other")
    with pytest.raises(UserError, match="resume_anyway=true") as caught:
        go(tiny(*RUN), stopped)
    assert [problem.key for problem in caught.value.problems] == ["code of lorasweep", "package torch"]
    assert caught.value.problems[1].value == "9.9"
    assert go(tiny(*RUN, "resume_anyway=true"), stopped, Stopper(6)).state in ("complete", "interrupted")
    assert "going on after step 5 of 6" in log(stopped)
    assert "package torch has changed" in log(stopped)
    assert any("torch" in note for note in json.loads((stopped / "record.json").read_text())["resumed"][0]["notes"])
    assert go(tiny(*RUN), stopped).state == "complete", "from here on the other code is the one it has"


def test_a_run_that_goes_on_by_other_means_says_so_wherever_it_is_asked(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {**record.hardware(), "instructions": "x86-64-v2"}
    begun = json.loads((stopped / "record.json").read_text())
    monkeypatch.setattr(record, "hardware", lambda: elsewhere)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
    monkeypatch.setattr("lorasweep.run.numerics", lambda trainer: {**begun["numerics"], "cpu_capability": "DEFAULT"})
    assert go(tiny(*RUN), stopped).state == "complete"
    was = begun["hardware"]["instructions"]
    (again,) = json.loads((stopped / "record.json").read_text())["resumed"]
    assert again["means"] == {
        "instructions of the processor": [was, "x86-64-v2"],
        "variable DNNL_MAX_CPU_ISA": ["not set", "SSE41"],
        "numerics: cpu_capability": [begun["numerics"]["cpu_capability"], "DEFAULT"],
    }
    assert f"instructions of the processor has changed: {was} -> x86-64-v2" in log(stopped)
    monkeypatch.undo()
    known = reproduce.check(str(stopped), [])
    assert known.expected == "equivalent"
    assert {"instructions of the processor up to step 5", "variable DNNL_MAX_CPU_ISA up to step 5"} <= {
        item.name for item in known.facts.of(Weight.MEANS)
    }


def test_a_trial_of_other_code_begins_again_instead(
    stopped: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "code_hash", lambda: "other")
    run = tiny(*RUN)
    run.study = "study"
    assert go(run, stopped).state == "complete"
    assert "it is of another run, with code of lorasweep" in log(stopped)
    assert "the run begins at step 0" in log(stopped)
    assert differing(left_by(stopped), left_by(whole)) == []


def test_a_complete_run_trains_no_more(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    result = go(tiny(*RUN), whole)
    assert (result.state, result.exit_code) == ("complete", 0)
    assert result.objective == json.loads((whole / "summary.json").read_text())["objective"]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_run_that_is_going_on_elsewhere_is_left_alone(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SECONDS_TO_UNLOCK", 0.1)
    with FileLock(stopped / ".lock"), pytest.raises(UserError, match="a process has it locked"):
        go(tiny(*RUN), stopped)


class Evaluating(Host):
    """Asks a run to stop in the middle of its n-th evaluation."""

    def __init__(self, evaluation: int) -> None:
        self.evaluation, self.asked = evaluation, 0

    def progress(self, step: int, total: int) -> None:
        self.step = step

    def stopping(self) -> bool:
        return self.training and self.step == 2 * self.evaluation and self._next() > 2

    def _next(self) -> int:
        self.asked += 1
        return self.asked


@pytest.mark.parametrize("evaluation", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_does_not_wait_for_an_evaluation_and_is_judged_when_it_goes_on(
    evaluation: int, tmp_path: Path, whole: Path
) -> None:
    folder = tmp_path / "run"
    result = go(tiny(*RUN, "evaluation.batch_size=1"), folder, Evaluating(evaluation))
    assert (result.state, result.error) == ("interrupted", f"stopped after step {2 * evaluation} of 6")
    judged = [json.loads(line)["step"] for line in (folder / "evaluation.jsonl").read_text().splitlines()]
    assert judged == [0, 2, 4][:evaluation]
    assert go(tiny(*RUN, "evaluation.batch_size=1"), folder).state == "complete"
    assert resumed_after(folder) == [2 * evaluation]
    again = go(tiny(*RUN, "evaluation.batch_size=1"), tmp_path / "again")
    assert again.state == "complete"
    assert differing(left_by(folder), left_by(tmp_path / "again")) == []


class Undecided(Host):
    """Is told to stop while it waits for whether the run goes on, as a study's worker can be."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, float]] = []
        self.told = False

    def report(self, step: int, tokens: int, value: float) -> bool:
        self.reports.append((step, tokens, value))
        if step == 4 and not self.told:
            self.told = True
            raise Interrupted("stopped")
        return True

    def stopping(self) -> bool:
        return self.told


def test_what_nobody_has_decided_is_asked_again_and_what_was_is_not(tmp_path: Path, whole: Path) -> None:
    first, second = Undecided(), Undecided()
    second.told = True
    assert go(tiny(*RUN), tmp_path / "run", first).state == "interrupted"
    assert [step for step, _, _ in first.reports] == [2, 4]
    second.stopping = lambda: False  # type: ignore[method-assign]
    assert go(tiny(*RUN), tmp_path / "run", second).state == "complete"
    assert resumed_after(tmp_path / "run") == [4]
    assert [step for step, _, _ in second.reports] == [4, 6]
    assert second.reports[0] == first.reports[1]
    assert differing(left_by(tmp_path / "run"), left_by(whole)) == []


def test_a_disk_without_room_costs_checkpoints_and_not_the_run(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    assert go(tiny(*RUN), tmp_path / "run").state == "complete"
    assert log(tmp_path / "run").count("has no checkpoint: [Errno 28] it takes") == 2
    assert differing(left_by(tmp_path / "run"), left_by(whole)) == []
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


class Filling(Host):
    """A disk for checkpoints that holds a page more after every step: every write of one is the first without room."""

    PAGE = 4096

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, 0

    def mount(self) -> None:
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "lorasweep-test", self.folder], check=True)

    def progress(self, step: int, total: int) -> None:
        assert not list(self.folder.glob(".step-*")), "what was left of one that did not fit takes no room"
        self.whole = len([checkpoints.read(path) for path in self.folder.glob("step-*")])
        options = f"remount,size={(step + 1) * self.PAGE}"
        subprocess.run(["mount", "-o", options, self.folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40))  # type: ignore[attr-defined]
    overrides = (
        "lora.r=1",
        "lora.target_modules=[q_proj]",
        "train.max_steps=150",
        "evaluation.times=1",
        "train.log_every=50",
    )
    host = Filling(tmp_path / "run" / "checkpoints")
    host.mount()
    try:
        assert (
            go(tiny(*overrides, "train.save_every=1", "train.keep_checkpoints=1"), tmp_path / "run", host).state
            == "complete"
        )
        failed = log(tmp_path / "run").count("has no checkpoint: ")
        assert 20 < failed < 140, "first none fits, in the end every one does"
        assert host.whole == 1
    finally:
        subprocess.run(["umount", "--lazy", host.folder], check=True)
    assert go(tiny(*overrides), tmp_path / "calm").state == "complete"
    assert differing(left_by(tmp_path / "run"), left_by(tmp_path / "calm")) == []


@pytest.mark.slow
@pytest.mark.parametrize("pages", [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384])
def test_a_run_whose_disk_is_full_goes_on_once_there_is_room(pages: int, tmp_path: Path, whole: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "lorasweep-test", disk], check=True)
    try:
        with suppress(OSError, SafetensorError, UserError):
            go(tiny(*RUN), disk / "run")
        subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)
        if not results_of(disk / "run"):
            shutil.rmtree(disk / "run", ignore_errors=True)  # it had not begun
        assert go(tiny(*RUN), disk / "run").state == "complete"
        assert differing(left_by(disk / "run"), left_by(whole)) == []
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def results_of(folder: Path) -> bool:
    """Whether a run has begun in a folder, by its config."""
    try:
        return (folder / "experiment" / "saved.yaml").exists() and bool(read_results(folder))
    except UserError:
        return False


def small_files() -> None:
    """Let no file grow beyond what metrics need; a checkpoint's tensors do."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@pytest.mark.slow
def test_a_file_that_cannot_be_written_whole_is_no_checkpoint(tmp_path: Path) -> None:
    run = tiny(*RUN, "lora.r=64", "evaluation.keep=last")
    child(run, tmp_path / "run", before=small_files)
    text = log(tmp_path / "run")
    assert "Step 2 has no checkpoint: " in text
    assert "File too large" in text
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert [entry["step"] for entry in metrics.read(tmp_path / "run") if "train/loss" in entry] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_an_adapter_whose_start_comes_out_otherwise_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny(*RUN, "quant=none", "lora.init=pissa")
    assert go(run, tmp_path / "run", Stopper(3)).state == "interrupted"
    add = lora.add_adapter

    def other(*arguments: Any) -> Any:
        model = add(*arguments)
        model.start = {name: value + 1e-7 for name, value in model.start.items()}
        return model

    monkeypatch.setattr(lora, "add_adapter", other)
    with pytest.raises(UserError, match=r"lora\.init"):
        go(run, tmp_path / "run")


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "random streams": lambda patch: patch.setattr(
        "lorasweep.training_state.put_back_random", lambda prefix, state: None
    ),
    "optimizer": lambda patch: patch.setattr("lorasweep.training_state._put_back_optimizer", lambda *arguments: None),
    "metrics": lambda patch: patch.setattr("lorasweep.checkpointing.BESIDE", ("evaluation.jsonl",)),
    "tokens": lambda patch: patch.setattr("lorasweep.tokens.TokenCounter.restore", lambda self, state: None),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_what_is_forgotten_is_noticed(bug: str, stopped: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)
    go(tiny(*RUN), back_to_step_2(stopped))
    assert differing(left_by(stopped), left_by(whole)) != []


def test_are_there_checkpoints_without_reading_them(stopped: Path, whole: Path, tmp_path: Path) -> None:
    assert checkpoints.has_checkpoint(stopped)
    assert checkpoints.latest_step(stopped / "checkpoints") == 5
    assert not checkpoints.has_checkpoint(tmp_path)
