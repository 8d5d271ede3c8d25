"""The program `lorasweep`: what there is to do around a run and around a study."""

from __future__ import annotations

import os

import typer

from lorasweep.cli import looking, runs, studies, wandb
from lorasweep.cli.report import report
from lorasweep.cli.reproduce import reproduce
from lorasweep.rules import user_errors

app = typer.Typer(
    name="lorasweep",
    help="What to do before and after a run. To train one: python train.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)

# In the order of the help
RUNS = (runs.preview, runs.memory, runs.evaluate, runs.chat, runs.merge, runs.push, runs.lm_eval, reproduce)
STUDIES = (studies.plan, studies.add, studies.stop, studies.confirm, studies.promote)
LOOKING = (looking.ls, looking.show, looking.compare, report)
for command in (*RUNS, *STUDIES, *LOOKING):
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(wandb.app, name="wandb")


def main() -> None:
    """Run a command; the user's mistakes are printed without a traceback and exit with 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with user_errors():
        app(prog_name="lorasweep")
