"""A PostgreSQL server of the tests' own: Debian's programs, a folder of its own, killed and started again at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

USER, PASSWORD = "sweeper", "p4ss/w0rd@n0where"
SECONDS_TO_START = 60.0
SETTINGS = ("fsync=off", "max_connections=200", "shared_buffers=16MB", "log_min_messages=fatal")


def binaries() -> Path | None:
    """The folder of initdb and postgres, where Debian puts them or on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def needed_binaries() -> Path:
    """Skip a test that has no server; in CI there has to be one."""
    if found := binaries():
        return found
    assert "CI" not in os.environ, "PostgreSQL is not installed, which .ci/run does"
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


class Server:
    """A server that listens on a loopback port and on a socket in its folder."""

    def __init__(self, place: Path, programs: Path) -> None:
        self.place, self.programs = place, programs
        self.data = place / "data"
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as end:
            end.bind(("127.0.0.1", 0))
            self.port = int(end.getsockname()[1])
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(place, account.pw_uid, account.pw_gid)
        secret = place / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        initialise = ["initdb", "-D", str(self.data), "-U", USER, f"--pwfile={secret}", "-A", "scram-sha-256", "-N"]
        subprocess.run(self._command(initialise), check=True, capture_output=True, cwd=place)

    def url(self, database: str, password: str | None = PASSWORD) -> str:
        """The address of a database, on the loopback port."""
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql+psycopg://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        command = ["postgres", "-D", str(self.data), "-p", str(self.port), "-k", str(self.place), "-h", "127.0.0.1"]
        with open(self.place / "log", "ab") as log:
            self.process = subprocess.Popen(
                self._command([*command, *options]), stdout=log, stderr=log, cwd=self.place, start_new_session=True
            )
        end = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            assert time.monotonic() < end, (self.place / "log").read_text()[-2000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server and all its processes at once."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def create(self, database: str) -> str:
        """Make an empty database; its address."""
        import psycopg

        with psycopg.connect(self._address(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def _address(self) -> str:
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"

    def _answers(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError):
            psycopg.connect(self._address(), connect_timeout=5).close()
            return True
        return False

    def _command(self, command: list[str]) -> list[str]:
        program, *arguments = command
        change = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--"]
        return [*(change if os.getuid() == 0 else []), str(self.programs / program), *arguments]


@contextmanager
def server(place: Path) -> Iterator[Server]:
    """A server that runs, in a folder that its own user can reach."""
    started = Server(place, needed_binaries())
    try:
        started.start()
        yield started
    finally:
        started.kill()
