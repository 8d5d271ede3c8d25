"""A command line taken apart by Hydra's own parsers, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lorasweep.rules import MISSING, Problem

REFUSED_FLAGS = ("config_path", "config_name", "experimental_rerun")
"""They would compose something else than what was checked; the last one reads a pickle."""


@dataclass
class CommandLine:
    """What was asked for, and what is wrong with how it was asked."""

    overrides: list[Override]
    multirun: bool
    informs: bool
    """Help, information or shell completion is asked for, not a run."""
    shows_config: bool
    """The composed config is to be printed: checked like a run, but nothing is trained."""
    config_dir: Path | None
    problems: list[Problem] = field(default_factory=list)
    resumes: bool = False
    """A run goes on in its folder: the arguments are made from what is saved there."""

    @classmethod
    def of(cls, arguments: Sequence[str]) -> CommandLine:
        """Parse the arguments after `train.py`."""
        options = get_args_parser().parse_args(list(arguments))
        informs = bool(options.help or options.hydra_help or options.info or options.shell_completion)
        folder = Path(options.config_dir).resolve() if options.config_dir else None
        line = cls([], options.multirun, informs, options.cfg is not None, folder)
        for flag in REFUSED_FLAGS:
            if (value := getattr(options, flag)) is not None:
                allowed = "not supported: use --config-dir FOLDER experiment=NAME, which keeps every check"
                line.problems.append(Problem("--" + flag.replace("_", "-"), value, allowed))
        if not informs:
            line._parse(options.overrides)
            line._check_config_dir()
        return line

    def _parse(self, texts: Sequence[str]) -> None:
        parser = OverridesParser.create()
        for text in texts:
            try:
                self.overrides += parser.parse_overrides([text])
            except HydraException as error:
                reason = str(error).splitlines()[0]
                self.problems.append(Problem(text, MISSING, f"key=value as Hydra writes it ({reason})"))

    def _check_config_dir(self) -> None:
        folder = self.config_dir
        if folder is None:
            return
        if not folder.is_dir():
            self.problems.append(Problem("--config-dir", str(folder), "an existing folder with config groups"))
        elif folder.name == ".hydra" or (folder / "config.yaml").exists():
            allowed = "a folder with config groups; a config.yaml in it would be ignored, so this one is refused"
            self.problems.append(Problem("--config-dir", str(folder), allowed))
