"""The study engine: what to try next, in which process, and what came of it."""
