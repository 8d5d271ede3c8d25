"""What a process runs in, as far as numbers can depend on it: Python, packages, system, variables, hardware."""

from __future__ import annotations

import locale
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from lorasweep.redaction import SECRET_NAME, redacted

VARIABLES = (
    "ATEN_", "BNB_", "CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "GOMP_", "KMP_", "LC_ALL", "LD_PRELOAD", "MKL_", "NCCL_",
    "NVIDIA_TF32_OVERRIDE", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTHONHASHSEED", "PYTORCH_",
    "TOKENIZERS_PARALLELISM", "TORCH",
)  # fmt: skip
"""How the variables begin that libraries take settings from; no others are recorded."""
LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
    "x86-64-v2": {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"},
}
FURTHER = {
    "amx_bf16", "amx_fp16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "asimd", "asimddp",
    "bf16", "i8mm", "sve", "sve2",
}  # fmt: skip
"""Instructions beyond a level that kernels are chosen by."""
GPU_FACTS = {
    "name": "name", "uuid": "uuid", "capability": "compute_cap", "memory": "memory.total", "driver": "driver_version",
    "power_limit": "enforced.power.limit", "clock_limit": "clocks.max.sm", "mig": "mig.mode.current",
}  # fmt: skip
"""What is recorded of a graphics card, under nvidia-smi's names."""


@cache
def installed_packages() -> dict[str, str]:
    """Return the version of every package; reading them takes a quarter of a second, so once in a process."""
    return {item.name: item.version for item in sorted(distributions(), key=lambda item: item.name.lower())}


def environment(known: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what a record says of Python and the system, with these environment variables."""
    return {
        "build": " ".join([platform.python_implementation(), *platform.python_build(), platform.python_compiler()]),
        "libc": " ".join(platform.libc_ver()),
        "locale": locale.setlocale(locale.LC_CTYPE),
        "variables": variables(known),
    }


def variables(known: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that libraries take settings from; never one that is called a secret."""
    named = {name: value for name, value in sorted(known.items()) if name.startswith(VARIABLES)}
    return {name: redacted(value) for name, value in named.items() if not SECRET_NAME.search(name)}


@cache
def hardware() -> dict[str, Any]:
    """Return what a record says of processor and graphics card, known without opening either."""
    facts: dict[str, Any] = {"processor": processor(), "instructions": instructions(), "cores": os.cpu_count()}
    return facts | ({"gpu": gpu} if (gpu := _gpu()) else {})


def processor() -> str:
    """Return the name of the processor."""
    return next(_cpu_facts("model name"), platform.machine())


def instructions() -> str:
    """Return the instruction-set level, and what is beyond it: other kernels round otherwise."""
    flags = set(next(_cpu_facts("flags"), next(_cpu_facts("Features"), "")).split())
    level = next((name for name, needed in LEVELS.items() if needed <= flags), platform.machine())
    return ", ".join([level, *sorted(FURTHER & flags)])


def _cpu_facts(name: str) -> Iterator[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                yield value.strip()


def visible_gpu() -> str | None:
    """Return the index or UUID of the card that a run takes, the first that is visible; None: it runs on the CPU."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        first = given.split(",")[0].strip()
        return None if first in ("", "-1") else first
    return "0" if any(Path("/proc/driver/nvidia/gpus").glob("*")) else None


def _gpu() -> dict[str, str] | None:
    """Return what the driver says of the card that a run takes; None without one, or where it says nothing."""
    which = visible_gpu()
    if which is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU_FACTS.values())}", "--format=csv,noheader", "-i", which]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    answers = [answer.strip() for answer in done.stdout.split(",")]
    return dict(zip(GPU_FACTS, answers, strict=True)) if len(answers) == len(GPU_FACTS) else None
