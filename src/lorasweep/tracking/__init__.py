"""W&B as a view: one process beside a run or a study feeds it from run folders, live or later. Training never waits."""
