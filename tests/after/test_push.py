"""push: exactly what is shown, nothing of this machine, code that works, errors before anything is sent."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import yaml

from lorasweep import push, saved
from lorasweep.card import Card
from lorasweep.merge import merge
from lorasweep.rules import UserError
from lorasweep.schema import Data
from tests.after.conftest import Done, summary_of, trained
from tests.conftest import composed


@pytest.fixture(scope="module")
def merged(run: Path) -> Path:
    """The run's merged model."""
    merge(saved.open_run(run), run, run.parent / "merged", None)
    return run.parent / "merged"


def metadata(folder: Path) -> dict[str, Any]:
    values = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert isinstance(values, dict)
    return values


def test_a_dry_run_writes_and_lists_what_would_be_pushed(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("push", str(run), "me/it", "--dry-run", "--to", "upload")
    files = {str(path.relative_to("upload")) for path in Path("upload").rglob("*") if path.is_file()}
    assert done.code == 0
    assert {"README.md", "adapter_model.safetensors", "tokenizer.json", "run.yaml", "summary.json"} <= files
    assert all(name in done.out for name in files)
    found = metadata(Path("upload"))
    assert (found["library_name"], found["pipeline_tag"]) == ("peft", "text-generation")
    assert "base_model" not in found
    assert "not a repository on the hub" in Path("upload/README.md").read_text()
    summary = summary_of(run)
    assert (
        f"| {summary['untuned/eval/loss']:.4f} | {summary['eval/loss']:.4f} |" in Path("upload/README.md").read_text()
    )


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_the_code_of_the_card_works(what: str, run: Path, merged: Path, tmp_path: Path) -> None:
    target = tmp_path / "upload"
    push.dry_run(saved.open_run(run), run, "me/it", merged if what == "merged" else None, target)
    code = re.search(r"```python\n(.*?)```", (target / "README.md").read_text(), re.DOTALL)
    assert code
    exec(code[1].replace('"me/it"', repr(str(target))), {})


def test_the_pushed_config_trains_the_same_run(run: Path, tmp_path: Path) -> None:
    push.dry_run(saved.open_run(run), run, "me/it", None, tmp_path / "it")
    again = composed(f"--config-dir={tmp_path}/it", "experiment=saved")
    assert again == saved.as_recorded(run)


def test_nothing_that_is_pushed_names_this_machine(
    run: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = saved.as_recorded(run)
    recorded.data = Data(source="files", files=["/home/me/secret place/rows.jsonl"], eval_files="/home/me/held.jsonl")
    recorded.model.chat_template, recorded.tracking.entity = "/home/me/mine.jinja", "my-team"
    monkeypatch.setattr(saved, "as_recorded", lambda folder: recorded)
    for name, place in (("adapter", None), ("merged", merged)):
        push.dry_run(saved.open_run(run), run, "me/it", place, tmp_path / name)
        for path in (tmp_path / name).rglob("*.*"):
            text = path.read_bytes()
            for word in (b"/home/me", b"secret place", b"my-team", str(tmp_path).encode(), str(run.parent).encode()):
                assert word not in text, path
            assert str(Path.home()).encode() + b"/" not in text, path
        assert yaml.safe_load((tmp_path / name / "run.yaml").read_text())["data"]["files"] == ["rows.jsonl"]


def test_a_card_names_base_and_data_of_the_hub() -> None:
    run = composed("model=llama2_7b_chat", "data=alpaca", "model.revision=abc")
    text = Card(run, {}, {}, "me/it", merged=False).text()
    values = yaml.safe_load(text.split("---\n")[1])
    assert values["base_model"] == "NousResearch/Llama-2-7b-chat-hf"
    assert values["datasets"] == ["yahma/alpaca-cleaned"]
    assert 'from_pretrained("NousResearch/Llama-2-7b-chat-hf", revision="abc"' in text
    assert "nothing was evaluated" in text


def test_only_what_was_merged_from_the_run_is_pushed_as_it(run: Path, merged: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other")
    with pytest.raises(UserError, match="a model merged from this run"):
        push.dry_run(saved.open_run(other), other, "me/it", merged, tmp_path / "upload")
    assert not (tmp_path / "upload").exists()


@pytest.mark.parametrize(("environment", "words"), [
    ({}, "hf auth login"), ({"HF_TOKEN": "hf_nothing", "HF_ENDPOINT": "http://127.0.0.1:9"}, "can be reached"),
])  # fmt: skip
def test_pushing_without_token_or_network_is_said_before_anything_is_sent(
    environment: dict[str, str], words: str, run: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", "push", str(run), "me/it"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push needs, keeping what it is sent."""

    asked: ClassVar[list[tuple[str, Any]]] = []

    def do_GET(self) -> None:
        self._answer({"type": "user", "name": "me", "auth": {}, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = b"".join(iter(self._chunk, b"")) if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        sent = [json.loads(line) for line in body.splitlines()]
        self.asked.append((self.path, sent))
        host = f"http://{self.headers['Host']}"
        files = [
            {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False} for item in sent[0].get("files", [])
        ]
        self._answer({"url": f"{host}/me/it", "name": "me/it", "files": files, "commitUrl": f"{host}/me/it/commit/1",
                      "commitOid": "1" * 40})  # fmt: skip

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _answer(self, values: dict[str, Any]) -> None:
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def test_a_push_sends_what_a_dry_run_shows_into_a_private_repository(run: Path, tmp_path: Path) -> None:
    Hub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    environment = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_nothing", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", "push", str(run), "me/it"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"},
    )  # fmt: skip
    server.shutdown()
    assert done.returncode == 0, done.stderr
    push.dry_run(saved.open_run(run), run, "me/it", None, tmp_path / "shown")
    shown = {str(path.relative_to(tmp_path / "shown")) for path in (tmp_path / "shown").rglob("*") if path.is_file()}
    created = next(sent[0] for path, sent in Hub.asked if path == "/api/repos/create")
    assert created["visibility"] == "private"
    commit = next(sent for path, sent in Hub.asked if "/commit/" in path)
    assert {item["value"]["path"] for item in commit if item["key"] == "file"} == shown
