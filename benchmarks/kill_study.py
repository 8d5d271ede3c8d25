"""A toy study whose controller and workers are killed at random moments until it is done, against one left in peace.

python benchmarks/kill_study.py --kills 300             about 1.5 s a kill
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]


def main() -> None:
    from tests.study.kills import finished_attempts, kill_until_done, trained
    from tests.study.sessions import finished, trials_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--sampler", choices=("random", "tpe"), default="tpe")
    parser.add_argument(
        "--slots", type=int, default=1, help="with one, the points are compared with the study in peace"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    count = max(12, given.kills // 2)
    options = {"sampler": given.sampler, "slots": given.slots, "n_trials": count, "keep_adapters": None}
    with tempfile.TemporaryDirectory() as place:
        folder, start = Path(place, "study"), time.monotonic()
        toll = kill_until_done(folder, given.kills, given.seed, seconds=0.15, study={"fault": "children"}, **options)
        seconds = time.monotonic() - start
        trials, calm = trials_of(folder), finished(Path(place, "calm", "study"), **options)
        lost = count - len({trial.number for trial in trials if trial.value is not None})
        same = [trial.point for trial in trials] == [trial.point for trial in calm]
        print(
            f"{toll.kills} kills ({toll.controllers} of controllers, {toll.workers} of workers) in {seconds:.0f} s: "
            f"{len(trials)} trials, {lost} lost, {len(finished_attempts(folder))} finished ones repeated, "
            f"{sum(trained(folder).values())} trainings to the end, {len(toll.left)} processes left, "
            f"the last gone after {toll.slowest:.2f} s, "
            f"points {'the same as' if same else 'not those of' if given.slots == 1 else 'not compared with'} in peace"
        )


if __name__ == "__main__":
    main()
