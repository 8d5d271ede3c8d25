"""`python -m lorasweep.cli` is `lorasweep`."""

from lorasweep.cli import main

main()
