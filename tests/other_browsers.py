"""Firefox and WebKit, as far as the tests of the live figures need them.

Both are driven by WebDriver: Firefox has it on a socket of its own
(Marionette), WebKitGTK in a program that answers HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

PATIENCE = 120  # seconds for a browser to start, and for a script to end
RUN = """
const [source, given, done] = arguments;
(0, eval)(source)(...given).then(
    value => done({value}), error => done({error: `${error}`}));
"""


class Missing(Exception):
    """A browser is not installed."""


def find(*names: str) -> str:
    """Return the path of the first of some programs that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise Missing(f"not installed: {' or '.join(names)}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def connect(port: int) -> socket.socket:
    """Wait until something listens at a port."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE + 9)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Driven:
    """A browser with one page. Subclasses start it and pass on commands."""

    process: subprocess.Popen[bytes]

    def navigate(self, url: str) -> Any:
        """Open a page, and wait until it is loaded."""
        raise NotImplementedError

    def enter_frame(self) -> Any:
        """Run all that follows in the first frame of the page."""
        raise NotImplementedError

    def execute(self, script: str, args: list[Any]) -> Any:
        """Run a script that calls its last argument with a result."""
        raise NotImplementedError

    def navigate_narrow(self, url: str, width: int, folder: Path) -> None:
        """Open a page in a frame: windows are not as narrow as a phone.

        Args:
            url: The address of the page.
            width: The width of the frame in pixels.
            folder: Where the page with the frame is written.
        """
        path = folder / "frame.html"
        style = f"border: 0; width: {width}px; height: 844px"
        path.write_text(
            '<!doctype html><meta charset="utf-8"><title>Frame</title>'
            f'<iframe src="{url}" style="{style}"></iframe>',
            "utf-8",
        )
        self.navigate(path.as_uri())
        self.enter_frame()

    def run(self, function: str, *args: Any) -> Any:
        """Call an asynchronous function of JavaScript, as playwright does.

        Raises:
            RuntimeError: The function has failed.
        """
        result = self.execute(RUN, [f"({function})", list(args)])
        if "error" in result:
            raise RuntimeError(result["error"])
        return result.get("value")

    def close(self) -> None:
        """End the browser, and all that it has started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(PATIENCE)


class Firefox(Driven):
    """Firefox, with a new profile in `folder`."""

    def __init__(self, folder: Path) -> None:
        program, port = find("firefox", "firefox-esr"), free_port()
        folder.joinpath("user.js").write_text(
            f'user_pref("marionette.port", {port});\n'
        )
        self.process = subprocess.Popen(
            [
                *(program, "--headless", "--no-remote", "--marionette"),
                *("--profile", str(folder)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.stream = connect(port).makefile("rwb")
        self.receive()  # a greeting
        self.ask("NewSession")
        self.ask("SetTimeouts", script=1000 * PATIENCE)

    def receive(self) -> Any:
        """Read a message: its length, a colon, JSON."""
        length = b""
        while (byte := self.stream.read(1)) != b":":
            length += byte
        return json.loads(self.stream.read(int(length)))

    def ask(self, command: str, **options: Any) -> Any:
        """Send a command, and return its result."""
        text = json.dumps([0, 1, f"WebDriver:{command}", options]).encode()
        self.stream.write(b"%d:%b" % (len(text), text))
        self.stream.flush()
        _, _, error, result = self.receive()
        if error:
            raise RuntimeError(error["message"])
        return result

    def navigate(self, url: str) -> Any:
        return self.ask("Navigate", url=url)

    def enter_frame(self) -> Any:
        return self.ask("SwitchToFrame", id=0)

    def execute(self, script: str, args: list[Any]) -> Any:
        return self.ask("ExecuteAsyncScript", script=script, args=args)[
            "value"
        ]


class WebKit(Driven):
    """MiniBrowser of WebKitGTK, on a screen that is not there."""

    def __init__(self, folder: Path) -> None:
        program, port = find("WebKitWebDriver"), free_port()
        self.process = subprocess.Popen(
            [find("xvfb-run"), "-a", program, f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        connect(port).close()
        self.root = f"http://127.0.0.1:{port}/session"
        found = self.post("", capabilities={})
        self.root += f"/{found['sessionId']}"
        self.post("/timeouts", script=1000 * PATIENCE)

    def post(self, path: str, **options: Any) -> Any:
        """Send a command, and return its result."""
        request = Request(
            self.root + path,
            json.dumps(options).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=PATIENCE + 9) as answer:
            return json.load(answer)["value"]

    def navigate(self, url: str) -> Any:
        return self.post("/url", url=url)

    def enter_frame(self) -> Any:
        return self.post("/frame", id=0)

    def execute(self, script: str, args: list[Any]) -> Any:
        return self.post("/execute/async", script=script, args=args)

    def close(self) -> None:
        with urlopen(Request(self.root, method="DELETE"), timeout=PATIENCE):
            super().close()
