"""What about a run makes what is learnt or measured less than it seems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lorasweep.schema import Run


def config_doubts(run: Run) -> Iterator[str]:
    """Yield what of a config has no effect, or is not promised."""
    scheduler = run.scheduler
    for key, value in (("train.compile", run.train.compile), ("model.attention", run.model.attention)):
        if run.deterministic and value in (True, "varlen"):
            option = f"{key}={str(value).lower()}"
            yield f"{option}: on a GPU deterministic=true does not promise the same bits with it, with auto it does"
    if scheduler.name == "constant" and scheduler.warmup:
        yield f"scheduler.warmup={scheduler.warmup:g} has no effect: constant has none, constant_with_warmup has"


def split_doubts(name: str, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is wrong with the rows of a split, whose counts are as in `data.Counts` and in record.json."""
    kept = counts["kept"]
    if shared := counts["also_in_train"]:
        yield f"{shared} of {kept} {name} rows are training rows too: {name} flatters"
    if shared := counts["also_in_eval"]:
        yield f"{shared} of {kept} {name} rows are evaluation rows too: {name} is not independent"
    if thoughtless := counts["thoughtless"]:
        yield f"the chat template leaves the assistant's thoughts out of {thoughtless} {name} rows"
