"""A study of real runs, trained once."""

from pathlib import Path

import pytest

from tests.conftest import command

STUDY = (
    "-m", "study=real", "lora.r=4,8", "scheduler=constant,cosine", "model=tiny", "data.limit=24", "train.max_steps=3",
    "lora.dropout=0.1", "optim.lr=1e-2", "evaluation.times=2", "evaluation.generate=0", "tracking.wandb=disabled",
    "hydra.sweeper.slots=1",
)  # fmt: skip


@pytest.fixture(scope="session")
def real_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the study has run."""
    where = tmp_path_factory.mktemp("studies")
    done = command(*STUDY, cwd=where)
    assert done.returncode == 0, done.stdout + done.stderr
    return where
