"""The report that is saved at W&B: what is on it, and that it stays one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorasweep.cli import wandb as commands
from lorasweep.rules import UserError
from lorasweep.tracking.saved_report import save_report
from tests.tracking.recording import session
from tests.tracking.server import WandbServer


@pytest.mark.slow
def test_a_report_has_the_plots_of_its_study_and_is_brought_up_to_date(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    session(folder, wandb="online", n_trials=2)
    url = save_report(folder, None)
    assert url == f"{server.url}/someone/toys/reports/lorasweep:-first--report0"
    session(folder, wandb="online", n_trials=3)
    assert save_report(folder, None) == url
    (report,) = server.reports.values()
    assert report["displayName"] == "lorasweep: first"
    assert report["description"].startswith("best: trial ")
    blocks = json.loads(report["spec"])["blocks"]
    table = next(block["content"] for block in blocks if block["type"] == "markdown-block")
    assert len(table.splitlines()) == 5
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    filters = grids[0]["runSets"][0]["filters"]["filters"]
    assert [(item["key"]["name"], item["op"], item["value"]) for item in filters] == [
        ("group", "=", "first"), ("jobType", "!=", "study"),
    ]  # fmt: skip
    panels = [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    kinds = [panel["viewType"] for panel in panels]
    assert kinds == [
        "Parallel Coordinates Plot", "Parameter Importance", "Scatter Plot", "Run History Line Plot", "Run History Line Plot",
    ]  # fmt: skip
    columns = [(column["accessor"], column.get("log")) for column in panels[0]["config"]["columns"]]
    assert columns == [("config:x.value", False), ("config:y.value", True), ("summary:objective", None)]


def test_a_report_of_what_is_not_there_is_refused(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    session(folder, wandb="offline", n_trials=1)
    with pytest.raises(UserError, match="lorasweep wandb sync"):
        save_report(folder, None)


def test_without_its_package_the_command_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[wandb-reports\]'"):
        commands.report(str(tmp_path))
