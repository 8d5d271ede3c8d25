"""A W&B server on the loopback interface: takes what wandb 0.31 sends, keeps it as W&B would, and fails to order.

What it answers is what wandb's own client asks for; that a real server keeps the same is not shown by it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"
HISTORY = "wandb-history.jsonl"


@dataclass
class Kept:
    """A run as the server has it."""

    id: str
    project: str
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Of every streamed file its lines."""
    files: set[str] = field(default_factory=set)
    exit_code: int | None = None
    """None while the run goes on."""
    opened: int = 0
    """How often a process began to write it."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows."""
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    def metric(self, name: str) -> list[tuple[int, Any]]:
        """The steps and values of a metric."""
        return [(row["_step"], row[name]) for row in self.history if name in row]


class WandbServer:
    """The state of the server and what is wrong with it."""

    def __init__(self) -> None:
        self.runs: dict[str, Kept] = {}
        self.requests: list[str] = []
        self.artifacts: list[dict[str, Any]] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.delay = 0.0
        """Seconds that every answer takes."""
        self.refuses: int | None = None
        """The HTTP status that everything is answered with."""
        self.dies_after: int | None = None
        """Rows of history after which nothing is answered any more."""
        self.hangs_at_finish = False
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What GraphQL is answered with."""
        asked = re.search(r"(?:query|mutation) (\w+)", query)
        name = asked[1] if asked else query[:40]
        with self.lock:
            self.requests.append(name)
            handler = getattr(self, f"on_{name}", None)
            return handler(variables) if handler else {}

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {
            "id": "u",
            "entity": ENTITY,
            "username": ENTITY,
            "email": "a@b",
            "flags": "{}",
            "teams": {"edges": []},
        }
        return {"viewer": viewer}

    on_GetDefaultEntity = on_Viewer

    def on_RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(asked["name"])
        bucket = None
        if run:
            events, logs = run.lines.get("wandb-events.jsonl", []), run.lines.get("output.log", [])
            history = run.lines.get(HISTORY, [])
            bucket = {
                "id": f"bucket-{run.id}", "name": run.id, "summaryMetrics": json.dumps(run.summary),
                "displayName": run.name, "logLineCount": len(logs), "historyLineCount": len(history),
                "eventsLineCount": len(events), "historyTail": json.dumps(history[-1:]),
                "eventsTail": json.dumps(events[-1:]), "config": json.dumps(run.config), "tags": run.tags, "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }  # fmt: skip
        return {"model": {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": bucket}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], Kept(given["name"], given.get("project") or "uncategorized"))
        run.name = given.get("displayName") or run.name
        run.group = given.get("groupName") or run.group
        run.job_type = given.get("jobType") or run.job_type
        run.tags = run.tags if given.get("tags") is None else given["tags"]
        if given.get("config"):
            run.config = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run.summary |= json.loads(given["summaryMetrics"])
        project = {"id": "p", "name": run.project, "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": f"bucket-{run.id}", "name": run.id, "displayName": run.name, "description": None,
            "config": json.dumps(run.config), "sweepName": None, "project": project,
            "historyLineCount": len(run.lines.get(HISTORY, [])),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["run"]]
        run.files |= set(given["files"])
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{run.id}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": f"bucket-{run.id}", "uploadHeaders": [], "files": files}}

    def on_RunStoppedStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def on_ArtifactType(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(given["input"])
        state = {"id": f"artifact-{len(self.artifacts)}", "digest": given["input"].get("digest"), "state": "PENDING"}
        sequence = {"id": "s", "latestArtifact": None}
        return {"createArtifact": {"artifact": {**state, "artifactSequence": sequence}}}

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifest", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": item["name"], "uploadUrl": f"{self.url}/upload/artifact/{item['name']}",
                "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": item["artifactID"]},
            }
            for item in given["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def on_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        names = sorted({run.project for run in self.runs.values()})
        nodes = [
            {
                "id": name,
                "name": name,
                "entityName": ENTITY,
                "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False,
                "user": None,
            }
            for name in names
        ]
        edges = [{"node": node, "cursor": node["id"]} for node in nodes]
        return {"models": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def on_ProjectInternalId(self, given: dict[str, Any]) -> dict[str, Any]:
        known = any(run.project == given["projectName"] for run in self.runs.values())
        return {"project": {"id": "p", "internalId": "1"} if known else None}

    def on_upsertView(self, given: dict[str, Any]) -> dict[str, Any]:
        id = given.get("id") or f"report{len(self.reports)}"
        self.reports[id] = given
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        view = {
            "id": id, "type": given["type"], "name": given["name"], "displayName": given["displayName"],
            "description": given["description"], "project": project, "spec": given["spec"],
            "updatedAt": "2026-01-01T00:00:00",
        }  # fmt: skip
        return {"upsertView": {"view": view, "inserted": True}}

    def stream(self, id: str, sent: dict[str, Any]) -> None:
        """Take in lines of a run's files, each at its offset; a summary is one line, the last one."""
        with self.lock:
            run = self.runs[id]
            for name, part in sent.get("files", {}).items():
                lines = run.lines.setdefault(name, [])
                lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
                if name == "wandb-summary.json":
                    run.summary = json.loads(part["content"][-1])
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")
            elif sent.get("files"):
                run.exit_code = None

    @property
    def is_dead(self) -> bool:
        """Whether it has seen enough rows to die."""
        if self.dies_after is None:
            return False
        return sum(len(run.lines.get(HISTORY, [])) for run in self.runs.values()) >= self.dies_after


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for a `WandbServer`."""

    state: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.fails():
            return
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            self.reply({"data": self.state.answer(asked["query"], asked.get("variables") or {})})
        elif self.path.endswith("/file_stream"):
            sent = json.loads(body)
            if sent.get("complete") and self.state.hangs_at_finish:
                self.state.closing.wait()
                return
            self.state.stream(self.path.split("/")[-2], sent)
            self.reply({})
        else:
            self.reply({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.fails():
            self.reply({})

    def do_GET(self) -> None:
        if not self.fails():
            self.reply({})

    def fails(self) -> bool:
        """Do what is wrong with the server; whether that was the answer."""
        if self.state.is_dead:
            self.close_connection = True
            self.connection.close()
            return True
        self.state.closing.wait(self.state.delay)
        if self.state.refuses:
            self.reply({"errors": [{"message": "refused"}]}, self.state.refuses)
        return bool(self.state.refuses)

    def reply(self, values: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(values).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class Http(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve until the end of the block."""
    state = WandbServer()
    handler = type("Bound", (Handler,), {"state": state})
    with Http(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            http.shutdown()
            thread.join()


if __name__ == "__main__":
    with wandb_server() as served:
        print(served.url, flush=True)
        seen = 0
        while True:
            time.sleep(0.2)
            for name in served.requests[seen:]:
                print(name, flush=True)
            seen = len(served.requests)
