"""The command push: the adapter, or the merged model, with its card on the Hugging Face hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep import results, saved
from lorasweep.card import Card, hub_base, is_path
from lorasweep.file_hashes import file_hash
from lorasweep.public_record import public_numbers, public_record
from lorasweep.record import literal, write_json
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.versions import versioned

WEIGHTS = "adapter_model.safetensors"
PUBLIC_SUMMARY = (
    "eval/",
    "last/",
    "untuned/",
    "objective",
    "steps",
    "tokens/",
    "adapter/",
    "state",
    "train/",
    "digests",
)


def write_upload(run: Run, folder: Path, repo: str, merged: Path | None, target: Path) -> None:
    """Fill `target` with exactly what is pushed: no path of this machine, nothing of accounts."""
    source = merged or saved.kept_adapter(folder)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("README.md", "*.bin", "*.pt", "*.pth", ".*"))
    summary, record = (results.read_json(folder / name) for name in ("summary.json", "record.json"))
    if not merged:
        _without_local_base(target / "adapter_config.json", run)
    public = {name: value for name, value in summary.items() if name.startswith(PUBLIC_SUMMARY)}
    write_json(target / "summary.json", public)
    recorded = saved.as_recorded(folder)
    values = _without_paths(asdict(recorded))
    _write_yaml(target / "run.yaml", versioned(literal(values)))
    write_json(target / "record.json", public_record(record, values))
    lines = public_numbers(results.read_lines(folder / "metrics.jsonl"))
    (target / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    experiment = {name: value for name, value in literal(values).items() if name != "study"}
    _write_yaml(target / "experiment" / "saved.yaml", experiment, "# @package _global_\n")
    recorded.model.revision = run.model.revision
    card = Card(recorded, summary, record, repo, merged is not None)
    (target / "README.md").write_text(card.text(), encoding="utf-8")


def _write_yaml(path: Path, values: Any, header: str = "") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def dry_run(run: Run, folder: Path, repo: str, merged: Path | None, target: Path) -> None:
    """Write what would be pushed into a new folder and list it."""
    check_repo(repo)
    check_merged(merged, folder)
    if target.exists():
        raise UserError(Problem("--to", str(target), "a new folder; this one exists"))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_upload(run, folder, repo, merged, target)
    _list(target, f"would be pushed to {repo}, from {target}")


def push(run: Run, folder: Path, repo: str, merged: Path | None, private: bool) -> None:
    """Push to the hub; what is missing for it is said before anything is written or sent."""
    check_repo(repo)
    check_merged(merged, folder)
    api = _logged_in()
    with tempfile.TemporaryDirectory() as place, _hub_errors(repo):
        target = Path(place) / "upload"
        write_upload(run, folder, repo, merged, target)
        created = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=created.repo_id, folder_path=target, commit_message="Push a lorasweep run")
        _list(target, f"pushed to {created.url}, {'private' if private else 'public'} if it is new")


def check_repo(repo: str) -> None:
    """Raise UserError for what the hub takes for no repository."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        allowed = f"owner/name on the hub ({str(error).splitlines()[0]})"
        raise UserError(Problem("REPO", repo, allowed)) from None


def check_merged(merged: Path | None, folder: Path) -> None:
    """Raise UserError unless `merged` was merged from the adapter of this run."""
    if merged is None:
        return
    facts = results.read_json(merged / "merge.json")
    if not facts:
        raise UserError(Problem("--merged", str(merged), "a folder that lorasweep merge has written"))
    if facts["adapter"]["sha256"] != file_hash(saved.kept_adapter(folder) / WEIGHTS):
        allowed = f"a model merged from this run; this one was merged from {facts['adapter']['run']}"
        raise UserError(Problem("--merged", str(merged), allowed))


def _logged_in() -> HfApi:
    if constants.HF_HUB_OFFLINE:
        raise UserError(Problem("HF_HUB_OFFLINE", "1", "unset: pushing needs the hub; --dry-run does not"))
    if not get_token():
        allowed = "a token that may write: hf auth login, or the environment variable HF_TOKEN; --dry-run needs none"
        raise UserError(Problem("HF_TOKEN", None, allowed))
    api = HfApi()
    with _hub_errors("the hub"):
        api.whoami()
    return api


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turn what the hub's client raises into a user's error."""
    try:
        yield
    except UserError:
        raise
    except HfHubHTTPError as error:
        allowed = f"a repository this token may write to; the hub answered: {str(error).strip().splitlines()[0]}"
        raise UserError(Problem("REPO", what, allowed)) from error
    except Exception as error:  # of whichever HTTP library the hub's client uses
        allowed = f"a hub that can be reached ({type(error).__name__}); --dry-run works without"
        raise UserError(Problem("REPO", what, allowed)) from error


def _without_local_base(config: Path, run: Run) -> None:
    """Name the base as the hub does, or not at all: what PEFT writes there may be a folder of this machine."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values |= {"base_model_name_or_path": hub_base(run), "revision": run.model.revision if hub_base(run) else None}
    write_json(config, values)


def _without_paths(values: Any) -> Any:
    """Leave of every path in the values its last part, and out who is logged in where."""
    data, model = values["data"], values["model"]
    for name in ("files", "eval_files", "test_files"):
        given = data[name]
        data[name] = [Path(path).name for path in given] if isinstance(given, list) else given and Path(given).name
    for name in ("name", "tokenizer", "adapter", "chat_template"):
        if model[name] and is_path(model[name]):
            model[name] = Path(model[name]).name
    values["tracking"]["entity"] = None
    return values


def _list(target: Path, words: str) -> None:
    console = Console(highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        table.add_row(Text(str(path.relative_to(target))), f"{path.stat().st_size:,} bytes")
    console.print(table)
    console.print(Text(words))
