"""Size of a report, and how long chromium takes to open it: fetched, parsed, every figure drawn.

python benchmarks/report_page.py                         500 trials, the median of 5 times
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]


def main() -> None:
    """Print one table."""
    from lorasweep.report import report
    from tests.report.chromium import chromium
    from tests.report.studies import large

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[40, 500])
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    print("| trials | MB | written in s | opened in s, 1280 wide | 480 wide |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, chromium(Path(place) / "profile") as browser:
        for count in options.trials:
            folder = large(Path(place) / str(count), count)
            start = time.perf_counter()
            page = report(folder, folder / "report.html")
            cells = [f"{page.stat().st_size / 1e6:.1f}", f"{time.perf_counter() - start:.1f}"]
            for width in (1280, 480):
                each = []
                for _ in range(options.times):
                    start = time.perf_counter()
                    browser.open(page, width=width)
                    assert browser.run("document.documentElement.dataset.drawn")
                    each.append(time.perf_counter() - start)
                cells.append(f"{statistics.median(each):.2f}")
            print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
