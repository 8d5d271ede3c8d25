"""Every option of a study, which lives under hydra.sweeper: default, type, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from lorasweep.rules import Problem, choice, number, satisfying

CLUSTERS = ("slurm", "local")
SAMPLERS = ("grid", "list", "random", "tpe")
PRUNERS = ("none", "median", "asha")
Direction = Literal["minimize", "maximize"]


@dataclass(kw_only=True, slots=True)
class Settings:
    """How a study searches; what it searches is in `params`."""

    sampler: str = choice("grid", *SAMPLERS)
    """grid: every combination once. list: the points of `enqueue` and no more. random, tpe: `n_trials` points, tpe
    learning from those before."""
    sampler_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of Optuna's TPESampler, such as n_startup_trials."""
    seed: int = number(0, least=0)
    """Decides what is sampled; training has seeds of its own (train.seed), the same in every trial."""
    n_trials: int | None = number(None, least=1)
    """Trials in the study at its end, those of earlier sessions among them: run again, it goes on up to this total
    (Optuna's own sweeper adds as many). Null: every point of the grid or the list."""
    params: dict[str, Any] = field(default_factory=dict)
    """What varies, as Hydra writes sweeps: `lora.r: 8,16,64`, `optim.lr: tag(log, interval(1e-5, 1e-3))`."""
    only_if: dict[str, Any] = field(default_factory=dict)
    """When a key varies at all: `scheduler.warmup: {scheduler.name: [linear, cosine]}`. Otherwise it stays as it is."""
    baseline: bool = False
    """Whether trial 0 is the config as it stands, before anything is varied."""
    enqueue: list[Any] = satisfying(
        list, "a list of points, such as {lora.r: 64}", lambda value: all(isinstance(item, dict) for item in value)
    )
    """Points to try first: a list of `{lora.r: 64, lora.alpha: 16}`; keys left out stay as the config has them."""
    objectives: list[str] = satisfying(
        lambda: ["objective"],
        "a list of numbers in a trial's summary.json, such as objective, memory/peak_gib, train/seconds",
        lambda value: bool(value) and len(set(value)) == len(value),
    )
    """What is optimised; of several, the Pareto front is found."""
    direction: Any = satisfying(
        None,
        "null, minimize or maximize, or a list of them, one per objective",
        lambda value: all(item in ("minimize", "maximize") for item in (value if isinstance(value, list) else [value])),
    )
    """Null: losses, memory and seconds down, scores of answers and tokens per second up."""
    pruner: str = choice("none", *PRUNERS)
    """What ends trials early at their evaluations: median, those worse than the median of the others there; asha,
    all but the best 1 / `reduction_factor` at every rung (asynchronous successive halving)."""
    prune_after: float = number(0.25, above=0, most=1)
    """Share of a trial's supervised tokens before which it is left alone; the first rung of asha."""
    reduction_factor: int = number(3, least=2)
    slots: int | None = number(None, least=1)
    """Trials at the same time. Null: one per visible GPU, or per `gpus_per_trial` of them; one without any."""
    cluster: str | None = choice(None, *CLUSTERS)
    """Where slots are. Null: processes of this host. slurm: each is a job. local: each is a process that is started,
    reached and warned as a job is, to try that out on one host."""
    cluster_options: dict[str, Any] = field(default_factory=dict)
    """What a slot's job asks for, as submitit names it: partition, timeout_min, gpus_per_node, cpus_per_task, mem_gb,
    account, qos, additional_parameters and others."""
    gpus_per_trial: int = number(1, least=1)
    """GPUs that train a trial together, with a process on each, as torchrun trains a run; `train.batch_size` are the
    rows of a pass in all of them. Without any GPU as many processes share the CPU."""
    fresh_process: bool = False
    """Whether every trial gets a process of its own instead of a warm worker that keeps the base."""
    storage: str | None = None
    """Where Optuna keeps the study. Null: study.db in the study's folder. A PostgreSQL or MySQL address,
    `postgresql+psycopg://user@host/name`: the same command on any number of hosts works on the same study."""
    lease_seconds: float = number(30.0, least=1)
    """Seconds without a sign of life after which the trials of a controller are taken over by the others."""
    max_failures: int | None = number(5, least=1)
    """Failed trials in a row that end the study. Null: no number does."""
    max_retries: int = number(2, least=0)
    """How often a trial whose process was killed is started again before it counts as failed."""
    timeout: float | None = number(None, above=0)
    """Seconds after which no trial is started any more, in this session."""
    trial_timeout: float | None = number(None, above=0)
    """Seconds a trial may take."""
    hang_timeout: float | None = number(1800.0, above=0)
    """Seconds without a step or another sign of life after which a trial counts as hung."""
    keep_adapters: int | None = number(5, least=0)
    """Adapters that stay on disk: those of the best trials. Null: all."""


def conflicts(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong between settings that are each right."""
    several = len(settings.objectives) > 1
    if settings.sampler in ("random", "tpe") and settings.n_trials is None:
        yield Problem("hydra.sweeper.n_trials", None, f"a number: nothing else ends a {settings.sampler} search")
    if isinstance(settings.direction, list) and len(settings.direction) != len(settings.objectives):
        yield Problem("hydra.sweeper.direction", settings.direction, "as many as hydra.sweeper.objectives")
    if several and settings.pruner != "none":
        yield Problem("hydra.sweeper.pruner", settings.pruner, "none: with several objectives no trial is worse early")
    elif settings.pruner != "none" and settings.objectives != ["objective"]:
        allowed = "none, or objectives=[objective]: evaluations tell evaluation.objective, by which trials are pruned"
        yield Problem("hydra.sweeper.pruner", settings.pruner, allowed)
    if settings.cluster and settings.slots is None:
        yield Problem("hydra.sweeper.slots", None, f"a number: how many jobs of cluster={settings.cluster}")
    if settings.cluster_options and not settings.cluster:
        allowed = f"empty, or hydra.sweeper.cluster={' or '.join(CLUSTERS)}: without one there are no jobs"
        yield Problem("hydra.sweeper.cluster_options", settings.cluster_options, allowed)
    if settings.sampler_kwargs and settings.sampler != "tpe":
        yield Problem("hydra.sweeper.sampler_kwargs", settings.sampler_kwargs, "empty: only tpe has arguments")
