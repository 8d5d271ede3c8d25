"""Debian's chromium without a window, driven over a pipe as its developer tools would."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0
"""Seconds after which something that takes one or two has not happened."""


class Chromium:
    """One page; `troubles` are its console messages and uncaught errors (https://chromedevtools.github.io)."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.numbers, self.unread, self.session = itertools.count(1), b"", ""
        self.troubles: list[str] = []
        self.loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command; its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return dict(heard["result"])

    def open(self, path: Path, fragment: str = "", width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of this size and wait until it is loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])
        for address in ("about:blank", path.absolute().as_uri() + fragment):
            self.loaded = False
            self.send("Page.navigate", url=address)
            while not self.loaded:
                self._hear()

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """mouseMoved, mousePressed or mouseReleased at a place in the window."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", **more)

    def click(self, selector: str) -> None:
        """Click in the middle of the first element of a selector, scrolled into view."""
        x, y = self.place(selector)
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, clickCount=1)

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element in the window."""
        name = json.dumps(selector)
        box = self.run(f"document.querySelector({name}).scrollIntoView({{block: 'center'}}),"
                       f" document.querySelector({name}).getBoundingClientRect().toJSON()")  # fmt: skip
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key; `code` is its Windows virtual key code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, whole: bool = True) -> None:
        """Save what is seen, or the whole page, as a PNG."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _hear(self) -> dict[str, Any]:
        """Take in one message; what the page complains about is kept."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "chromium says nothing"
            heard = os.read(self.back, 1 << 20)
            assert heard, "chromium has ended"
            self.unread += heard
        line, _, self.unread = self.unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method = message.get("method")
        self.loaded = self.loaded or method == "Page.loadEventFired"
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.troubles.append(json.dumps(message["params"])[:1000])
        return message


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Start chromium with a profile of its own; it ends with the context."""
    program = next(found for name in PROGRAMS if (found := shutil.which(name)))
    (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()

    def pass_pipes() -> None:
        one, other = os.dup(theirs_in), os.dup(theirs_out)  # either may be 3 or 4 itself
        os.dup2(one, 3)
        os.dup2(other, 4)

    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
               "--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
    process = subprocess.Popen(
        command, preexec_fn=pass_pipes, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Chromium(to, back)
    finally:
        os.close(to)
        os.close(back)
        process.terminate()
        process.wait(PATIENCE)
