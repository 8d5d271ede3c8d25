"""Train one QLoRA run: python train.py lora.r=64 optim=paged_adamw_32bit (several values and -m: a grid of runs)."""

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lorasweep import compose, determinism
from lorasweep.host import stoppable


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Train what the config describes and return the objective."""
    from lorasweep.host import OwnProcess
    from lorasweep.preflight import check_inputs
    from lorasweep.run import train

    with compose.user_errors():
        run = compose.to_run(config)
        if compose.is_multirun():
            check_inputs(run)
        result = train(run, compose.launch(), OwnProcess())
    if result.exit_code:
        raise SystemExit(result.exit_code)
    return result.objective


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with stoppable():
        if run := compose.check_command_line(Path(__file__).parent / "conf"):
            determinism.prepare(run.deterministic)
            from lorasweep.preflight import check_inputs

            with compose.user_errors():
                check_inputs(run)
            import lorasweep.run  # noqa: F401  takes seconds, and from here on Hydra makes a folder
        main()
