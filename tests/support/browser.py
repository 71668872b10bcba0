"""A real browser for tests: Debian's Chromium, driven by the W3C's WebDriver over plain HTTP."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element, as the standard has it
PATIENCE_SECONDS = 60


def missing() -> str:
    """Say what a browser test lacks here; empty where it can run."""
    lacking = [] if any(map(shutil.which, NAMES)) else ["chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"no {' and no '.join(lacking)} here (Debian: chromium, chromium-driver)" * bool(lacking)


class Browser:
    """One session: `run` evaluates JavaScript, `click` and `type` are a user's own."""

    def __init__(self, port: int, session: dict[str, Any]):
        self.base = f"http://127.0.0.1:{port}"
        self.base += f"/session/{self._send('POST', '/session', session)['sessionId']}"

    def _send(self, verb: str, path: str, content: dict[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.base + path, data, method=verb)
        # No proxy: the driver is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self._send("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        body = {"script": f"return ({script})", "args": []}
        return self._send("POST", "/execute/sync", body)

    def _element(self, selector: str) -> str:
        body = {"using": "css selector", "value": selector}
        return self._send("POST", "/element", body)[ELEMENT]

    def click(self, selector: str) -> None:
        self._send("POST", f"/element/{self._element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._send("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def press(self, selector: str, key: str) -> None:
        """Press a key, such as Enter as \\ue007, where an element has the focus."""
        self.type(selector, key)

    def requests(self) -> list[str]:
        """Return the addresses of what pages from files asked for since the last call."""
        entries = self._send("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"].startswith("file:")  # not the browser's own
        ]

    def messages(self) -> list[str]:
        """Return what the console said since the last call, errors of the page included."""
        return [entry["message"] for entry in self._send("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        self._send("DELETE", "")


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile in a folder; it ends with the block."""
    program = next(filter(None, map(shutil.which, NAMES)))
    options = {
        "binary": program,
        "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
    }
    logs = {"performance": "ALL", "browser": "ALL"}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
    with open(folder / "driver.log", "w") as log:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            port = _port(driver)
            browser = Browser(port, {"capabilities": {"alwaysMatch": wanted}})
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()
            driver.wait(PATIENCE_SECONDS)
            if driver.stdout:
                driver.stdout.close()


def _port(driver: subprocess.Popen[str]) -> int:
    """Return the port that the driver says it listens at."""
    end = time.monotonic() + PATIENCE_SECONDS
    assert driver.stdout is not None
    while time.monotonic() < end:
        line = driver.stdout.readline()
        if "successfully on port " in line:
            return int(line.rsplit("on port ", 1)[1].strip(" .\n"))
        if not line and driver.poll() is not None:
            break
    raise RuntimeError("chromedriver did not say where it listens")
