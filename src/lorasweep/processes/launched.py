"""What torchrun, `accelerate launch` or a scheduler says of the processes it has started, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lorasweep.processes.share import Share
from lorasweep.rules import Problem
from lorasweep.schema import Run

NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OURS = (
    *NEEDED, "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE",
)  # fmt: skip
BEGINNINGS = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_")
"""How the variables begin that are taken out of the environment too: left to them, libraries divide the work again."""
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Launched:
    """One of several processes that are to train one run."""

    share: Share
    local_rank: int
    local_size: int
    address: str
    port: int
    has_store: bool
    """Whether the launcher keeps the store in which processes find each other; else the first one does."""
    attempt: str

    @property
    def is_on_one_machine(self) -> bool:
        """Whether all processes are on this machine."""
        return self.local_size == self.share.size


def count(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processes were started for one command."""
    return max(1, _number(environment, "WORLD_SIZE", 1))


def speaks(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process is the one of its machine that says what is wrong; the others find the same."""
    return _number(environment, "LOCAL_RANK", 0) == 0


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """Return what is known of the processes of this command, which must have no problems; None of a single one."""
    size = count(environment)
    if size == 1:
        return None
    return Launched(
        Share(int(environment["RANK"]), size),
        int(environment["LOCAL_RANK"]),
        _number(environment, "LOCAL_WORLD_SIZE", 0),
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def claim_gpu() -> None:
    """Have this process see its own GPU alone, so that it is the first for all libraries; before torch is imported."""
    if count() > 1:
        take_gpu(_number(os.environ, "LOCAL_RANK", 0))


def take_gpu(number: int) -> None:
    """Have this process see that one alone of the GPUs it sees; before torch is imported."""
    visible = _visible(os.environ)
    if number < len(visible):
        os.environ[GPUS] = visible[number]


def forget() -> None:
    """Take all that out of the environment: of a process that knows its share, libraries need know nothing."""
    for name in [name for name in os.environ if name in OURS or name.startswith(BEGINNINGS)]:
        del os.environ[name]


def problems(run: Run, is_study: bool, environment: Mapping[str, str] = os.environ) -> Iterator[Problem]:
    """Yield why a run cannot be trained by the processes that were started for it."""
    size = count(environment)
    if size == 1:
        return
    if is_study:
        allowed = "one run, under torchrun: a study starts its own workers, one for every visible GPU, without it"
        yield Problem("-m", f"{size} processes", allowed)
    for name in NEEDED:
        if not environment.get(name, "").strip():
            yield Problem(name, environment.get(name), f"set for each of WORLD_SIZE={size} processes, as torchrun does")
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if environment.get(name, "").lower() == "true":
            yield Problem(name, "true", "false: every process holds the whole quantised base and a share of the rows")
    visible, local = _visible(environment), _number(environment, "LOCAL_WORLD_SIZE", 1)
    if visible and local > len(visible):
        yield Problem("--nproc-per-node", local, f"at most {len(visible)}, the visible GPUs: each process takes one")
    yield from undivided(run, size)


def undivided(run: Run, size: int) -> Iterator[Problem]:
    """Yield the options whose work is not divided among so many processes; of one alone there are none."""
    if size == 1:
        return
    if run.train.batch_size % size:
        allowed = f"a multiple of {size}, the number of processes, which divide the rows of a pass among them"
        yield Problem("train.batch_size", run.train.batch_size, allowed, str(-(-run.train.batch_size // size) * size))
    if run.data.streaming:
        yield Problem("data.streaming", True, "false with several processes: they divide rows that are prepared")
    if run.train.group_by_length:
        allowed = "false with several processes: train.tokens_per_step sorts the rows of a step by itself"
        yield Problem("train.group_by_length", True, allowed)


def _visible(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that this machine shows, under the names that CUDA takes; none on a CPU."""
    if (given := environment.get(GPUS)) is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    value = environment.get(name, "")
    return int(value) if value.strip().isdecimal() else otherwise
