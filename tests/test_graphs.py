"""The decoder as CUDA graphs: batches are made alike without changing what is learnt. Capture itself needs a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.graphs import Batch, Graphs, Place
from lorasweep.rules import UserError
from tests.conftest import problems, tiny
from tests.test_numerics import parts, train_losses

KEPT = "train.gradient_checkpointing=false"


def batch(*lengths: int) -> Batch:
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    positions = torch.cat([*map(torch.arange, lengths)])[None]
    return Batch(torch.full((1, sum(lengths)), 7), positions, borders, max(lengths))


def test_batches_of_like_size_share_one_graph() -> None:
    assert batch(30, 50).size == batch(1, 2, 100, 3).size == batch(256).size == (256, 8, 1024)
    assert batch(257).size == (512, 8, 1024)
    assert batch(1025).size == (1280, 8, 2048)
    assert batch(*[10] * 8).size == (256, 16, 1024)


def test_what_is_left_of_another_batch_is_a_row_of_its_own() -> None:
    place = Place(batch(60, 60))
    batch(60, 60).fill(place)
    batch(30, 50).fill(place)
    assert place.borders.tolist() == [0, 30, 80, 256, 256, 256, 256, 256]
    assert place.positions[0, 30:80].tolist() == list(range(50))


@pytest.mark.parametrize("options", [
    ("train.batch_size=3",), ("train.tokens_per_step=60", "train.batch_size=2"),
    ("data.packing=true", "data.max_length=128", "train.grad_accum=2"),
], ids=["rows as they come", "steps of constant tokens", "packed"])  # fmt: skip
def test_padding_to_the_size_of_a_graph_changes_no_loss(
    options: tuple[str, ...], launched: Callable[..., Path], varlen_on_cpu: None
) -> None:
    common = (KEPT, "train.max_steps=3", "evaluation.generate=2", *options)
    plain, padded = (launched(tiny(*common, f"train.graphs={on}"), str(on)) for on in (False, True))
    assert train_losses(padded) == pytest.approx(train_losses(plain), rel=1e-5)
    assert "CUDA graphs" in (padded / "train.log").read_text()


def test_gradients_go_on_where_a_graph_adds_to_them() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    graphs = Graphs(parameters)
    graphs.gradients = [torch.full((2,), 5.0) for _ in parameters]
    parameters[1].grad = torch.ones(2)  # of a pass without a graph, in the same step
    graphs.attach()
    assert [value.tolist() for value in graphs.gradients] == [[0, 0], [1, 1]]
    graphs.gradients[0] += 3  # as a replay does
    graphs.attach()
    found: Any = [parameter.grad for parameter in parameters]
    assert [value.tolist() for value in found] == [[3, 3], [1, 1]]


def test_graphs_are_refused_where_they_cannot_be_had(tmp_path: Path) -> None:
    (problem,) = problems("train.graphs=true")
    assert problem.key == "train.gradient_checkpointing"
    with pytest.raises(UserError, match=r"train\.graphs"):
        parts(tiny(KEPT, "train.graphs=true"), tmp_path)
