"""QLoRA hyperparameter sweeps, driven by Hydra."""

__version__ = "0.1.0"
