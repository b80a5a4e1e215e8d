"""Debian's chromium, headless, driven over two pipes by the DevTools protocol.

Messages are JSON, each ended by a NUL byte: chromium reads them from descriptor 3 and answers on
descriptor 4. https://chromedevtools.github.io/devtools-protocol/ lists methods and events.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import time
from pathlib import Path
from typing import Any, Self

from PIL import Image

_FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root, and the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_READ_BYTES = 1 << 16
_FIRST_FREE = 10

Message = dict[str, Any]


class Browser:
    """One chromium with one page. ``events`` are all that it told unasked, oldest first."""

    def __init__(self, binary: str, profile: Path) -> None:
        commands, self._send = _pipe()
        self._receive, answers = _pipe()
        command = [binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # Not subprocess: its own pipe to the child may be the very descriptor 3 or 4.
        self._pid = os.posix_spawn(
            binary,
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, commands, 3),
                (os.POSIX_SPAWN_DUP2, answers, 4),
            ],
        )
        os.close(commands)
        os.close(answers)
        self.events: list[Message] = []
        self._buffer = b""
        self._last_id = 0
        self._session: str | None = None

    def __enter__(self) -> Self:
        try:
            self._attach()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def call(self, method: str, **params: Any) -> Message:
        """The result of a protocol method; AssertionError with the browser's own words."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last_id:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, promises awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Until the JavaScript expression holds in the page."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"after {seconds:g} s not yet: {expression}"
            time.sleep(0.1)

    def screen(self, width: int, height: int, scheme: str) -> None:
        """A screen of so many CSS pixels, whose owner prefers ``light`` or ``dark``."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, page: Path) -> None:
        """Load a file, until text and tables stand."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for(f"location.href === {json.dumps(page.as_uri())}")
        self.wait_for("document.readyState === 'complete'")

    def screenshot(self, path: Path) -> None:
        """The whole page, beyond the screen too, as a PNG."""
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(image["data"]))

    def pixel(self, x: float, y: float) -> tuple[int, ...]:
        """Red, green and blue of a pixel of the screen."""
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        image = self.call("Page.captureScreenshot")["data"]
        shown = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
        return tuple(shown.getpixel((round(x), round(y))))

    def complaints(self) -> list[str]:
        """Errors and warnings since the page was opened: of scripts, console and policy."""
        found = []
        for event in self.events:
            match event:
                case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": what}}:
                    found.append(json.dumps(what))
                case {"method": "Runtime.consoleAPICalled", "params": {"type": kind} as what}:
                    if kind in {"error", "warning", "assert"}:
                        found.append(json.dumps(what["args"]))
                case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                    if entry["level"] in {"error", "warning"}:
                        found.append(f"{entry['text']} ({entry.get('url', '')})")
        return found

    def requests(self) -> list[str]:
        """The URLs asked for since the page was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        (page,) = [target["targetId"] for target in targets if target["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _stop(self) -> None:
        """Chromium ends when its pipe does."""
        os.close(self._send)
        os.close(self._receive)
        os.waitpid(self._pid, 0)

    def _next(self, seconds: float = 60) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], seconds)
            assert ready, f"chromium said nothing for {seconds:g} s"
            data = os.read(self._receive, _READ_BYTES)
            assert data, "chromium has gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _pipe() -> tuple[int, int]:
    """A pipe's reading and writing end, both out of the way of descriptors 3 and 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
