"""The best trials again with other seeds: means, spreads, pairs, and one look at the test rows."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from rich.console import Console

from lorasweep import compose
from lorasweep.compose.checked import initialised
from lorasweep.confirm import _candidates, _chosen, confirm
from lorasweep.confirm.comparison import Candidate, Comparison, Confirmation, verdict
from lorasweep.confirm.console import show
from lorasweep.rules import UserError
from lorasweep.study.outcomes import State
from lorasweep.study.session import run_session
from lorasweep.study.trial import Trial
from lorasweep.study.view import Lines
from tests.conftest import ROOT
from tests.study.trials import defined, ended, kept, trained

OVERRIDES = (
    "-m", "study=rates", "strategy=random", "hydra.sweeper.n_trials=4", "hydra.sweeper.slots=1", "model=tiny",
    "optim.lr=1e-4,1e-2", "lora.r=4,8", "data.limit=40", "data.test_fraction=0.1", "train.max_steps=4",
    "evaluation.generate=0", "tracking.wandb=disabled", "verbosity=quiet",
)  # fmt: skip


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Confirmation, Confirmation]:
    """A study with its confirmation, and the same confirmation asked for again."""
    place = tmp_path_factory.mktemp("confirm")
    compose.register()
    _, definition = compose.checked_study(
        ROOT / "conf", compose.CommandLine.of([*OVERRIDES, f"hydra.sweep.dir={place}/rates"])
    )
    assert run_session(definition, Lines(Console(quiet=True))) is None
    first, second = (confirm(place / "rates", 1, 2, None, None, Lines(Console(quiet=True))) for _ in range(2))
    return place / "rates", first, second


@pytest.mark.slow
def test_the_best_trial_and_the_baseline_are_trained_with_new_seeds(
    confirmed: tuple[Path, Confirmation, Confirmation],
) -> None:
    _, result, _ = confirmed
    assert result.seeds == [43, 44]
    assert any(candidate.is_baseline for candidate in result.candidates)
    for candidate in result.candidates:
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in candidate.folders]
        assert candidate.values == [summary["objective"] for summary in summaries]
        assert candidate.mean == pytest.approx(fmean(candidate.values))
        assert candidate.spread == pytest.approx(stdev(candidate.values))
        assert len(set(candidate.values)) == 2, "the seeds differ"
    means = [candidate.mean for candidate in result.candidates]
    assert means == sorted(means)


@pytest.mark.slow
def test_differences_are_paired_over_seeds_and_over_rows(confirmed: tuple[Path, Confirmation, Confirmation]) -> None:
    _, result, _ = confirmed
    winner, other = result.candidates
    (comparison,) = result.comparisons
    gains = [one - two for one, two in zip(winner.values, other.values, strict=True)]
    assert comparison.over_seeds is not None
    mean, low, high = comparison.over_seeds
    assert mean == pytest.approx(fmean(gains))
    assert (high - low) / 2 == pytest.approx(12.706 * stdev(gains) / 2**0.5)
    assert comparison.over_rows is not None
    assert comparison.over_rows[0] == pytest.approx(winner.mean - other.mean, rel=1e-6)


@pytest.mark.slow
def test_asked_again_nothing_is_trained_or_scored_again(confirmed: tuple[Path, Confirmation, Confirmation]) -> None:
    study, first, second = confirmed
    assert first == second
    assert len(list((study / "confirm" / "trials").iterdir())) == 2 * len(first.candidates)


@pytest.mark.slow
def test_the_test_rows_are_scored_once(confirmed: tuple[Path, Confirmation, Confirmation]) -> None:
    study, result, _ = confirmed
    assert result.test is not None
    assert result.test["winner"] == result.candidates[0].trial
    assert result.test["winner/metrics"]["eval/loss"] < result.test["untuned/metrics"]["eval/loss"]
    assert json.loads((study / "confirm" / "test.json").read_text()) == result.test


ODD = (
    "-m", "study=odd", "hydra.sweeper.objectives=[adapter/parameters]", "hydra.sweeper.direction=maximize",
    "hydra.sweeper.slots=1", "model=tiny", "quant=none", "lora.init=orthogonal", "lora.r=3,4,8", "data.limit=24",
    "train.max_steps=1", "evaluation.generate=0", "tracking.wandb=disabled", "verbosity=quiet",
)  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Confirmation:
    """The confirmation of a study that maximises something else than the score of a run, and whose trial 0 was refused."""
    place = tmp_path_factory.mktemp("odd")
    compose.register()
    _, definition = compose.checked_study(ROOT / "conf", compose.CommandLine.of([*ODD, f"hydra.sweep.dir={place}/odd"]))
    assert run_session(definition, Lines(Console(quiet=True))) is None
    return confirm(place / "odd", 2, 2, None, None, Lines(Console(quiet=True)))


@pytest.mark.slow
def test_what_the_study_has_optimised_is_what_is_compared(odd: Confirmation) -> None:
    assert odd.objective == "adapter/parameters"
    for candidate in odd.candidates:
        assert candidate.values == [candidate.in_study] * 2
    means = [candidate.mean for candidate in odd.candidates]
    assert means == sorted(means, reverse=True)


@pytest.mark.slow
def test_a_study_whose_first_trial_never_ran_is_confirmed_as_any_other(odd: Confirmation) -> None:
    assert [candidate.trial for candidate in odd.candidates] == [2, 1]


def test_a_study_whose_configs_are_gone_is_refused(tmp_path: Path) -> None:
    ended(kept(tmp_path / "study"), {"lora.r": 8}, 1.0)
    with pytest.raises(UserError, match="whose configs are in its folder"):
        confirm(tmp_path / "study", 1, 1, None, None, Lines(Console(quiet=True)))


def test_trials_that_differ_in_their_seed_alone_are_one_candidate(tmp_path: Path) -> None:
    compose.register()
    values = {(8, 1): 2.0, (8, 2): 1.0, (16, 1): 3.0, (4, 1): 4.0, (4, 2): 0.5}
    with initialised(ROOT / "conf", None):
        definition = defined(tmp_path / "study", "model=tiny", "lora.r=4,8,16", "train.seed=1,2")
        store = kept(tmp_path / "study", definition)
        for (r, seed), value in values.items():
            kind = "baseline" if (r, seed) == (4, 1) else "sampled"
            trained(store, definition, {"lora.r": r, "train.seed": seed}, value, kind)
    assert [trial.number for trial in _chosen(store, tmp_path / "study", 1)] == [3]
    assert [trial.number for trial in _chosen(store, tmp_path / "study", 2)] == [3, 1]
    assert [trial.number for trial in _chosen(store, tmp_path / "study", 9)] == [3, 1, 2]
    store.close()


@pytest.mark.slow
def test_differences_in_loss_decide_nothing_where_the_objective_is_another(odd: Confirmation) -> None:
    (comparison,) = odd.comparisons
    assert comparison.over_rows is None
    assert comparison.over_seeds is not None
    assert not comparison.inside_noise
    assert Comparison(comparison.other, None, None).inside_noise, "with one seed there is nothing to go by"


def candidate(trial: int, *values: float) -> Candidate:
    return Candidate(trial, False, values[0], [], list(values))


@pytest.mark.parametrize(
    ("over_seeds", "over_rows", "words"),
    [
        ((-0.1, -0.2, -0.05), (-0.1, -0.15, -0.05), "Trial 3 wins"),
        ((-0.1, -0.3, 0.1), (-0.1, -0.15, -0.05), "inside the noise of trial 5"),
        ((-0.1, -0.2, -0.05), (-0.1, -0.3, 0.1), "inside the noise of trial 5"),
        (None, None, "inside the noise of trial 5"),
    ],
)
def test_a_winner_wins_only_outside_the_noise(
    over_seeds: tuple[float, float, float] | None, over_rows: tuple[float, float, float] | None, words: str
) -> None:
    comparisons = [Comparison(5, over_seeds, over_rows)]
    result = Confirmation("s", "loss", [1, 2], [candidate(3, 1.0), candidate(5, 1.1)], comparisons, None)
    assert words in verdict(result)


def test_a_trial_that_fails_with_another_seed_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s" / "confirm"
    store = kept(folder)
    ended(store, {"trial": 1, "train.seed": 43}, State.DIVERGED)
    ended(store, {"trial": 2, "train.seed": 43}, 1.5)
    store.close()
    chosen = [Trial(number, State.COMPLETE, {}, "", "sampled", [1.0]) for number in (1, 2)]
    with pytest.raises(UserError, match="seed 43 is diverged"):
        _candidates(folder, chosen[:1], [43])
    (found,), left_out = _candidates(folder, chosen, [43])
    assert (found.trial, found.values) == (2, [1.5])
    show(Confirmation("s", "loss", [43], [found], [], None, left_out))
    assert "trial 1 is left out: seed 43 is diverged" in capsys.readouterr().out


def test_a_look_at_the_test_rows_says_whose_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"winner": 5, "winner/metrics": {"eval/loss": 1.0}, "untuned/metrics": {"eval/loss": 2.0}}
    candidates = [candidate(3, 1.0), candidate(5, 1.1)]
    for winner, told in ((candidates, True), (candidates[::-1], False)):
        show(Confirmation("s", "loss", [1], winner, [], scores))
        shown = capsys.readouterr().out
        assert "trial 5" in shown
        assert ("trial 3 has not seen them" in shown) == told


def test_a_study_without_complete_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.db"):
        confirm(tmp_path, 1, 1, None, None, Lines(Console(quiet=True)))
