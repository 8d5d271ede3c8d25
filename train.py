"""Train one QLoRA run: python train.py lora.r=64 optim=paged_adamw_32bit (several values and -m: a grid of runs)."""

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lorasweep import compose, determinism
from lorasweep.host import stoppable
from lorasweep.processes import launched


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Train what the config describes and return the objective."""
    from lorasweep.preflight import check_inputs
    from lorasweep.processes.together import train_together

    with compose.user_errors():
        run = compose.to_run(config)
        if compose.is_multirun():
            check_inputs(run)
        result = train_together(run, compose.launch())
    if result.exit_code:
        raise SystemExit(result.exit_code)
    return result.objective


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with stoppable():
        if run := compose.check_command_line(Path(__file__).parent / "conf"):
            launched.claim_gpu()
            determinism.prepare(run.deterministic)
            from lorasweep.processes.together import run_together

            with compose.user_errors():
                run_together(run, main)
        else:
            main()
