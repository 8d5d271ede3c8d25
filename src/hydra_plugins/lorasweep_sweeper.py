"""The sweeper `study` that the files in sweeps/strategy select: what -m runs."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lorasweep.study.settings import Settings


class StudySweeper(Sweeper):
    """Found by Hydra because it lives in the package hydra_plugins; the study itself is in lorasweep.study."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra composed."""
        self.loader, self.config = hydra_context.config_loader, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the study that these overrides describe."""
        from lorasweep.compose.study import start

        assert self.config is not None
        start(self.settings, self.loader, self.config, arguments)


@dataclass(kw_only=True)  # annotations must be types here: Hydra loads this module without a place in sys.modules
class StudySweeperConfig(Settings):
    """What Hydra instantiates."""

    _target_: str = "hydra_plugins.lorasweep_sweeper.StudySweeper"
    _recursive_: bool = False
    _convert_: str = "all"


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="study",
    node=StudySweeperConfig,
    provider="lorasweep",
)
