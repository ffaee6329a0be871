"""A headless Chromium, driven over a pipe by its DevTools protocol, so that no package is needed but the browser."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
WAIT = 20.0  # seconds for anything that should happen
ARGUMENTS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Chromium reads commands from file 3 and writes to file 4, whatever numbers the pipes have here.
LAUNCH = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]\n"
    "os.dup2(ends[0], 3), os.dup2(ends[1], 4)\n"
    "os.closerange(10, 64)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "End": 35}
CTRL, SHIFT = 2, 8

Answer = tuple[int, dict[str, str], str]
Handler = Callable[[dict[str, Any]], Answer | str | None]


class Chromium:
    """A browser, and the pipe to it."""

    def __init__(self, program: str, folder: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        arguments = [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # which root cannot have
        command = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), program, *arguments]
        with (folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "about:blank"], pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "HOME": str(folder)},
            )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._buffer = 0, b""
        self._answers: dict[int, Any] = {}
        self.pages: dict[str, Page] = {}

    def post(self, method: str, session: str | None = None, **parameters: Any) -> int:
        """Send a command; its number."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        return self._number

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Send a command and wait for what it answers."""
        number, deadline = self.post(method, session, **parameters), time.monotonic() + WAIT
        while number not in self._answers:
            assert time.monotonic() < deadline, f"{method} is not answered"
            self.listen(0.5)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def listen(self, seconds: float) -> None:
        """Take in what the browser says within some seconds, as soon as it says something."""
        if not select.select([self._in], [], [], seconds)[0]:
            return
        data = os.read(self._in, 2**20)
        assert data, "Chromium ended"
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif (page := self.pages.get(message.get("sessionId", ""))) is not None:
                page.hear(message["method"], message["params"])

    def close(self) -> None:
        """End the browser."""
        with suppress(OSError):
            self.post("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """A window of its own: nothing of another's storage.

    Attributes:
        requests: the URLs it asked for.
        problems: what the browser complains of: exceptions, refused scripts and styles.
    """

    def __init__(self, chromium: Chromium, downloads: Path) -> None:
        self._chromium, self.downloads = chromium, downloads
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._handler: Handler | None = None
        self.held: list[str] = []
        self._context = chromium.call("Target.createBrowserContext")["browserContextId"]
        target = chromium.call("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = chromium.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        chromium.pages[self._session] = self
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        chromium.call(
            "Browser.setDownloadBehavior", behavior="allow", browserContextId=self._context,
            downloadPath=str(downloads),
        )  # fmt: skip
        self.size(1280, 900)

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._chromium.call(method, self._session, **parameters)

    def hear(self, method: str, event: dict[str, Any]) -> None:
        """An event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.problems.append(details.get("exception", details).get("description", details["text"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            if event["entry"]["source"] == "network":
                return  # a status that is no 200, which tests provoke
            self.problems.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Fetch.requestPaused":
            self._decide(event)

    def _decide(self, event: dict[str, Any]) -> None:
        answer = self._handler(event["request"]) if self._handler else None
        number = event["requestId"]
        if answer is None:
            self._chromium.post("Fetch.continueRequest", self._session, requestId=number)
        elif answer == "hold":
            self.held.append(number)
        elif isinstance(answer, str):
            self._chromium.post("Fetch.failRequest", self._session, requestId=number, errorReason=answer)
        else:
            status, headers, body = answer
            self._chromium.post(
                "Fetch.fulfillRequest", self._session, requestId=number, responseCode=status,
                responseHeaders=[{"name": name, "value": value} for name, value in headers.items()],
                body=base64.b64encode(body.encode()).decode(),
            )  # fmt: skip

    def answer_with(self, handler: Handler | None) -> None:
        """Have requests answered by (status, headers, body), failed by a reason, held ("hold"), or passed on (None)."""
        self._handler = handler
        self.call("Fetch.enable", patterns=[{"urlPattern": "*"}])

    def wait_for_held(self) -> None:
        """Return when a request is held."""
        deadline = time.monotonic() + WAIT
        while not self.held:
            assert time.monotonic() < deadline, "no request is held"
            self._chromium.listen(0.05)

    def release(self) -> None:
        """Pass on what is held."""
        self._handler = None
        for number in self.held:
            self._chromium.post("Fetch.continueRequest", self._session, requestId=number)
        self.held.clear()

    def size(self, width: int, height: int) -> None:
        """The window's size in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """What the user's system says, such as `color_scheme="dark"`."""
        named = [{"name": f"prefers-{name.replace('_', '-')}", "value": v} for name, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def go(self, url: str) -> None:
        """Open a page, and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        # the old document, or none, may still be there; an address may gain a slash
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression; a promise's is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        deadline = time.monotonic() + WAIT
        while True:
            with suppress(AssertionError):  # the page was left in the middle
                if value := self.js(expression):
                    return value
            assert time.monotonic() < deadline, f"never: {expression}; problems: {self.problems}"
            self._chromium.listen(0.05)

    def text(self, selector: str) -> str:
        """What is to be read in an element."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Press the middle of an element with the mouse."""
        place = self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type into what has the focus, key by key."""
        for sign in text:
            if sign.isascii() and sign.isprintable():
                self.press(sign)
            else:
                self.call("Input.insertText", text=sign)

    def fill(self, selector: str, text: str) -> None:
        """Paste into a field."""
        self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.value = {json.dumps(text)};"
            "one.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop_file(self, path: Path) -> None:
        """Drag a file from the desktop into the page and let it fall."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def downloaded(self, name: str) -> bytes:
        """What was saved under a name, once it is whole; the file goes."""
        path, deadline = self.downloads / name, time.monotonic() + WAIT
        while not path.is_file() or not path.stat().st_size or list(self.downloads.glob("*.crdownload")):
            assert time.monotonic() < deadline, (
                f"{name} is not saved; there is {list(self.downloads.iterdir())}"
            )
            self._chromium.listen(0.05)
        content = path.read_bytes()
        path.unlink()
        return content

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Close the window."""
        self._chromium.call("Target.disposeBrowserContext", browserContextId=self._context)
        del self._chromium.pages[self._session]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser, or a skip that says how to have it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None or sys.platform == "win32":
        pytest.skip(f"none of {', '.join(PROGRAMS)} is on PATH: apt-get install chromium")
    browser = Chromium(program, tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def page(chromium: Chromium, tmp_path: Path) -> Iterator[Page]:
    """A window; at the end the browser must have complained of nothing, and nobody else have been asked."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    page = Page(chromium, folder)
    try:
        yield page
        assert page.problems == []
        hosts = {url.split("/")[2] for url in page.requests if url.startswith("http")}
        assert len(hosts) <= 1, hosts
        assert all(
            url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "about:")) for url in page.requests
        )
    finally:
        page.close()
