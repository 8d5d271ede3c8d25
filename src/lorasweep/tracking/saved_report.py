"""The command wandb report: a page of W&B's with the plots of a study, saved there and brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr

from lorasweep.record import write_json
from lorasweep.results import read_json
from lorasweep.rules import Problem, UserError
from lorasweep.study.leaderboard import Leaderboard
from lorasweep.study.space import Interval
from lorasweep.study.wording import shown
from lorasweep.tracking.study_run import Findings, find
from lorasweep.tracking.subject import IDENTITY, StudyIdentity, study_identity
from lorasweep.tracking.sync import account_of

MOST_ROWS = 15
TRIALS = "Group = '{group}' and JobType != 'study'"


class FlatColumn(wr.ParallelCoordinatesPlotColumn):
    """A column of a config key with a dot in it, where the package itself means one config inside another."""

    def _to_model(self) -> Any:
        model = super()._to_model()
        model.accessor = f"config:{self.metric.name}.value"
        return model


def save_report(folder: Path, storage: str | None) -> str:
    """Save the report of a study, the one saved before if there is one; return its address."""
    study, findings = study_identity(folder), find(folder, storage)
    tracking, kept = account_of(folder).tracking, read_json(folder / IDENTITY)
    try:
        entity = tracking.entity or wandb.Api().default_entity
        report = wr.Report(tracking.project, entity, title=f"lorasweep: {study.group}", width="fluid")
        report.description = _outcome(findings.board)
        report.blocks = list(blocks(study, findings, entity, tracking.project))
        report.id = kept.get("report", "")
        report.save()
    except (wandb.Error, ValueError) as error:
        words = str(error).splitlines()[0]
        allowed = f"a project that has the study, as lorasweep wandb sync sends it ({words})"
        raise UserError(Problem("tracking.project", tracking.project, allowed)) from None
    write_json(folder / IDENTITY, {**kept, "report": report.id})
    return str(report.url)


def blocks(study: StudyIdentity, findings: Findings, entity: str, project: str) -> Iterator[Any]:
    """Yield what is on the page: leaderboard, what varied and what of it mattered, learning curves."""
    board, objective = findings.board, wr.SummaryMetric(findings.board.objectives[0])
    order = wr.OrderBy(objective, ascending=board.directions[0] == "minimize")
    runs = wr.Runset(entity, project, name=study.group, filters=TRIALS.format(group=study.group), order=[order])
    columns = [
        *(FlatColumn(wr.Config(key), log=_is_logarithmic(findings, key)) for key in board.varied),
        *(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name)) for name in board.objectives),
    ]
    cost = wr.SummaryMetric("train/seconds")
    plots = [
        wr.ParallelCoordinatesPlot(columns=columns, layout=wr.Layout(0, 0, 24, 10)),
        wr.ParameterImportancePlot(with_respect_to=objective.name, layout=wr.Layout(0, 10, 12, 8)),
        wr.ScatterPlot(x=cost, y=objective, layout=wr.Layout(12, 10, 12, 8)),
    ]
    curves = [
        wr.LinePlot(x="Step", y=[name], title=name, layout=wr.Layout(12 * place, 0, 12, 8))
        for place, name in enumerate((f"eval/{board.judged}", "train/loss"))
    ]
    yield wr.H2("Leaderboard")
    yield wr.MarkdownBlock(_table(board))
    yield wr.H2("What varied, and what of it mattered")
    yield wr.PanelGrid(runsets=[runs], panels=plots)
    yield wr.H2("Learning curves")
    yield wr.PanelGrid(runsets=[runs], panels=curves)


def _is_logarithmic(findings: Findings, key: str) -> bool:
    dimension = next((item for item in findings.dimensions if item.key == key), None)
    return isinstance(dimension, Interval) and dimension.log


def _outcome(board: Leaderboard) -> str:
    """Return in a line what won."""
    if not board.best:
        return "no trial is complete yet"
    name = board.judged if board.objectives[0] == "objective" else board.objectives[0]
    values = ", ".join(f"{key}={shown(board.best[key])}" for key in board.varied if key in board.best)
    return f"best: trial {board.best['trial']}, {name} {shown(board.best[board.objectives[0]])} with {values}"


def _table(board: Leaderboard) -> str:
    """Return the best trials as Markdown."""
    columns = ["rank", "trial", "state", *board.objectives, "difference", *board.varied]
    columns = [name for name in columns if any(name in row for row in board.rows)]
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row[name]) if name in row else "" for name in columns] for row in board.rows[:MOST_ROWS]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
