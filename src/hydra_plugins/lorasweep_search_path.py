"""Attaches sweeps/ (the groups space and strategy) to Hydra's search path, whatever the working directory."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class LorasweepSearchPath(SearchPathPlugin):
    """Found by Hydra because it lives in the package hydra_plugins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the checkout's sweeps/ folder."""
        sweeps = Path(__file__).parents[2] / "sweeps"
        search_path.append(provider="lorasweep", path=f"file://{sweeps}")
