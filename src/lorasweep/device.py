"""The device of a run: what it is, what it computes natively, how much memory it took."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One GPU, or the CPU, and the precision a run computes in there."""

    kind: str
    name: str
    memory_gib: float
    precision: torch.dtype
    capability: tuple[int, int] | None = None
    """Compute capability of a GPU that is not this machine's; None: as here."""

    @classmethod
    def current(cls, precision: str = "auto") -> Device:
        """Return the first visible GPU, or the CPU without one.

        Precision auto: bfloat16 where it is native, else float16, on CPU float32.
        """
        if not torch.cuda.is_available():
            kind, name, memory, native = "cpu", _cpu_name(), psutil.virtual_memory().total, "float32"
        else:
            facts = torch.cuda.get_device_properties(0)
            # torch.cuda.is_bf16_supported() is also true for emulation on older cards (a T4), many times slower
            native = "bfloat16" if facts.major >= 8 else "float16"
            kind, memory, others = "cuda", facts.total_memory, torch.cuda.device_count() - 1
            name = f"{facts.name} (the first of {others + 1})" if others else facts.name
        return cls(kind, name, memory / GIB, getattr(torch, native if precision == "auto" else precision))

    @classmethod
    def imagined(cls, memory_gib: float, capability: tuple[int, int], precision: str = "auto") -> Device:
        """Return a GPU of that much memory and compute capability, which need not be here."""
        native = "bfloat16" if capability >= (8, 0) else "float16"
        dtype = getattr(torch, native if precision == "auto" else precision)
        return cls("cuda", "sm{}{}".format(*capability), memory_gib, dtype, capability)

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.kind == "cuda"

    @property
    def compute_capability(self) -> tuple[int, int]:
        """What a GPU can do, such as (8, 0); of a CPU (0, 0)."""
        if self.capability or not self.is_gpu:
            return self.capability or (0, 0)
        return torch.cuda.get_device_capability(0)

    @property
    def mixed_precision(self) -> str | None:
        """bf16 or fp16 where training runs under autocast, which is on GPUs in 16 bit."""
        names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names.get(self.precision) if self.is_gpu else None

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of that name; auto: the run's precision."""
        dtype = self.precision if name == "auto" else getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the mixed precision of training."""
        return torch.autocast(self.kind, dtype=self.precision) if self.mixed_precision else contextlib.nullcontext()

    def synchronize(self) -> None:
        """Wait for the device to finish what it was given."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the device."""
        return {
            "kind": self.kind,
            "name": self.name,
            "memory_gib": round(self.memory_gib, 2),
            "precision": str(self.precision).removeprefix("torch."),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "threads": torch.get_num_threads(),
        }


class PeakMemory:
    """Memory held at construction and the peak after it: reserved by torch on a GPU, resident set on CPU (GiB)."""

    def __init__(self, device: Device) -> None:
        self.device, self.earlier = device, (0.0, 0.0)
        self.reset_peak()
        held = torch.cuda.memory_reserved() if device.is_gpu else psutil.Process().memory_info().rss
        self.start = held / GIB

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        if self.device.is_gpu:
            torch.cuda.empty_cache()  # what is over from before stays in torch's pool, but is not held
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_peak_rss()

    def state(self) -> dict[str, Any]:
        """Return where memory began and its peaks so far."""
        peak, allocated = self._peaks()
        return {"start_gib": self.start, "peak_gib": peak, "allocated_gib": allocated}

    def restore(self, state: dict[str, Any]) -> None:
        """Count from where the process before began, and its peaks as those of this."""
        self.start, self.earlier = state["start_gib"], (state["peak_gib"], state["allocated_gib"])

    def _peaks(self) -> tuple[float, float]:
        """Return the peak, and on a GPU that of what is in use of it."""
        allocated = torch.cuda.max_memory_allocated() / GIB if self.device.is_gpu else 0.0
        return max(self.earlier[0], peak_gib(self.device)), max(self.earlier[1], allocated)

    def report(self) -> dict[str, float]:
        """Return start, peak, what was added and the share of the device, under metric names."""
        (peak, allocated), total = self._peaks(), self.device.memory_gib
        return {
            **({"memory/allocated_gib": round(allocated, 3)} if self.device.is_gpu else {}),
            "memory/start_gib": round(self.start, 3),
            "memory/peak_gib": round(peak, 3),
            "memory/added_gib": round(peak - self.start, 3),
            "memory/total_gib": round(total, 3),
            "memory/peak_share": round(peak / total, 4),
            "memory/added_share": round((peak - self.start) / total, 4),
        }


def peak_gib(device: Device) -> float:
    """Return the peak of this process, since the last `PeakMemory` began."""
    return torch.cuda.max_memory_reserved() / GIB if device.is_gpu else _peak_rss() / GIB


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {torch.get_num_threads()} threads"
    return "CPU"


def _reset_peak_rss() -> None:
    # Linux: 5 resets the high-water mark, so that each run of a process has its own peak
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss() -> float:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
