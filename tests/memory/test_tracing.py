"""What layers take, seen on fake tensors, against real ones, torch's own compiler and peaks measured on a GPU."""

from __future__ import annotations

import gc
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table

from lorasweep import compilation
from lorasweep.attention import Layout, use
from lorasweep.device import GIB, Device
from lorasweep.lora import add_adapter, build_adapter
from lorasweep.memory.batches import Batch
from lorasweep.memory.prediction import Predictor
from lorasweep.memory.tracing import Layer, trace
from lorasweep.model import build_config, build_model
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.schema import Run
from tests.conftest import ROOT, tiny

GPU = Device.imagined(80.0, (9, 0))
FLAT, PADDED = Layout("varlen", True), Layout("sdpa", False)
LLAMA_7B = tuple(
    f"model.shape.{name}={value}"
    for name, value in {
        "hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32, "kv_heads": 32, "vocab_size": 32000
    }.items()
)  # fmt: skip


def shaped(*options: str) -> Run:
    """A run on the shape of Llama-2-7B."""
    return tiny(*LLAMA_7B, *options)


def first_layer(run: Run, layout: Layout, batch: Batch) -> Layer:
    return trace(run, build_config(run.model), GPU, layout, batch).layers[0]


MEASURED = json.loads((ROOT / "benchmarks" / "gpu_memory.json").read_text())
"""Peaks on an H100 (GiB): of plain TRL, and of our runs as `benchmarks/gpu_memory.py` measures them."""
SHAPES = {
    "7b": LLAMA_7B,
    "1b": ("hidden_size=2048", "intermediate_size=8192", "layers=16", "heads=32", "kv_heads=8", "vocab_size=128256"),
    "135m": ("hidden_size=576", "intermediate_size=1536", "layers=30", "heads=9", "kv_heads=3", "vocab_size=49152"),
}


OF_EVERY_KIND = (
    "135m checkpointed", "1b compiled", "1b padded, 8 bit", "7b padded, q and v, dropout", "TRL: packed, dropout",
    "TRL: varlen, compiled, checkpointed",
)  # fmt: skip


@pytest.mark.parametrize("found", [
    pytest.param(found, id=found["name"], marks=[] if found["name"] in OF_EVERY_KIND else pytest.mark.slow)
    for found in MEASURED
])  # fmt: skip
def test_a_peak_is_predicted_within_a_tenth_of_what_was_measured(found: dict[str, Any]) -> None:
    shape = [f"model.shape.{item.removeprefix('model.shape.')}" for item in SHAPES[found["shape"]]]
    run = tiny(*shape, *found["options"])
    layout, batch = Layout(found["attention"], found["flat"]), Batch(found["rows"], found["tokens"], 0)
    batch = replace(batch, supervised=batch.tokens)
    predictor = Predictor(run, build_config(run.model), GPU)
    predicted = predictor(run, layout, batch, compiled=found["compiled"], every=found["every"])
    assert predicted.allocated_gib == pytest.approx(found["allocated_gib"], rel=0.1)


def test_at_least_twelve_peaks_were_measured_over_three_shapes() -> None:
    assert len(MEASURED) >= 12
    assert {found["shape"] for found in MEASURED} == set(SHAPES)
    assert {*OF_EVERY_KIND} <= {found["name"] for found in MEASURED}


def test_what_a_layer_keeps_grows_with_its_tokens() -> None:
    run = shaped()
    small, large = (first_layer(run, FLAT, Batch(1, length, length)) for length in (1024, 4096))
    weights = small.kept - (large.kept - small.kept) // 3  # 16-bit copies of the adapter's matrices
    assert 0 < weights < 2 * 16 * (6 * (4096 + 4096) + 3 * (4096 + 11008))
    assert small.compiled < small.kept
    assert small.result == 1024 * 4096 * 2


def test_a_mask_is_paid_for_in_every_layer_and_grows_with_the_square_of_the_rows() -> None:
    run, batch = shaped(), Batch(4, 1024, 4096)
    isolated, padded, flat = (first_layer(run, layout, batch) for layout in (FLAT, PADDED, Layout("sdpa", True)))
    assert padded.kept - isolated.kept == 4 * 1024**2 * 2
    assert flat.kept - isolated.kept == 4096**2 * 2


def test_dropout_keeps_a_byte_per_input_of_an_adapted_layer_and_a_copy_of_it() -> None:
    batch, inputs = Batch(1, 1024, 1024), 6 * 4096 + 11008
    plain, dropped = (first_layer(shaped(f"lora.dropout={rate}"), FLAT, batch) for rate in (0.0, 0.1))
    shared = 1024 * (2 * 4096 + 4096 + 11008) * 2  # the inputs that are kept anyway
    copies = 1024 * inputs * 2 + 1024 * 4096 * 2  # dropped ones, and attention's result itself
    assert dropped.kept - plain.kept == 1024 * inputs + copies - shared


def test_layers_of_different_kinds_are_looked_at_one_by_one() -> None:
    run = shaped("lora.target_modules='.*layers\\.(0|1)\\.mlp.*'")
    layers = trace(run, build_config(run.model), GPU, FLAT, Batch(1, 512, 512)).layers
    assert len(layers) == 32
    assert layers[0] is layers[1]
    assert layers[1].kept > layers[2].kept
    assert layers[2] is layers[31]


def test_a_quarter_of_the_layers_computed_again_lies_between_none_and_half_of_them() -> None:
    run, batch = shaped(), Batch(4, 1024, 4096)
    predictor = Predictor(run, build_config(run.model), GPU)
    peaks = [predictor(run, FLAT, batch, compiled=False, every=every).peak.total for every in (0, 4, 2, 1)]
    assert peaks == sorted(peaks, reverse=True)
    kept = first_layer(run, FLAT, batch)
    assert peaks[0] - peaks[2] == pytest.approx(16 * (kept.kept - kept.result), rel=0.1)


def test_gradients_are_there_from_the_second_pass_of_a_step_on() -> None:
    run, batch = shaped(), Batch(1, 1024, 1024)
    predictor = Predictor(run, build_config(run.model), GPU)
    once = predictor(run, FLAT, batch, compiled=False, every=0).peak
    again = predictor(shaped("train.grad_accum=2"), FLAT, batch, compiled=False, every=0).peak
    assert again.total - once.total == pytest.approx(again.parts["adapter"], rel=0.01)


def test_a_large_vocabulary_takes_no_more_logits_than_a_small_one() -> None:
    batch = Batch(1, 4096, 4096)
    parts = []
    for run in (shaped(), shaped("model.shape.vocab_size=128256")):
        found = Predictor(run, build_config(run.model), GPU)(run, FLAT, batch, compiled=False, every=0)
        parts.append(found.peak.parts["loss"])
    assert parts[0] == parts[1] < 0.5 * GIB


def test_looking_ahead_leaves_no_tensor_behind_and_torch_as_it_was() -> None:
    functional = torch.nn.functional.scaled_dot_product_attention
    asked = torch.is_autocast_enabled
    first_layer(tiny(), PADDED, Batch(2, 16, 32))
    gc.collect()
    assert torch.nn.functional.scaled_dot_product_attention is functional
    assert torch.is_autocast_enabled is asked
    assert not [item for item in gc.get_objects() if type(item).__name__ == "Ledger"]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_compiled_layer_keeps_what_the_partitioner_of_torch_keeps(
    dropout: float, varlen_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, kept = 512, list[int]()

    def forward_compiler(graph: Any, _: Any) -> Any:
        (outputs,) = next(node for node in graph.graph.nodes if node.op == "output").args
        made = [node.meta["val"] for node in outputs if isinstance(node, torch.fx.Node) and node.op != "placeholder"]
        sizes = [[int(size) for size in value.shape] for value in made if isinstance(value, torch.Tensor)]
        tensors = [value for value in made if isinstance(value, torch.Tensor)]
        kept.append(sum(math.prod(size) * value.element_size() for size, value in zip(sizes, tensors, strict=True)))
        return make_boxed_func(graph)

    backend = aot_autograd(
        fw_compiler=forward_compiler, bw_compiler=lambda graph, _: make_boxed_func(graph),
        partition_fn=min_cut_rematerialization_partition, decompositions=select_decomp_table(),
    )  # fmt: skip
    monkeypatch.setattr(compilation, "BACKEND", backend)
    compilation._compiled.cache_clear()
    shape = {"hidden_size": 256, "intermediate_size": 688, "layers": 1, "heads": 8, "kv_heads": 8}
    run = tiny(*(f"model.shape.{name}={value}" for name, value in shape.items()), f"lora.dropout={dropout}")
    device = Device("cpu", "", 1.0, torch.bfloat16)
    base = build_model(run.model, build_quantization(run.quant, device), device)
    keep_gradients_on_cpu(base)
    model = add_adapter(base, build_adapter(run.lora), 0)
    use(model, "varlen")
    compilation.compile_layers(model)
    borders = torch.tensor([0, 200, tokens], dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(
            input_ids=torch.zeros((1, tokens), dtype=torch.long), position_ids=torch.arange(tokens)[None],
            cu_seq_lens_q=borders, max_length_q=312, use_cache=False,
        )  # fmt: skip
    compilation._compiled.cache_clear()
    shared = tokens * 256 * 2  # attention's result is among them under two names
    found = first_layer(run, FLAT, Batch(1, tokens, tokens)).compiled
    assert found == pytest.approx(kept[0] - (shared if not dropout else 0), rel=0.05)
