"""A page in a headless Chromium, driven by playwright, with what the tests of this folder do to it."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
WAIT = 20.0  # seconds for anything that should happen
ARGUMENTS = (
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
MODIFIERS = {2: "Control", 8: "Shift"}

Answer = tuple[int, dict[str, str], str]
Handler = Callable[[dict[str, Any]], Answer | str | None]


class Page:
    """A window of its own: nothing of another's storage.

    Attributes:
        requests: the URLs it asked for.
        problems: what the browser complains of: exceptions, refused scripts and styles.
    """

    def __init__(self, browser: Any) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 900})
        self._page = self._context.new_page()
        self._page.set_default_timeout(1000 * WAIT)
        self._devtools = self._context.new_cdp_session(self._page)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.held: list[Any] = []
        self._handler: Handler | None = None
        self._downloads: list[Any] = []
        self._page.on("request", lambda request: self.requests.append(request.url))
        self._page.on("pageerror", lambda error: self.problems.append(str(error)))
        self._page.on("console", self._hear)
        self._page.on("download", lambda download: self._downloads.append(download))

    def _hear(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.problems.append(message.text)  # a status that is no 200 is what tests provoke

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._devtools.send(method, parameters)

    def answer_with(self, handler: Handler | None) -> None:
        """Have requests answered by (status, headers, body), failed (a text), held ("hold"), or passed on (None)."""
        if self._handler is None and handler is not None:
            self._page.route("**/*", self._decide)
        self._handler = handler

    def _decide(self, route: Any) -> None:
        request = {"url": route.request.url}
        if route.request.post_data is not None:
            request["postData"] = route.request.post_data
        answer = self._handler(request) if self._handler else None
        if answer is None:
            route.continue_()
        elif answer == "hold":
            self.held.append(route)
        elif isinstance(answer, str):
            route.abort(answer.lower())
        else:
            status, headers, body = answer
            route.fulfill(status=status, headers=headers, body=body)

    def wait_for_held(self) -> None:
        """Return when a request is held."""
        self._until(lambda: bool(self.held), "no request is held")

    def release(self) -> None:
        """Pass on what is held."""
        self._handler = None
        for route in self.held:
            route.continue_()
        self.held.clear()

    def size(self, width: int, height: int) -> None:
        """The window's size in pixels."""
        self._page.set_viewport_size({"width": width, "height": height})

    def prefer(self, **features: str) -> None:
        """What the user's system says, such as `color_scheme="dark"`."""
        self._page.emulate_media(**features)

    def go(self, url: str) -> None:
        """Open a page, and wait until it has loaded."""
        self._page.goto(url)

    def js(self, expression: str) -> Any:
        """The value of an expression; a promise's is waited for."""
        return self._page.evaluate(expression)

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        from playwright.sync_api import Error

        found: Any = None

        def is_true() -> bool:
            nonlocal found
            try:
                found = self.js(expression)
            except Error:  # the page was left in the middle
                found = None
            return bool(found)

        self._until(is_true, f"never: {expression}")
        return found

    def _until(self, happened: Callable[[], bool], words: str) -> None:
        deadline = time.monotonic() + WAIT
        while not happened():
            assert time.monotonic() < deadline, f"{words}; problems: {self.problems}"
            self._page.wait_for_timeout(50)  # while which the browser's events are heard

    def text(self, selector: str) -> str:
        """What is to be read in an element."""
        return str(self._page.inner_text(selector))

    def click(self, selector: str) -> None:
        """Press the middle of an element with the mouse."""
        element = self._page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        self._page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go; `modifiers` is a sum of `MODIFIERS`."""
        held = [name for bit, name in MODIFIERS.items() if modifiers & bit]
        self._page.keyboard.press("+".join([*held, key]))

    def type(self, text: str) -> None:
        """Type into what has the focus, key by key."""
        self._page.keyboard.type(text)

    def fill(self, selector: str, text: str) -> None:
        """Paste into a field."""
        self._page.fill(selector, text)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        self._page.set_input_files(selector, path)

    def drop_file(self, path: Path) -> None:
        """Drag a file from the desktop into the page and let it fall."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def downloaded(self, name: str) -> bytes:
        """What was saved under a name, once it is whole."""

        def named() -> list[Any]:
            return [one for one in self._downloads if one.suggested_filename == name]

        self._until(lambda: bool(named()), f"{name} is not saved")
        download = named()[0]
        self._downloads.remove(download)
        return Path(download.path()).read_bytes()

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        self._page.screenshot(path=path)

    def close(self) -> None:
        """Close the window."""
        self._context.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, or a skip that says how to have it. Only for a module: meanwhile nothing else may use asyncio."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason='playwright drives the browser: pip install -e ".[browser]"'
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None or sys.platform == "win32":
        pytest.skip(f"none of {', '.join(PROGRAMS)} is on PATH: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*ARGUMENTS])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """A window; at the end the browser must have complained of nothing, and nobody else have been asked."""
    page = Page(chromium)
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
