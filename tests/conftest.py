"""Fixtures: a cache of its own, no network, runs composed and trained as a user would."""

import copy
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("LORASWEEP_CACHE", tempfile.mkdtemp(prefix="lorasweep-tests-"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_API_KEY"] = ""
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # several processes with a thread per core each are ten times slower than with one
    )

import pytest
from hypothesis import settings

from lorasweep import compose, schema
from lorasweep.rules import Problem, UserError
from lorasweep.tracking import follower

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
gc.set_threshold(50_000, 20, 100)  # with the libraries loaded a collection walks millions of objects
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # ignored where a shell has started the tests in the background

follower.SECONDS_TO_FINISH = 300.0  # importing wandb alone took over 20 s on a busy machine

ROOT = Path(__file__).parents[1]
TINY = ("model=tiny", "data=demo", "tracking.wandb=disabled", "verbosity=quiet")


def composed(*overrides: str) -> schema.Run:
    """The run these overrides describe, checked as the command line is."""
    compose.register()
    return compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))


def problems(*overrides: str) -> list[Problem]:
    """What is wrong with these overrides."""
    with pytest.raises(UserError) as caught:
        composed(*overrides)
    return caught.value.problems


def tiny(*overrides: str) -> schema.Run:
    """A run of the tiny model on a few generated rows."""
    return copy.deepcopy(_tiny(overrides))


@functools.cache
def _tiny(overrides: tuple[str, ...]) -> schema.Run:
    """Composed once: it takes half a second."""
    return composed(*TINY, "data.limit=24", "evaluation.generate=0", *overrides)


def tokenised(
    rows: list[dict[str, Any]],
    data: schema.Data,
    tokenizer: Any,
    longest: int | None = None,
    empty: bool = False,
) -> Any:
    """A split of these rows; `empty` lets one pass in which nothing is learnt."""
    from datasets import Dataset

    from lorasweep.data import Source, kept_rows
    from lorasweep.data.encoding import encode

    source = Source(Dataset.from_list(rows), json.dumps(rows))
    split = kept_rows(encode(source, data, tokenizer, longest or data.max_length))
    assert empty or len(split.rows)
    return split


@pytest.fixture
def launched(tmp_path: Path) -> Callable[..., Path]:
    """Train a run in a folder of its own; the folder, for what it holds."""
    from lorasweep.record import Launch
    from lorasweep.run import train

    def start(run: schema.Run, name: str = "run", expect: str = "complete") -> Path:
        result = train(run, Launch(tmp_path / name, []))
        assert result.state == expect
        return result.folder

    return start


@pytest.fixture
def varlen_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have runs take torch's varlen attention on a CPU."""
    from lorasweep import attention
    from tests.varlen_reference import kernels_on_cpu

    monkeypatch.setattr(attention, "why_not_varlen", lambda model, device: None)
    with kernels_on_cpu():
        yield


def command(*arguments: str, cwd: Path, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python train.py …` as a user types it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
