"""Arguments that several commands take, and what they may be."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Split(StrEnum):
    """Parts of a run's rows."""

    eval = "eval"
    test = "test"
    train = "train"


class SixteenBit(StrEnum):
    """Precisions of a merged model."""

    bfloat16 = "bfloat16"
    float16 = "float16"


class Sort(StrEnum):
    """Orders of a listing."""

    newest = "newest"
    name = "name"
    state = "state"
    best = "best"
    size = "size"


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
ConfigDir = Annotated[Path | None, typer.Option(metavar="DIR", help="As for train.py: a run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
