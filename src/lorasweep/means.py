"""What computes a run: code, packages, Python, device, kernels. By other means bits may differ, results should not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorasweep.identity import CODE, PACKAGES, differences

COMPUTE = re.compile(rf"({'|'.join(PACKAGES)}|jinja2|safetensors|sentencepiece|triton|nvidia-.*)$", re.IGNORECASE)
"""Packages that decide numbers, or which rows there are."""
KERNELS = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "FLASH_ATTENTION_DETERMINISTIC",
    "KMP_DETERMINISTIC_REDUCTION", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE", "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE", "TORCHINDUCTOR_DETERMINISTIC",
)  # fmt: skip
"""Environment variables that choose kernels."""


def means(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and values of what a record says of what computes."""
    device, hardware, environment = (record.get(name, {}) for name in ("device", "hardware", "environment"))
    gpu = hardware.get("gpu", {})
    yield from known(
        (CODE, record.get("code")),
        ("python", record.get("python")),
        ("libc", environment.get("libc")),
        ("device", _device(device, hardware)),
        ("threads", device.get("threads")),
        ("precision", device.get("precision")),
        ("instructions of the processor", hardware.get("instructions")),
        ("driver of the GPU", gpu.get("driver")),
        ("compute capability", gpu.get("capability")),
        ("CUDA", device.get("cuda")),
        ("cuDNN", device.get("cudnn")),
        ("values the adapter began with", record.get("start")),
    )
    packages = record.get("packages", {})
    yield from named("package", {name: value for name, value in packages.items() if COMPUTE.match(name)})
    set_here = environment.get("variables")
    if set_here is not None:
        yield from named("variable", {name: set_here.get(name, "not set") for name in KERNELS})
    yield from named("numerics:", record.get("numerics", {}))


def by_other_means(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what computes otherwise than a record says, by name: as it was and as it is."""
    return {item.name: [item.before, item.now] for item in differences(dict(means(before)), dict(means(now)))}


def _device(device: Mapping[str, Any], hardware: Mapping[str, Any]) -> str | None:
    """Return the GPU by its name, or that it is the processor, which has facts of its own."""
    kind, gpu = device.get("kind"), hardware.get("gpu")
    if kind == "cpu" or (hardware and not gpu):
        return "cpu"
    name = gpu["name"] if gpu else device.get("name")
    return str(name).partition(" (the first of")[0] if name else None


def named(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield values by the names that people have for things of a kind."""
    yield from ((f"{kind} {name}", value) for name, value in values.items())


def known(*pairs: tuple[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the pairs whose value is known."""
    yield from ((name, value) for name, value in pairs if value is not None)
