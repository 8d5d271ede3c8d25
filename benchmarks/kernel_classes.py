"""Where the time of a step goes on a GPU: kernels by class, and how long the device stood idle between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

CLASSES = {
    "compiled": ("triton_",),
    "attention": ("flash", "fmha", "attention", "cudnn_generated"),
    "dequantise": ("dequant", "kgemm_4bit"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
    "copies": ("memcpy", "memset", "copy"),
    "optimizer, norms": ("adam", "multi_tensor", "lpnorm"),
    "loss": ("_forward_kernel", "_backward_kernel"),
    "elementwise": ("elementwise", "vectorized", "reduce", "index", "cat", "scatter", "gather", "fill", "dropout"),
}
"""Kernels by what their names contain; the first that fits."""


def class_of(kernel: str) -> str:
    """Return the class of a kernel."""
    name = kernel.lower()
    return next((kind for kind, words in CLASSES.items() if any(word in name for word in words)), "other")


def product_of(shapes: Iterable[Sequence[int]], rank: int, vocabulary: int) -> str:
    """Return what a matrix product belongs to, by the shapes of its operands."""
    sizes = {size for shape in shapes for size in shape}
    return "LoRA" if rank in sizes else "logits" if vocabulary in sizes else "base"


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of these spans (begin, end) lasted."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def summary(found: Any, steps: int, rank: int, vocabulary: int) -> dict[str, Any]:
    """Return milliseconds a step by class of kernel, with those of matrix products by what they are of."""
    time_of: dict[str, float] = defaultdict(float)
    each: dict[str, list[float]] = defaultdict(list)
    spans = []
    for event in found.profiler.kineto_results.events():
        if "CUDA" not in str(event.device_type()) or event.name().startswith("##"):  # a mark, no kernel
            continue
        spent = event.duration_ns() / 1e6 / steps
        time_of[class_of(event.name())] += spent
        each[event.name()[:90]].append(spent)
        spans.append((event.start_ns() / 1e6, (event.start_ns() + event.duration_ns()) / 1e6))
    span = max((end for _, end in spans), default=0.0) - min((begin for begin, _ in spans), default=0.0)
    longest = sorted(each.items(), key=lambda item: -sum(item[1]))[:25]
    return {
        "span_ms": round(span / steps, 2),
        "busy_ms": round(busy(spans) / steps, 2),
        "kernels": round(len(spans) / steps),
        "classes": {kind: round(spent, 2) for kind, spent in sorted(time_of.items(), key=lambda item: -item[1])},
        "products": _products(found, steps, rank, vocabulary),
        "longest": [[name, round(sum(spent), 2), round(len(spent) / steps)] for name, spent in longest],
    }


def _products(found: Any, steps: int, rank: int, vocabulary: int) -> dict[str, float]:
    """Return the matrix products' milliseconds by what they are of."""
    time_of: dict[str, float] = defaultdict(float)
    with suppress(AttributeError, TypeError, KeyError):  # torch's own bookkeeping, which differs between versions
        for event in found.events():
            for kernel in getattr(event, "kernels", ()):
                if class_of(kernel.name) == "matrix products":
                    shapes = [shape for shape in event.input_shapes or () if isinstance(shape, list)]
                    time_of[product_of(shapes, rank, vocabulary)] += kernel.duration / 1e3 / steps
    return {kind: round(spent, 2) for kind, spent in time_of.items()}


def show(name: str, found: dict[str, Any]) -> str:
    """Return a summary as a table."""
    lines = [
        f"{name}: {found['busy_ms']} of {found['span_ms']} ms a step on the device, {found['kernels']} kernels, copies",
        *(f"  {kind:18} {spent:9.2f} ms" for kind, spent in found["classes"].items()),
        "  matrix products: " + ", ".join(f"{kind} {spent} ms" for kind, spent in found["products"].items()),
        *(f"    {spent:8.2f} ms {count:6} x {kernel}" for kernel, spent, count in found["longest"]),
    ]
    return "\n".join(lines)
