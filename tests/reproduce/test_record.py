"""The record of a run: complete, written before the first step, read from then on, and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lorasweep import checkout, digests, environment, file_hashes, input_files, record, redaction, versions
from lorasweep.lean_trainer import LeanTrainer
from lorasweep.model import build_tokenizer
from lorasweep.record import Launch
from lorasweep.results import read_json, read_results
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Data
from lorasweep.tokens import TokenCounter
from tests.conftest import composed, problems, tiny
from tests.reproduce.conftest import Recorded

SECRETS = {
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary01", "WANDB_API_KEY": "canary0123456789canary0123456789canary02",
    "MY_PASSWORD": "canary-password-03", "AWS_SECRET_ACCESS_KEY": "canaryAWS/04+secret",
}  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with a commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "begin")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout


def state_of(folder: Path) -> checkout.Checkout:
    state = checkout.checkout.__wrapped__(folder)
    assert state
    return state


def test_everything_that_reproduces_a_run_is_recorded(recorded: Recorded) -> None:
    known = recorded.record()
    for path in [
        "config/sha256",
        "config/values/optim/lr",
        "config/schema_version",
        "overrides",
        "command",
        "choices",
        "lineage",
        "seeds/rule",
        "git",
        "code",
        "constraints",
        "python",
        "platform",
        "packages/torch",
        "environment/libc",
        "environment/build",
        "environment/variables",
        "hardware/processor",
        "hardware/instructions",
        "data/files",
        "data/splits/train/sha256",
        "data/splits/train/rows_sha256",
        "data/splits/train/dropped",
        "model/sha256/model.safetensors",
        "tokenizer/sha256",
        "tokenizer/chat_template",
        "tokenizer/special/eos_token",
        "device/threads",
        "device/precision",
        "numerics/attention",
        "numerics/deterministic_algorithms",
        "numerics/dtypes",
        "numerics/adapter_dtypes",
        "numerics/cpu_capability",
        "numerics/tf32",
        "numerics/padding_free",
        "numerics/compiled",
        "start",
    ]:
        place: Any = known
        for part in path.split("/"):
            assert part in place, path
            place = place[part]
    assert known["config"]["sha256"] == record.values_hash(known["config"]["values"])
    assert set(read_json(recorded.folder / "summary.json")["digests"]) == {
        "adapter", "order", "parameters", "optimizer", "optimizer_dtypes",
    }  # fmt: skip


def test_the_record_is_whole_before_the_first_step_and_only_read_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    original = LeanTrainer.training_step

    def watched(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(read_json(tmp_path / "run" / "record.json"))
        loss: torch.Tensor = original(self, *arguments, **options)
        return loss

    monkeypatch.setattr(LeanTrainer, "training_step", watched)
    train(tiny("train.max_steps=2"), Launch(tmp_path / "run", []))
    assert {"numerics", "start"} <= seen[0].keys()
    assert seen[0] == seen[-1] == read_json(tmp_path / "run" / "record.json")
    assert (tmp_path / "run" / "record.json").stat().st_mode & 0o222 == 0


def test_what_is_known_without_loading_is_what_is_recorded(recorded: Recorded) -> None:
    for given in (tiny(), composed("model=smollm2_135m"), read_results(recorded.folder).run):
        facts = input_files.tokenizer_facts(given.model)
        template = build_tokenizer(given.model).chat_template
        assert isinstance(template, str)
        assert input_files.chat_template(given.model) == template
        assert facts["sha256"]


def test_changes_of_the_checkout_are_kept_with_untracked_source(repository: Path, tmp_path: Path) -> None:
    assert state_of(repository).facts()["diff"] == "none"
    (repository / "code.py").write_text("a = 2\n")
    (repository / "more.py").write_text("b = 3\n")
    (repository / "ignored.py").write_text("c = 4\n")
    (repository / "rows.jsonl").write_text("{}\n")
    state = state_of(repository)
    assert state.changed == ("code.py", "more.py", "rows.jsonl")
    assert "+a = 2" in state.patch
    assert "+b = 3" in state.patch
    assert "ignored.py" not in state.patch
    assert "rows.jsonl" not in state.patch
    assert git(repository, "status", "--porcelain").splitlines() == [" M code.py", "?? more.py", "?? rows.jsonl"]
    (repository / "more.py").write_text("b = 5\n")
    assert state_of(repository).diff != state.diff


def test_source_of_any_encoding_is_kept_byte_by_byte(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (repository / "code.py").write_bytes(b"a = 'caf\xe9'\n")
    (repository / "more.py").write_bytes(b"# \xff\n")
    folder, state = tmp_path_factory.mktemp("run"), state_of(repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "checkout", lambda: state)
        record.write_patch(folder)
    git(repository, "stash", "-u", "-q")
    git(repository, "apply", str(folder / record.PATCH))
    assert (repository / "code.py").read_bytes() == b"a = 'caf\xe9'\n"
    assert (repository / "more.py").read_bytes() == b"# \xff\n"


def test_changes_that_git_does_not_tell_are_unknown_and_not_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "code.py").write_text("a = 2\n")
    real = checkout._git

    def failing(folder: Path, *arguments: str, index: Path | None = None) -> str:
        if arguments[0] == "diff":
            raise checkout.GitFailed("git diff: TimeoutExpired")
        return real(folder, *arguments, index=index)

    monkeypatch.setattr(checkout, "_git", failing)
    assert state_of(repository).facts()["diff"] == "unknown: git diff: TimeoutExpired"


@pytest.mark.parametrize(
    "line",
    [
        "password: canary1", "+password: correct-horse-canary", 'db_pass = "canary"', 'OPENAI_KEY="canary123def456ghi7"',
        'api_key="canary1"', "Authorization: Bearer canary1234", "AIza" + "canary0" * 5, "auth_token = 'canary words'",
        "https://canary0123456789ab@host/me/it", '{"password": "canary"}', "smtp-pwd=canary-pwd",
        "postgresql://host/db?user=me&password=canary&sslmode=require",
    ],
)  # fmt: skip
def test_what_is_called_a_secret_is_left_out_of_patches(line: str) -> None:
    assert "canary" not in redaction.redacted(line)


@pytest.mark.parametrize(
    "line",
    [
        "    password = get_password()", "    api_key = settings.api_key", "connect(password=password,", "f(password=password",
        "tokenizer: gpt2-medium", 'pad_token: "<pad>"', 'key = "lora.alpha"', "def f(password: str) -> None:",
        "api_key: str | None = None", "postgresql://user@host/db", 'secret = os.environ["X"]', "max_new_tokens: 1600000",
        'if secret == "abcdefgh": pass', "access_token = token_of(x)",
    ],
)  # fmt: skip
def test_code_that_names_secrets_is_left_as_it_is(line: str) -> None:
    assert redaction.redacted(line) == line


def test_the_changes_can_be_put_back_on_the_commit(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (repository / "code.py").write_text("a = 2\n")
    (repository / "more.py").write_text("b = 3\n")
    patch = tmp_path_factory.mktemp("other") / "code.patch"
    patch.write_text(state_of(repository).patch)
    git(repository, "stash", "-u", "-q")
    git(repository, "apply", str(patch))
    assert (repository / "code.py").read_text() == "a = 2\n"
    assert (repository / "more.py").read_text() == "b = 3\n"


def test_no_secret_is_in_anything_that_a_run_writes(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_SECRET_TOKEN", "canary-in-a-known-prefix-05")
    monkeypatch.setenv("TORCH_HOME", "https://me:canary-url-06@host/x")
    (repository / "mine.py").write_text(
        f'TOKEN = "{SECRETS["HF_TOKEN"]}"\napi_key = "canary07abcdefghijkl"\nurl = "https://me:canary-08@host"\n'
        'key = """-----BEGIN PRIVATE KEY-----\ncanary09\n-----END PRIVATE KEY-----"""\n'
    )
    state = state_of(repository)
    monkeypatch.setattr(record, "checkout", lambda: state)
    monkeypatch.setattr(
        sys, "argv", ["train.py", f"tracking.tags=[{SECRETS['MY_PASSWORD']}]", "x=hf_canaryUnknown0123456789"]
    )
    overrides = [f"name={SECRETS['WANDB_API_KEY']}", "storage=postgresql://me:canary-10@host/db"]
    run = tiny("train.max_steps=1", "evaluation.untuned=false")
    run.name = "mine"
    assert train(run, Launch(tmp_path / "run", overrides)).state == "complete"
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"canary" not in content.lower(), path
    assert "+api_key" in (tmp_path / "run" / "code.patch").read_text(), "all else is kept"


@pytest.mark.parametrize(
    "override",
    ["data.path=https://me:canary-password@host/rows", "tracking.tags=[a,hf_canaryCanaryCanaryCanary]",
     "model.name=canary-password-03", "'data.template_kwargs={key:sk-canarycanarycanary0123}'"],
)  # fmt: skip
def test_a_secret_in_a_config_is_refused_and_not_shown(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", SECRETS["MY_PASSWORD"])
    (problem,) = problems("model=tiny", override.strip("'"))
    assert "a value that is no secret" in problem.allowed
    assert "canary" not in str(replace_source(problem))


def replace_source(problem: Any) -> str:
    return f"{problem.key} {problem.value} {problem.allowed}"


@pytest.mark.parametrize(
    "text", ["lora.r=8", "train.tokens_per_step=4000", "data.path=yahma/alpaca-cleaned", "eos_token = '<|im_end|>'",
             "tokenizer=AutoTokenizer.from_pretrained(name)", "0" * 40, "https://host/path@v1", "model.name=sk-learn/x"],
)  # fmt: skip
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert redaction.redacted(text) == text


def test_only_variables_that_libraries_read_are_recorded() -> None:
    known = environment.variables({"OMP_NUM_THREADS": "2", "HOME": "/me", "CUDA_API_KEY": "x", "NCCL_DEBUG": "INFO"})
    assert known == {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "2"}


def test_the_hash_of_a_large_file_is_looked_up_until_the_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "WORTH_KEEPING", 4)
    monkeypatch.setattr(file_hashes, "SECONDS_TO_SETTLE", -1.0)
    path, computed = tmp_path / "weights", []
    original = file_hashes._computed
    monkeypatch.setattr(file_hashes, "_computed", lambda given: computed.append(given) or original(given))
    path.write_bytes(b"one two")
    stat = path.stat()
    first = file_hashes.file_hash(path)
    assert file_hashes.file_hash(path) == first
    assert len(computed) == 1
    until = time.monotonic() + 60
    while time.monotonic() < until:  # a tick of the file system's clock
        path.write_bytes(b"one owt")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if path.stat().st_ctime_ns != stat.st_ctime_ns:
            break
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert file_hashes.file_hash(path) != first


def test_a_file_that_has_just_changed_is_not_trusted_to_keep_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "WORTH_KEEPING", 4)
    monkeypatch.setattr(file_hashes, "SECONDS_TO_SETTLE", 3600.0)
    (tmp_path / "weights").write_bytes(b"one two")
    file_hashes.file_hash(tmp_path / "weights")
    assert not (tmp_path / "cache").exists()


def test_the_digest_of_an_adapter_is_of_its_tensors(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "one.safetensors")
    save_file(dict(reversed(tensors.items())), tmp_path / "two.safetensors", metadata={"format": "pt"})
    save_file({**tensors, "a": torch.zeros(4, dtype=torch.float16)}, tmp_path / "three.safetensors")
    one, two, three = (digests.adapter_digest(tmp_path / f"{name}.safetensors") for name in ("one", "two", "three"))
    assert one == two != three
    assert digests.adapter_digest(tmp_path / "none.safetensors") is None


def test_the_hash_of_the_order_tells_every_batch_token_and_place_apart() -> None:
    ids = torch.arange(24).reshape(2, 12)
    batches = {
        "as it is": [ids, ids + 1], "other order": [ids + 1, ids], "rows swapped": [ids.flip(0), ids + 1],
        "other shape": [ids.reshape(3, 8), ids + 1], "one token": [ids.clone().index_put_((torch.tensor(0),) * 2, torch.tensor(9)), ids + 1],
        "one batch": [ids],
    }  # fmt: skip
    found = {name: order_of(given) for name, given in batches.items()}
    assert len(set(found.values())) == len(found) - 1, "the same tokens in another shape are the same tokens"
    assert order_of([ids, ids + 1]) == found["as it is"]
    assert order_of([ids, ids + 1], labels=0) != found["as it is"]


def order_of(batches: list[torch.Tensor], labels: int = -100) -> str:
    model = torch.nn.Linear(1, 1).train()
    model.forward = lambda **inputs: None  # type: ignore[method-assign]
    counter = TokenCounter(model)
    for ids in batches:
        model(input_ids=ids, labels=torch.full_like(ids, labels))
    return counter.order


def test_files_of_the_data_are_hashed_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    assert len(input_files.data_files(Data(source="files", files=f"{tmp_path}/*.jsonl"))) == 1


def test_a_config_of_a_newer_schema_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    path = run.folder / "run.yaml"
    assert path.read_text().startswith("schema_version: 1\n")
    path.write_text(path.read_text().replace("schema_version: 1", "schema_version: 2"))
    with pytest.raises(UserError, match="1 or less: a newer lorasweep has written"):
        read_results(run.folder)


def test_a_config_of_an_older_schema_is_read_as_what_it_meant(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "optim": {{"learning_rate": "lr"}.get(k, k): v for k, v in values["optim"].items()}}

    run = recorded.copied(tmp_path / "run")
    path = run.folder / "run.yaml"
    path.write_text(path.read_text().replace("  lr: 0.02", "  learning_rate: 0.03").replace("schema_version: 1\n", ""))
    monkeypatch.setattr(versions, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(versions.MIGRATIONS, 1, renamed)
    assert run.drift() == ["optim.lr"]
    assert read_results(run.folder).run.optim.lr == 0.03


def test_an_option_that_is_gone_is_named(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    path = run.folder / "run.yaml"
    path.write_text(path.read_text().replace("  weight_decay:", "  momentum_decay: 0.1\n  weight_decay:"))
    with pytest.raises(UserError, match=r"optim.momentum_decay = 0.1\n  no such key in 'optim'"):
        run.drift()


def test_hydra_configs_of_the_record_say_which_files_were_taken(tmp_path: Path) -> None:
    written = json.loads(json.dumps(record.build_record(Launch(tmp_path, [], {"lora": "qlora"}), tiny(), {})))
    assert written["choices"] == {"lora": "qlora"}
    assert written["seeds"]["seed"] == 42
