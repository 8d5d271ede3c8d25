"""What a trainer is made of between two optimizer steps, as tensors and plain values, and how it is made so again.

Exact to the bit and the dtype, which loading through the libraries is not: PEFT turns adapters into float32, torch
gives optimizer states the dtype of their parameter, bitsandbytes loads paged states into tensors that are not paged.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch.optim.lr_scheduler import LambdaLR

from lorasweep import lora
from lorasweep.rules import Problem, UserError

PLAIN = (int, float, str, bool, type(None))


@dataclass
class State:
    """Tensors by name, in memory of their own, and values that JSON takes."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: torch.Tensor) -> None:
        """Keep a copy of a tensor, wherever it is: optimizers share tensors, paged ones go on being written to."""
        self.tensors[name] = value.detach().cpu().clone().contiguous()


def take(trainer: Any) -> State:
    """Return the state of a trainer after a step."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # of paged optimizers the host reads what the device writes
    state = State()
    for name, parameter in lora.trainable(trainer.model).items():
        state.add(f"parameter/{name}", parameter)
    state.values["start"] = _start_hash(trainer.model)
    state.values["optimizer"] = _take_optimizer(_plain(trainer.optimizer), trainer.model, state)
    schedule = _schedule(trainer)
    state.values["schedule"] = {"step": schedule.last_epoch, "rates": schedule.get_last_lr()}
    scaler = trainer.accelerator.scaler
    state.values["scaler"] = scaler.state_dict() if scaler else None
    state.add("log/loss", trainer._tr_loss)
    state.values["log"] = {"step": trainer._globalstep_last_logged, "metrics": dict(trainer._metrics["train"])}
    return state


def put_back(trainer: Any, state: State) -> None:
    """Make a trainer whose optimizer has taken no step what it was when the state was taken."""
    if (start := _start_hash(trainer.model)) != state.values["start"]:
        allowed = "an init that comes out as it did: what it takes out of the base is not in a checkpoint"
        raise UserError(Problem("lora.init", start, allowed))
    parameters = lora.trainable(trainer.model)
    kept = {name.partition("/")[2]: value for name, value in state.tensors.items() if name.startswith("parameter/")}
    if kept.keys() != parameters.keys():
        raise ValueError(f"other parameters are trained: {sorted(kept.keys() ^ parameters.keys())[:3]}")
    for name, parameter in parameters.items():
        _overwrite(parameter.data, kept[name], name)
    _put_back_optimizer(_plain(trainer.optimizer), parameters, state)
    _go_to(_schedule(trainer), state.values["schedule"]["step"])
    if trainer.accelerator.scaler:
        trainer.accelerator.scaler.load_state_dict(state.values["scaler"])
    trainer._tr_loss.copy_(state.tensors["log/loss"])
    trainer._globalstep_last_logged = state.values["log"]["step"]
    trainer._metrics["train"].update(state.values["log"]["metrics"])


def _schedule(trainer: Any) -> LambdaLR:
    """Return the schedule inside accelerate's wrapper."""
    inside = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    assert isinstance(inside, LambdaLR)
    return inside


def _go_to(schedule: LambdaLR, step: int) -> None:
    """Have a schedule be where it is after a step; rates of schedules depend on the step alone."""
    rates = [base * share(step) for base, share in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule.last_epoch, schedule._step_count, schedule._last_lr = step, step + 1, rates
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def take_random(prefix: str, state: State) -> None:
    """Add where every random stream is: of Python, numpy, torch on the CPU and on every GPU."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    state.values[prefix] = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, numpy.asarray(keys).tolist(), position, has_gauss, cached],
    }
    state.add(f"{prefix}/cpu", torch.get_rng_state())
    for index, stream in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()):
        state.add(f"{prefix}/cuda/{index}", stream)


def put_back_random(prefix: str, state: State) -> None:
    """Move every random stream to where it was."""
    values = state.values[prefix]
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = values["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state.tensors[f"{prefix}/cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (stream := state.tensors.get(f"{prefix}/cuda/{index}")) is not None:
            torch.cuda.set_rng_state(stream, index)


def as_lists(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """Return random streams, which are bytes, as JSON takes them."""
    return {name: value.tolist() for name, value in tensors.items()}


def as_tensors(lists: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    """Return random streams as torch takes them."""
    return {name: torch.tensor(value, dtype=torch.uint8) for name, value in lists.items()}


def _start_hash(model: Any) -> str | None:
    """Return what identifies how an adapter began whose base has changed by that; None of others."""
    start = getattr(model, "start", None) or {}
    content = b"".join(start[name].numpy().tobytes() for name in sorted(start))
    return hashlib.sha256(content).hexdigest() if start else None


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer inside accelerate's wrapper."""
    inside = getattr(optimizer, "optimizer", optimizer)
    assert isinstance(inside, torch.optim.Optimizer)
    return inside


def _take_optimizer(optimizer: torch.optim.Optimizer, model: Any, state: State) -> dict[str, Any]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    states: dict[str, dict[str, Any]] = {}
    for parameter, values in optimizer.state.items():
        name = names[parameter]
        tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
        states[name] = {key: value for key, value in values.items() if key not in tensors}
        assert all(isinstance(value, PLAIN) for value in states[name].values()), states[name]
        states[name] |= {key: {"on": value.device.type} for key, value in tensors.items()}
        for key, value in tensors.items():
            state.add(f"optimizer/{name}/{key}", value)
    return {"states": states, "groups": [[names[item] for item in group["params"]] for group in optimizer.param_groups]}


def _put_back_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], state: State
) -> None:
    kept = state.values["optimizer"]
    for number, (group, was) in enumerate(zip(optimizer.param_groups, kept["groups"], strict=True)):
        if any(parameters[name] is not item for name, item in zip(was, group["params"], strict=True)):
            raise ValueError("the optimizer has other groups of parameters")
        for place, name in enumerate(was):
            if name in kept["states"]:
                _begin_state(optimizer, group, number, place)
                optimizer.state[parameters[name]].update(
                    _state_of(name, kept["states"][name], parameters[name], optimizer, state)
                )


def _begin_state(optimizer: Any, group: Mapping[str, Any], number: int, place: int) -> None:
    """Have bitsandbytes make the state of a parameter as at its first step: paged where that is, maps shared."""
    if hasattr(optimizer, "init_state"):
        optimizer.check_overrides()
        optimizer.init_state(group, group["params"][place], number, place)


def _state_of(
    name: str, values: Mapping[str, Any], parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, state: State
) -> Iterator[tuple[str, Any]]:
    """Yield the state of a parameter by key; tensors that the optimizer has made already are overwritten in place."""
    for key, value in values.items():
        if not isinstance(value, dict):
            yield key, value
            continue
        tensor, there = state.tensors[f"optimizer/{name}/{key}"], optimizer.state[parameter].get(key)
        if isinstance(there, torch.Tensor):
            _overwrite(there, tensor, f"{key} of {name}")
        else:
            yield key, tensor.to(parameter.device if value["on"] == parameter.device.type else value["on"])


def _overwrite(target: torch.Tensor, value: torch.Tensor, name: str) -> None:
    if (target.dtype, target.shape) != (value.dtype, value.shape):
        raise ValueError(f"{name} is {target.dtype} {tuple(target.shape)}, not {value.dtype} {tuple(value.shape)}")
    with torch.no_grad():
        target.copy_(value)
