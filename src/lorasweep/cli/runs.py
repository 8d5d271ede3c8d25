"""The commands around a run: preview before it; evaluate, chat, merge, push, lm-eval after it."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import AsJson, ConfigDir, More, Overrides, RunFolder, SixteenBit, Split
from lorasweep.record import CHECKOUT
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run


def preview(
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Whose rows to show.")] = Split.train,
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show, spread evenly.")] = 3,
    row: Annotated[int | None, typer.Option(min=1, help="Show this row of the data alone.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page instead.")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would learn from: rows with their masks, counts, lengths. Nothing is trained."""
    given = [*([f"--config-dir={config_dir}"] if config_dir else []), *(overrides or [])]
    config = _composed(given)
    _check_inputs(config)
    from lorasweep import preview as previews

    shown = previews.preview(config, split.value, rows, row - 1 if row else None)
    previews.show(shown, ["lorasweep", "preview", *given], html, as_json)


def memory(
    overrides: Overrides = None,
    length: Annotated[
        int | None, typer.Option(min=2, metavar="TOKENS", help="Of the longest row; default: data.max_length.")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Predict the memory of a run, part by part, from the config of its model: no weights, no data, no GPU needed."""
    config = _composed([*([f"--config-dir={config_dir}"] if config_dir else []), *(overrides or [])])
    from lorasweep.library_logs import quiet_libraries
    from lorasweep.memory.console import show
    from lorasweep.memory.outlook import look_at_length

    quiet_libraries()
    _silence_warnings()
    show(look_at_length(config, length or config.data.max_length), as_json)


def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Which rows of the run.")] = Split.eval,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Score the rows of this file instead."),
    ] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Score only this many rows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score the untuned base and the adapter on the same rows."""
    config = _opened(run, overrides, needs_data=data is None)
    from lorasweep.assessment import assess, show

    show(assess(run, config, split.value, data, max_samples), as_json)


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


def _opened(folder: Path, overrides: list[str] | None = None, *, needs_data: bool = True, loads: bool = True) -> Run:
    """Return the run of a folder, checked within about a second, and before the model is loaded what that takes."""
    from lorasweep.saved import open_run

    run = open_run(folder, overrides or [], needs_data)
    if loads:
        _check_inputs(run)
    return run


def _composed(arguments: list[str]) -> Run:
    """Return the run that arguments of train.py describe."""
    from lorasweep import compose

    compose.register()
    return compose.checked_run(CHECKOUT / "conf", compose.CommandLine.of(arguments))


def _check_inputs(run: Run) -> None:
    """Check model, tokenizer and data; what libraries log from now on has no log to go to, and is not for the user."""
    from lorasweep.preflight import check_inputs

    _silence_warnings()
    check_inputs(run)


def _silence_warnings() -> None:
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
