"""The commands around a run: lorasweep preview before it; evaluate, chat, merge, push, lm-eval after it.

Around a study: add, stop while it runs; promote after it.
"""

from __future__ import annotations

import logging
import os
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lorasweep import compose
from lorasweep.compose import user_errors
from lorasweep.record import CHECKOUT
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.study import comparability
from lorasweep.study.folder import controller_of, find_study
from lorasweep.study.requests import Request, make_request
from lorasweep.study.space import Choice, Point, Space

app = typer.Typer(
    name="lorasweep",
    help="What to do before and after a run. To train one: python train.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)


class Split(StrEnum):
    """Parts of a run's rows."""

    eval = "eval"
    test = "test"
    train = "train"


class SixteenBit(StrEnum):
    """Precisions of a merged model."""

    bfloat16 = "bfloat16"
    float16 = "float16"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as outputs/runs/<time>.")]
Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="The folder of a study, or its name below outputs/studies.")
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the study is kept, if not in its folder: hydra.sweeper.storage."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="As for train.py: evaluation.generate=50.")
]
More = Annotated[
    list[str] | None, typer.Option("--override", metavar="KEY=VALUE", help="As for train.py; may be repeated.")
]


@app.command()
def preview(
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Whose rows to show.")] = Split.train,
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show, spread evenly.")] = 3,
    row: Annotated[int | None, typer.Option(min=1, help="Show this row of the data alone.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page instead.")] = None,
    config_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="As for train.py: a run folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON and nothing else.")] = False,
) -> None:
    """Show what a run would learn from: rows with their masks, counts, lengths. Nothing is trained."""
    places = [f"--config-dir={config_dir}"] if config_dir else []
    compose.register()
    config = compose.checked_run(CHECKOUT / "conf", compose.CommandLine.of([*places, *(overrides or [])]))
    _check_inputs(config)
    from lorasweep import preview as previews

    shown = previews.preview(config, split.value, rows, row - 1 if row else None)
    previews.show(shown, ["lorasweep", "preview", *places, *(overrides or [])], html, as_json)


@app.command()
def plan(
    overrides: Overrides = None,
    points: Annotated[int, typer.Option(min=0, help="How many of the first points to show.")] = 8,
    config_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="As for train.py: a run folder.")] = None,
) -> None:
    """Show what a study would try and what it would refuse, before anything is trained."""
    places = [f"--config-dir={config_dir}"] if config_dir else []
    compose.register()
    line = compose.CommandLine.of(["--multirun", *places, *(overrides or [])])
    run, definition = compose.checked_study(CHECKOUT / "conf", line)
    from lorasweep.study import plan as plans

    plans.show(plans.plan(definition, run, points))


@app.command()
def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Which rows of the run.")] = Split.eval,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Score the rows of this file instead."),
    ] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Score only this many rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Score the untuned base and the adapter on the same rows."""
    config = _opened(run, overrides, needs_data=data is None)
    from lorasweep.assessment import assess, show

    show(assess(run, config, split.value, data, max_samples), as_json)


@app.command()
def chat(
    run: RunFolder,
    prompt: Annotated[str | None, typer.Argument(help="One question; without it a conversation begins.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Let the untuned base answer too.")] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the likeliest token each time.")] = 0.0,
    override: More = None,
) -> None:
    """Ask the adapter, in the form it was trained in."""
    if prompt is not None and not prompt.strip():
        raise UserError(Problem("PROMPT", prompt, "text; without PROMPT a conversation begins"))
    config = _opened(run, override, needs_data=False)
    from lorasweep.chat import converse, open_chat

    opened = open_chat(run, config, base, system, max_new_tokens, temperature)
    if prompt:
        opened.ask(prompt)
    else:
        converse(opened)


@app.command()
def merge(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    overrides: Overrides = None,
    dtype: Annotated[SixteenBit | None, typer.Option(help="Default: the run's, on a CPU bfloat16.")] = None,
    as_trained: Annotated[
        bool, typer.Option("--as-trained", help="Into the values the quantised weights stand for, not the original.")
    ] = False,
) -> None:
    """Add the adapter to its base in 16 bit: a plain model folder, for servers and converters."""
    if out.exists():
        raise UserError(Problem("OUT", str(out), "a new folder; this one exists"))
    config = _opened(run, overrides)
    from lorasweep.merge import merge, show

    show(merge(config, run, out, dtype.value if dtype else None, as_trained))


@app.command()
def push(
    run: RunFolder,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub.")],
    merged: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Push this merged model, not the adapter.")
    ] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Who sees a new repository.")] = True,
    dry: Annotated[bool, typer.Option("--dry-run", help="Write what would be pushed into a folder.")] = False,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of --dry-run; default RUN/push.")] = None,
) -> None:
    """Push adapter, tokenizer and model card to the Hugging Face hub."""
    if to and not dry:
        raise UserError(Problem("--to", str(to), "used with --dry-run only"))
    config = _opened(run, needs_data=False, loads=False)
    from lorasweep import push as pushing

    if dry:
        pushing.dry_run(config, run, repo, merged, to or run / "push")
    else:
        pushing.push(config, run, repo, merged, private)


@app.command("lm-eval")
def lm_eval(
    run: RunFolder,
    tasks: Annotated[str, typer.Option(help="Names of tasks, separated by commas.")],
    include_path: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows of each task.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Measure the untuned base too.")] = False,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Ask through the chat template.")] = False,
    override: More = None,
) -> None:
    """Measure with tasks of EleutherAI's lm-evaluation-harness."""
    if include_path and not include_path.is_dir():
        raise UserError(Problem("--include-path", str(include_path), "an existing folder with task files"))
    if find_spec("lm_eval") is None:
        raise UserError(Problem("lm-eval", None, "the package: pip install -c constraints.txt -e '.[lm-eval]'"))
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UserError(Problem("--tasks", tasks, "at least one task"))
    config = _opened(run, override, needs_data=False)
    from lorasweep.harness import measure, show

    show(*measure(config, run, names, include_path, limit, num_fewshot, base, chat_template))


@app.command()
def add(
    study: Study,
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to try: lora.r=48 optim.lr=1e-4.")],
    config_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="As the study was started with.")] = None,
) -> None:
    """Have a study try these values, with all others as its config has them; on top of its total."""
    folder = find_study(study)
    places = [f"--config-dir={config_dir}"] if config_dir else []
    compose.register()
    point = compose.read_point(CHECKOUT / "conf", compose.CommandLine.of([*places, *values]))
    _check_comparable(folder, point)
    make_request(folder, Request(point=point))
    owner = controller_of(folder)
    when = f"now, by {owner}" if owner else "when the study next runs: nothing runs it now"
    typer.echo(f"{folder}: {' '.join(values)} is taken up {when}")


@app.command()
def confirm(
    study: Study,
    top: Annotated[int, typer.Option(min=1, help="How many of the best trials.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many new seeds each.")] = 3,
    slots: Annotated[int | None, typer.Option(min=1, help="As hydra.sweeper.slots.")] = None,
    storage: Storage = None,
) -> None:
    """Train the best trials again with other seeds: is the winner inside the noise? Then score the test rows, once."""
    from rich.console import Console

    from lorasweep import confirm as confirmation
    from lorasweep.study.folder import find_study

    view = confirmation.Trials(Console())
    confirmation.show(confirmation.confirm(find_study(study), top, seeds, slots, storage, view))


@app.command()
def stop(study: Study) -> None:
    """Have a study start no more trials; those that run are finished."""
    folder = find_study(study)
    owner = controller_of(folder)
    if owner is None:
        typer.echo(f"{folder}: nothing runs it now, so nothing is to be stopped")
        return
    make_request(folder, Request(stop=True))
    typer.echo(
        f"{folder}: {owner} starts no more trials and ends with those that run. The same command goes on with it"
    )


@app.command()
def promote(
    study: Study,
    trial: Annotated[int | None, typer.Option(min=0, help="Which trial; default: the best.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; default: STUDY_best.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an experiment of that name.")] = False,
    storage: Storage = None,
) -> None:
    """Make a trial an experiment: conf/experiment/NAME.yaml."""
    folder = find_study(study)
    from lorasweep.promote import promote, show

    compose.register()
    show(*promote(folder, trial, name, storage, force))


def _opened(folder: Path, overrides: list[str] | None = None, *, needs_data: bool = True, loads: bool = True) -> Run:
    """Return the run of a folder, checked within about a second, and before the model is loaded what that takes."""
    from lorasweep.saved import open_run

    run = open_run(folder, overrides or [], needs_data)
    if loads:
        _check_inputs(run)
    return run


def _check_comparable(study: Path, point: Point) -> None:
    """Check that a trial with these values would be judged like the others of its study, once one of them has begun."""
    record = next(iter(sorted(study.glob("trials/*/run.yaml"))), None)
    if record is None:
        return
    from lorasweep.saved import as_recorded

    space = Space(tuple(Choice(key, (value,)) for key, value in point.items()))
    if problems := list(comparability.problems(space, as_recorded(record.parent), "none")):
        raise UserError(problems)


def _check_inputs(run: Run) -> None:
    """Check model, tokenizer and data; what libraries log from now on has no log to go to, and is not for the user."""
    from lorasweep.preflight import check_inputs

    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    check_inputs(run)


def main() -> None:
    """Run a command; the user's mistakes are printed without a traceback and exit with 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with user_errors():
        app(prog_name="lorasweep")


if __name__ == "__main__":
    main()
