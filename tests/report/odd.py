"""Studies that are unlike most: what a page has to cope with."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorasweep.confirm import FOLDER, RESULT
from lorasweep.confirm.comparison import Candidate, Comparison, Confirmation
from lorasweep.record import write_json
from lorasweep.study.folder import OWNER
from lorasweep.study.outcomes import State
from tests.report.studies import BASELINE, Maker
from tests.study.trials import ended, kept

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'> & \u2028 \"quoted\""


def several_objectives(folder: Path) -> Path:
    maker = Maker(folder, objectives=["objective", "memory/peak_gib", "train/seconds"])
    maker.trial(BASELINE, "baseline")
    for _ in range(15):
        maker.trial()
    return maker.close()


def confirmed(folder: Path, inside_noise: bool = True) -> Path:
    maker = Maker(folder, 3)
    maker.trial(BASELINE, "baseline")
    for _ in range(9):
        maker.trial()
    complete = sorted(
        (trial for trial in maker.store.trials() if trial.value is not None), key=lambda trial: trial.value or 0
    )
    repeated = [*(trial for trial in complete[:3] if trial.kind != "baseline"), maker.store.trial(0)]
    candidates = [
        Candidate(trial.number, trial.kind == "baseline", trial.value or 0, [], [(trial.value or 0) + more for more in (0.002, 0.005, 0.007)])
        for trial in repeated
    ]  # fmt: skip
    interval = (-0.01, -0.02, 0.004 if inside_noise else -0.001)
    scores = {
        side: {"eval/loss": value, "eval/exact_match": 0.5}
        for side, value in (("untuned/metrics", 2.3), ("winner/metrics", 1.1))
    }
    test = {"winner": candidates[0].trial, **scores}
    comparisons = [Comparison(item.trial, interval, None) for item in candidates[1:]]
    result = Confirmation(folder.name, "loss", [43, 44, 45], candidates, comparisons, test)
    (folder / FOLDER).mkdir()
    write_json(folder / FOLDER / RESULT, asdict(result))
    return maker.close()


def running(folder: Path) -> Path:
    """As another process leaves it while it goes on."""
    maker = Maker(folder, 5)
    maker.trial(BASELINE, "baseline")
    for _ in range(7):
        maker.trial()
    for slot, reports in enumerate(({60_000: 1.4, 120_000: 1.25}, {})):
        number = maker.store.create(maker.point(), f"now {slot}", "sampled")
        maker.store.note(number, start={"choices": {}, "slot": slot, "begun": maker.free[slot].isoformat()})
        for tokens, value in reports.items():
            maker.store.report(number, tokens, value)
    write_json(folder / OWNER, {"pid": os.getppid(), "host": socket.gethostname()})
    return maker.close()


def maximised(folder: Path) -> Path:
    """A score of answers, with lists, null, truth values and a key that only some have; hostile words wherever some go."""
    space = {
        "lora.target_modules": [["q_proj", "v_proj"], "all-linear"], "train.max_grad_norm": [0.3, None],
        "data.packing": [False, True], "model.name": ["a", HOSTILE],
    }  # fmt: skip
    store = kept(folder, directions=["maximize"], **{"evaluation.objective": "exact_match"})
    store.keep("search", {"dimensions": [{"key": key, "options": values} for key, values in space.items()]})
    for number in range(12):
        point = {key: values[number % 3 % 2] for key, values in space.items()}
        point |= {"scheduler.warmup": 0.03 * number} if number % 2 else {}
        score = number * 7 % 13 / 13
        facts = {
            "eval/exact_match": score,
            "eval/loss": 2 - number / 10,
            "untuned/eval/exact_match": 0.0,
            "memory/peak_gib": float("inf"),
        }
        ended(
            store,
            point,
            State.FAILED if number == 5 else score,
            "sampled" if number else "baseline",
            facts,
            f"{HOSTILE}\nmore" if number == 5 else None,
        )
    store.close()
    return folder


def one_trial(folder: Path) -> Path:
    return _of(folder, (1.5, "baseline"))


def nothing_complete(folder: Path) -> Path:
    return _of(folder, (State.FAILED, "baseline"), (State.PRUNED, "sampled"))


def no_baseline(folder: Path) -> Path:
    return _of(folder, (1.0, "sampled"), (2.0, "sampled"), (float("1e300"), "sampled"))


def no_trials(folder: Path) -> Path:
    return _of(folder)


def all_equal(folder: Path) -> Path:
    return _of(folder, *((1.0, "sampled") for _ in range(9)))


def _of(folder: Path, *trials: tuple[Any, str]) -> Path:
    store = kept(folder)
    for number, (result, kind) in enumerate(trials):
        ended(store, {"lora.r": 8 + number}, result, kind, {"objective": 2.0} if result is State.PRUNED else {})
    store.close()
    return folder


ODD = (
    several_objectives, confirmed, running, maximised, one_trial, nothing_complete, no_baseline, no_trials, all_equal,
)  # fmt: skip
