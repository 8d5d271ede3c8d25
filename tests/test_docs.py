"""Every command in the README and the docs is checked as typed, and those that can run here do."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from lorasweep import cli, compose
from lorasweep.comparison import Comparison
from lorasweep.listing import Entry
from lorasweep.overview import RunOverview, StudyOverview
from lorasweep.record import Launch, claim
from lorasweep.run import train
from tests.conftest import ROOT, TINY, command, composed, tiny
from tests.resume.children import Stopper
from tests.tracking.server import wandb_server

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(program: str) -> list[tuple[str, str]]:
    """The arguments of every indented line that starts a program, with their page."""
    return [
        (page.name, line.strip().removeprefix(program).split("  ")[0].strip())
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith(f"    {program} ") or line.rstrip() == f"    {program}"
    ]


ELSEWHERE = "model=llama"
"""Marks commands that need a model from the hub: they are composed only."""
COMMANDS = commands("python train.py") + [case for case in commands("lorasweep preview") if ELSEWHERE in case[1]]
STUDIES = {"studies.md": "first_best", "compare-trials.md": "ranks_best", "report.md": None, "reproduce.md": None}
"""Pages that are run as a whole, one command after the other, and the experiment that each of them makes, if any."""
WANDB = "wandb.md"
"""Run as a whole, too, against a server of W&B's protocol."""
MEMORY = "memory.md"
"""Run in tests/memory, where configs stand for the models of the hub."""
SCALE = "scale.md"
"""Run in tests/study/test_hosts.py, where there is a database."""
WHOLE = {*STUDIES, WANDB, MEMORY, SCALE}
RUNNABLE = [case for case in COMMANDS if "model=tiny" in case[1] and case[0] not in WHOLE]
AFTER = [case for case in commands("lorasweep") if ELSEWHERE not in case[1] and case[0] not in WHOLE]
NAMED = sorted(
    {match for page in PAGES for match in re.findall(r"lorasweep ([a-z-]+) (?:RUN|STUDY|outputs)", page.read_text())}
)


def test_the_pages_have_commands() -> None:
    assert len(PAGES) >= 5
    assert len(COMMANDS) >= 10
    assert len(RUNNABLE) >= 5
    assert len(AFTER) >= 8
    assert len(LAUNCHED) >= 2


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_every_command_composes(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT if "docs/" in line else tmp_path)
    Path(tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    line = re.sub(r"outputs/runs/<time>", str(tmp_path), line)
    if "experiment=saved" in line:
        claim(tmp_path, composed())
    if line.startswith("resume="):
        claim(tmp_path, composed())
        monkeypatch.setattr(sys, "argv", ["train.py"])
        assert compose.check_command_line(ROOT / "conf", shlex.split(line))
        return
    if any(experiment in line for experiment in STUDIES.values() if experiment):
        return  # written by the command before it; the page is run as a whole
    if "model.adapter" in line:
        (tmp_path / "adapter_config.json").write_text("{}")
    assert composed(*shlex.split(line)).model.name


@pytest.mark.parametrize("name", NAMED)
def test_every_command_that_is_named_exists(name: str) -> None:
    assert name in {item.name or getattr(item.callback, "__name__", "") for item in cli.app.registered_commands}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `outputs/runs/<time>` in the pages stands for."""
    folder = tmp_path_factory.mktemp("runs") / "2026-01-01_00-00-00_abcd"
    run = tiny("train.max_steps=4", "optim.lr=2e-2", "data.limit=40")
    assert train(run, Launch(folder, [])).state == "complete"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), RUNNABLE, ids=[line for _, line in RUNNABLE])
def test_every_command_on_the_tiny_model_runs(page: str, line: str, trained: Path, tmp_path: Path) -> None:
    line = line.replace("outputs/runs/<time>", str(trained))
    done = command(*shlex.split(line), f"hydra.run.dir={tmp_path}/run", "evaluation.max_new_tokens=4", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


LAUNCHERS = {"torchrun": "torch.distributed.run", "accelerate launch": "accelerate.commands.launch"}
LAUNCHED = [(LAUNCHERS[program], line) for program in LAUNCHERS for _, line in commands(program)]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "line"), LAUNCHED)
def test_every_command_that_starts_several_processes_runs(module: str, line: str, tmp_path: Path) -> None:
    options, overrides = line.split("train.py ")
    done = subprocess.run(
        [sys.executable, "-m", module, *shlex.split(options), str(ROOT / "train.py"), *shlex.split(overrides)],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert json.loads((folder / "record.json").read_text())["processes"]["count"] == 2


@pytest.mark.slow
def test_the_command_that_goes_on_runs(tmp_path: Path) -> None:
    (line,) = {line for _, line in COMMANDS if line.startswith("resume=")}
    folder = tmp_path / "2026-01-01_00-00-00_abcd"
    assert train(tiny("train.max_steps=4"), Launch(folder, []), Stopper(2)).state == "interrupted"
    done = command(*shlex.split(line.replace("outputs/runs/<time>", str(folder))), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "adapter" / "adapter_model.safetensors").exists()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the commands of a page run one after the other, the merged model of one there for the next."""
    place = tmp_path_factory.mktemp("workplace")
    shutil.copytree(ROOT / "docs", place / "docs")
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), AFTER, ids=[line for _, line in AFTER])
def test_every_command_on_a_trained_run_runs(page: str, line: str, trained: Path, workplace: Path) -> None:
    arguments = shlex.split(line.replace("outputs/runs/<time>", str(trained)))
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", *arguments],
        cwd=workplace, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if arguments[0] == "lm-eval":  # an extra that is not installed here: how to install it is all that can be checked
        assert done.returncode == 2
        assert "pip install -c constraints.txt -e '.[lm-eval]'" in done.stderr or "downloaded" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    if arguments[0] == "merge":
        assert json.loads((workplace / "merged" / "merge.json").read_text())["comparison"]["strength"] > 0.9


def lines_of(page: str) -> list[str]:
    """The commands of a page, in order."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [line.strip() for line in lines if line.startswith(("    python train.py", "    lorasweep"))]


def typed(line: str, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command of a page."""
    program, arguments = line.removeprefix("python ").split(" ", 1)
    start = ["-m", "lorasweep.cli"] if program == "lorasweep" else [str(ROOT / "train.py")]
    return subprocess.run(
        [sys.executable, *start, *shlex.split(arguments), *more],
        cwd=place, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400,
    )  # fmt: skip


@pytest.mark.slow
def test_the_commands_about_w_and_b_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_server() as server:
        for line in lines_of(WANDB):
            done = typed(line, tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            monkeypatch.setenv("WANDB_BASE_URL", server.url)  # the runs of the page are offline
            if "train.py -m" in line:
                monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert sorted(run.job_type or "" for run in server.runs.values()) == ["study", *["trial"] * 4]
    assert len(server.reports) == 1
    assert yaml.safe_load((tmp_path / "tracked_sweep.yaml").read_text())["method"] == "grid"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "experiment"), STUDIES.items())
def test_the_commands_about_studies_run_one_after_the_other(page: str, experiment: str | None, tmp_path: Path) -> None:
    lines = lines_of(page)
    promoted = ROOT / "conf" / "experiment" / f"{experiment}.yaml"
    assert not promoted.exists()
    assert len(lines) >= 4
    try:
        for line in lines:
            quick = ["model=tiny", "data.limit=60"] if line.endswith("lora.r=8,16,64") else []
            done = typed(line, tmp_path, *quick)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            if "confirm" in line:
                assert "wins" in done.stdout or "inside the noise" in done.stdout
    finally:
        promoted.unlink(missing_ok=True)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tree_of(checkout: Path) -> str:
    """Git's hash of all files of a checkout that it does not ignore."""
    git(checkout, "add", "--all")
    return git(checkout, "write-tree")


@pytest.mark.slow
def test_the_line_that_puts_the_code_of_a_run_back_does(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    (line,) = (line.strip() for line in page.splitlines() if line.startswith("    cd CHECKOUT"))
    first, other, run = (tmp_path / name for name in ("first", "other", "run"))
    for checkout in (first, other):
        git(tmp_path, "clone", "--quiet", "--shared", str(ROOT), str(checkout))
    shutil.copytree(ROOT / "src", first / "src", dirs_exist_ok=True)  # the code that is tested, committed or not
    with open(first / "src" / "lorasweep" / "chat.py", "a") as source:
        source.write("# changed  \n\n# für diesen Lauf, ohne Zeilenende")
    (first / "conf" / "optim" / "mine.yaml").write_text("name: adamw_torch\nlr: 2e-3\n")
    (first / "src" / "lorasweep" / "mine.py").write_text('"""Is not committed."""\n')
    done = subprocess.run(
        [sys.executable, "train.py", *TINY, "optim=mine", "train.max_steps=1", "data.limit=24", f"hydra.run.dir={run}"],
        cwd=first, env={**os.environ, "PYTHONPATH": f"{first}/src"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recorded = json.loads((run / "record.json").read_text())["git"]
    assert {"src/lorasweep/chat.py", "conf/optim/mine.yaml", "src/lorasweep/mine.py"} <= set(recorded["changed"])

    git(other, "rm", "--quiet", "README.md")
    git(other, "commit", "--quiet", "--message", "a later one")
    assert tree_of(other) != tree_of(first)
    words = {"CHECKOUT": str(other), "COMMIT": recorded["commit"], "RUN": str(run)}
    typed = re.sub("|".join(words), lambda word: shlex.quote(words[word[0]]), line)
    subprocess.run(["sh", "-c", typed], check=True, capture_output=True)
    assert tree_of(other) == tree_of(first)


@pytest.mark.parametrize("kind", [Entry, RunOverview, StudyOverview, Comparison])
def test_the_keys_of_the_json_are_documented(kind: type) -> None:
    page = (ROOT / "docs" / "compare-trials.md").read_text()
    module = inspect.getmodule(kind)
    assert module
    assert module.__file__
    place = Path(module.__file__).relative_to(ROOT / "src" / "lorasweep")
    (row,) = (line for line in page.splitlines() if f"(`{place}`)" in line)
    assert re.findall(r"`(\w+)`", row.split("|")[2]) == [field.name for field in fields(kind)]
