"""How good each strategy's best trial is after 10, 20 and 40 trials, replayed from a table of learning curves.

python benchmarks/search_quality.py                     50 seeds, about 5 minutes; nothing is trained

Every strategy proposes and prunes with the study's own code; a trial's losses are looked up. Regret is the loss of
the best complete trial so far minus the lowest in the table. Budget is what was spent, in whole trials; a pruned one
costs its share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lorasweep.study.outcomes import State
from lorasweep.study.proposal import build_pruner, proposals
from lorasweep.study.settings import Settings
from lorasweep.study.space import Choice, Point, Space
from lorasweep.study.store import Store

TABLE = Path(__file__).with_name("search_table.json")
AFTER = (10, 20, 40)
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "tpe": {"sampler": "tpe"},
    "random with asha": {"sampler": "random", "pruner": "asha"},
    "asha": {"sampler": "tpe", "pruner": "asha"},
    "tpe with median": {"sampler": "tpe", "pruner": "median"},
}
RULE = {"lora.r": 64, "lora.alpha": 16, "optim.lr": 2e-4}


class Table:
    """Learning curves by point."""

    def __init__(self, path: Path) -> None:
        read = json.loads(path.read_text())
        self.keys, self.tokens = read["keys"], read["tokens"]
        self.curves = {tuple(values): losses for values, losses, *_ in read["cells"]}
        options = [sorted({values[index] for values in self.curves}) for index in range(len(self.keys))]
        self.space = Space(tuple(Choice(key, tuple(found)) for key, found in zip(self.keys, options, strict=True)))
        self.best = min(map(min, self.curves.values()))

    def cell(self, point: Point) -> tuple[Any, ...]:
        """Return the place of a point."""
        return tuple(point[key] for key in self.keys)


def replay(table: Table, settings: Settings, most: float) -> Iterator[tuple[float, float]]:
    """Yield budget spent and regret after every trial, until `most` whole trials are spent."""
    store = Store("sqlite:///:memory:", "replay", ["minimize"], table.space)
    pruner, tried, spent, best = build_pruner(settings, table.tokens[-1]), set(), 0.0, float("inf")
    while spent < most:
        found = (table.cell(point) for point in proposals(settings, table.space, store.frozen(), ["minimize"]))
        cell = next((cell for cell in found if cell in table.curves and cell not in tried), None)
        if cell is None:
            return
        tried.add(cell)
        number = store.create(dict(zip(table.keys, cell, strict=True)), str(cell), "sampled")
        losses: list[float] = []
        state = State.COMPLETE
        for tokens, loss in zip(table.tokens, table.curves[cell], strict=True):
            losses.append(loss)
            store.report(number, tokens, loss)
            due = round(table.tokens[-1] * len(losses) / len(table.tokens))
            if pruner and tokens < table.tokens[-1] and store.is_worse(number, tokens, pruner, due):
                state = State.PRUNED
                break
        store.finish(number, state, [min(losses)] if state is State.COMPLETE else None, {})
        spent += table.tokens[len(losses) - 1] / table.tokens[-1]
        best = min(best, *losses) if state is State.COMPLETE else best
        yield spent, best - table.best
    store.close()


def regret_at(history: list[tuple[float, float]], budget: float) -> float:
    """Return the regret when a budget is spent."""
    return min((regret for spent, regret in history if spent <= budget + 1e-9), default=float("nan"))


def summarised(values: Sequence[float]) -> str:
    """Return the mean and its standard error."""
    return f"{fmean(values):.4f} ± {stdev(values) / len(values) ** 0.5:.4f}"


def follows_rule(table: Table, cell: tuple[Any, ...]) -> bool:
    """Tell whether a cell has the values that the rule names."""
    point = dict(zip(table.keys, cell, strict=True))
    return all(point[key] == value for key, value in RULE.items())


def main() -> None:
    """Print regret by strategy and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=50)
    given = parser.parse_args()
    table = Table(given.table)
    print(f"{len(table.curves)} cells, lowest loss {table.best:.4f}, mean {fmean(map(min, table.curves.values())):.4f}")
    rule = [min(table.curves[cell]) for cell in table.curves if follows_rule(table, cell)]
    words = ", ".join(f"{key}={value:g}" for key, value in RULE.items())
    print(f"one trial by rule ({words}): regret {fmean(rule) - table.best:.4f}, mean of {len(rule)} cells")
    most = AFTER[-1]
    heads = [*(f"regret at budget {budget}" for budget in AFTER), f"{most} trials cost", "and their regret"]
    print(f"| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, options in STRATEGIES.items():
        runs = [
            list(replay(table, Settings(seed=seed, n_trials=1, **options), AFTER[-1])) for seed in range(given.seeds)
        ]
        cells = [summarised([regret_at(run, budget) for run in runs]) for budget in AFTER]
        costs, regrets = zip(*(run[most - 1] for run in runs), strict=True)
        print(f"| {name} | {' | '.join(cells)} | {fmean(costs):.1f} | {summarised(regrets)} |", flush=True)


if __name__ == "__main__":
    main()
