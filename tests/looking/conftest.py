"""The commands as a user types them, in a folder with outputs of its own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lorasweep import cli


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed as JSON, and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """What it printed, without line breaks."""
        return " ".join((self.out + self.err).split())


Command = Callable[..., Done]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lorasweep(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`lorasweep …` in a terminal of some width."""

    def command(*arguments: str, width: int = 120) -> Done:
        monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return command
