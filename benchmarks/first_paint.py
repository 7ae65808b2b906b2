"""Measure how soon a page of the built book is painted on a slow line.

    python benchmarks/first_paint.py

The pages of `_build/html` are served compressed, as GitHub Pages does it, to
Chromium, whose throttling makes a line of 1.6 Mbit/s on which every answer
begins 150 ms after the question. Nothing is cached. It prints the median time
of the first paint and of the end of loading, and what had come over the line
before each.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).parents[1] / "_build" / "html"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
LINE = {
    "offline": False,
    "latency": 150,  # ms
    "downloadThroughput": 1.6e6 / 8,  # bytes per second
    "uploadThroughput": 0.75e6 / 8,
}
PHONE = {"width": 390, "height": 844}
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".xml"}
TIMES = """() => {
    const paint = performance.getEntriesByType("paint")[0].startTime;
    const [page] = performance.getEntriesByType("navigation");
    const before = performance.getEntriesByType("resource").filter(
        entry => entry.responseEnd <= paint);
    return {
        paint, load: page.loadEventStart, requests: before.length + 1,
        bytes: [page, ...before].reduce((n, e) => n + e.encodedBodySize, 0),
    };
}"""


class Compressing(SimpleHTTPRequestHandler):
    """Serves files compressed, and does not write down which."""

    def do_GET(self) -> None:
        """Send one file."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        if path.suffix in COMPRESSED:
            data = gzip.compress(data, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and give its address."""
    handler = functools.partial(Compressing, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measure(browser: Browser, url: str) -> dict[str, Any]:
    """Open a page once, with nothing in the cache, and return its times."""
    page = browser.new_page(viewport=PHONE)
    try:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        session.send("Network.emulateNetworkConditions", LINE)
        page.goto(url, wait_until="load", timeout=120_000)
        return dict(page.evaluate(TIMES))
    finally:
        page.close()


def main() -> None:
    """Print a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted(f"book/{path.name}" for path in SITE.glob("book/*.html"))
    parser.add_argument("pages", nargs="*", default=names)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = shutil.which("chromium") or shutil.which("google-chrome")
    print("paint s  load s  requests  KB before paint")
    with sync_playwright() as playwright, served(SITE) as address:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        for name in arguments.pages:
            runs = [
                measure(browser, f"{address}/{name}")
                for _ in range(arguments.rounds)
            ]
            paint, load, requests, size = (
                statistics.median(run[key] for run in runs)
                for key in ("paint", "load", "requests", "bytes")
            )
            print(
                f"{paint / 1e3:7.2f} {load / 1e3:7.2f} {requests:9.0f}"
                f" {size / 1e3:16.0f}  {name}"
            )
        browser.close()


if __name__ == "__main__":
    main()
