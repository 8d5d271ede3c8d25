"""Bad input of every command: exit code 2, what is wrong in words, no traceback."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.after.conftest import Done

UNTRAINED = {"state": "out_of_memory"}
BAD = [
    (["evaluate", "nowhere"], "a run folder, which holds run.yaml"),
    (["chat", "nowhere"], "did you mean 'outputs/runs/nowhere_else'"),
    (["merge", "nowhere", "out"], "The latest in outputs/runs: nowhere_else"),
    (["push", "nowhere", "me/it"], "a run folder"),
    (["evaluate", "untrained"], "the state of this one is out_of_memory"),
    (["chat", "other_tool", "hi"], "this one holds an adapter or a model"),
    (["evaluate", "RUN", "--split", "tset"], "is not one of 'eval', 'test', 'train'"),
    (["evaluate", "RUN", "--data", "none.jsonl"], "does not exist"),
    (["evaluate", "RUN", "evaluation.generat=3"], "did you mean 'generate'"),
    (["evaluate", "RUN", "lora.r=3"], "the adapter is trained"),
    (["evaluate", "RUN", "model.shape.hidden_size=128"], "one of the same sizes"),
    (["evaluate", "RUN", "--max-samples", "0"], "greater than or equal to 1"),
    (["chat", "RUN", "  "], "a conversation begins"),
    (["chat", "RUN", "word " * 5000], "the model's context"),
    (["chat", "RUN", "hi", "--temperature", "-1"], "greater than or equal to 0"),
    (["merge", "RUN", "untrained"], "this one exists"),
    (["merge", "RUN", "file/out"], "cannot be written"),
    (["merge", "RUN", "out", "--dtype", "int8"], "bfloat16"),
    (["push", "RUN", "a/b/c", "--dry-run"], "owner/name on the hub"),
    (["push", "RUN", "me/it", "--merged", "other_tool", "--dry-run"], "lorasweep merge has written"),
    (["push", "RUN", "me/it", "--to", "there"], "with --dry-run only"),
    (["push", "RUN", "me/it", "--dry-run", "--to", "untrained"], "this one exists"),
    (["push", "RUN", "me/it"], "HF_HUB_OFFLINE"),
    (["lm-eval", "RUN", "--tasks", "x", "--include-path", "nowhere"], "an existing folder with task files"),
    (["lm-eval", "RUN", "--tasks", "arc_easy"], "pip install -c constraints.txt -e '.[lm-eval]'"),
    (["lm-eval", "RUN"], "Missing option '--tasks'"),
    (["evaluat", "RUN"], "No such command"),
]  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run without an adapter, a folder of another tool, a file and some runs."""
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "file").write_text("")
    for name in ("untrained", "outputs/runs/nowhere_else"):
        (place / name / "experiment").mkdir(parents=True)
        (place / name / "run.yaml").write_text("{}")
        (place / name / "experiment" / "saved.yaml").write_text("{}")
        (place / name / "summary.json").write_text(json.dumps(UNTRAINED))
    (place / "other_tool").mkdir()
    (place / "other_tool" / "adapter_config.json").write_text("{}")
    return place


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(case[0])[:40] for case in BAD])
def test_bad_input_is_said_without_a_traceback(
    arguments: list[str], words: str, run: Path, elsewhere: Path, lorasweep: Callable[..., Done]
) -> None:
    done = lorasweep(*[str(run) if item == "RUN" else item for item in arguments], cwd=elsewhere)
    assert done.code == 2, done
    assert words in re.sub(r"[\s│]+", " ", done.err)
    assert not (elsewhere / "out").exists()


@pytest.mark.slow
def test_warnings_and_help_of_a_real_process(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", "evaluate", str(run), "--json", "evaluation.generate=0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 8
    assert done.stderr == ""
