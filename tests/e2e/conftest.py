"""The running product: brought up in a fresh home, or one that is already running.

CALLHOUSE_E2E_HOME names the home of a running instance (CALLHOUSE_E2E_PORT_BASE its first port,
default 8400): quick while a board is being drawn. Screenshots go to artefacts/ in the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest

from callhouse import settings as settings_module
from callhouse.bi.superset_report import FLAGS
from callhouse.bi.superset_trail import BY_ITSELF
from callhouse.runner import postgres
from callhouse.security import web_password
from callhouse.settings import REPOSITORY, Settings

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Request, Response

HERE = Path(__file__).parent
UP_SECONDS = 2400
NOT_BEGUN_AGAIN = ["up failed", "TimeoutExpired", r"Timeout \(>"]
PATIENCE_SECONDS = 300
LOGIN_ATTEMPTS = 3
LOGIN_MILLISECONDS = 60_000
# A page that shows nothing is opened once more, as a person would.
OPEN_ATTEMPTS = 3
OPEN_MILLISECONDS = 100_000
Visitor = Callable[[str], AbstractContextManager["Visit"]]
QUIET_LOOKS = 8
FILTERS = "Loading filter values"
TILE = ".dashboard-component-chart-holder"
LOADING = f"{TILE} [data-test=loading-indicator]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser test that fails is run once more on the same product, and told as a rerun.

    It shares two cores with what else is tested, and what a page does then is not the product's.
    A product that does not come up, or a test that takes too long, is not begun again.
    """
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.flaky(reruns=1, rerun_except=NOT_BEGUN_AGAIN))
            # The first of them waits for the product.
            item.add_marker(pytest.mark.timeout(UP_SECONDS + 600))


@dataclass
class Visit:
    """One person's open board."""

    context: BrowserContext
    page: Page
    base: str
    answers: dict[str, dict[str, list[list[dict[str, Any]]]]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    script_errors: list[str] = field(default_factory=list)

    @property
    def tiles(self) -> dict[str, list[list[dict[str, Any]]]]:
        """What the tiles of the open page were given: answers to a page before may come late."""
        return self.answers.setdefault(urlsplit(self.page.url).path, {})

    def open(self, slug: str, tiles: int, native_filters: str = "") -> None:
        """Open board `slug` and wait until its `tiles` charts have drawn."""
        from playwright.sync_api import TimeoutError as NothingShownError

        query = f"?native_filters={quote(native_filters)}" if native_filters else ""
        for _ in range(OPEN_ATTEMPTS):
            self.answers.clear()
            self.page.goto(f"{self.base}/superset/dashboard/{slug}/{query}")
            try:
                self.page.wait_for_selector(TILE, timeout=OPEN_MILLISECONDS)
            except NothingShownError:
                warnings.warn(f"{slug} showed nothing: {self.what_is_seen()}", stacklevel=2)
                self.begin_page()
            else:
                break
        self.wait_until_drawn(slug, tiles)

    def begin_page(self) -> None:
        """A new page of the same session, instead of the one before."""
        before = self.page
        self.page = self.context.new_page()
        self.listen()
        before.close()

    def listen(self) -> None:
        """Note what the page asks for and is given."""
        # A busy machine may take its time; what fails is told all the same.
        self.page.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page.on("request", self.on_request)
        self.page.on("requestfailed", self.on_request_failed)
        self.page.on("response", self.on_response)
        self.page.on("pageerror", lambda error: self.script_errors.append(str(error)[:300]))

    def what_is_seen(self) -> str:
        """Why a page may show nothing: what went wrong and what stands on it."""
        text = self.page.locator("body").inner_text(timeout=LOGIN_MILLISECONDS)[:500]
        return f"{self.problems} {self.script_errors} {self.page.url} {text!r}"

    def wait_until_drawn(self, slug: str, tiles: int) -> None:
        """Wait until the `tiles` charts of the open board `slug` have drawn."""
        self.page.wait_for_selector(TILE)
        deadline = time.monotonic() + PATIENCE_SECONDS
        # The page's own policy forbids eval, hence no wait_for_function.
        # Until the filters have their values no tile begins, nor is any of them loading.
        quiet = 0
        while time.monotonic() < deadline:
            drawn = self.page.locator("[data-test=slice-container]").count()
            waits = self.page.locator(LOADING).count() or self.page.get_by_text(FILTERS).count()
            quiet = quiet + 1 if drawn >= tiles and not waits else 0
            if quiet > QUIET_LOOKS:
                break
            self.page.wait_for_timeout(250)
        else:
            raise AssertionError(f"board {slug} was not drawn within {PATIENCE_SECONDS} s")
        self.page.wait_for_timeout(1000)  # animations

    def number(self, title: str) -> str:
        """Text of the big number in the tile whose title begins with `title`."""
        tile = self.page.locator(TILE).filter(
            has=self.page.locator(".header-title", has_text=title)
        )
        return tile.first.locator(".header-line").inner_text().strip()

    def errors(self) -> list[str]:
        """Texts of the tiles that show an error."""
        alerts = self.page.locator(f"{TILE} [role=alert], {TILE} .ant-alert-error")
        return [text for text in alerts.all_inner_texts() if text.strip()]

    def screenshot(self, file: Path) -> None:
        """The whole board, drawn in a window of its height: a page that grows draws anew."""
        size = self.page.viewport_size
        assert size is not None
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": height})
        self.page.wait_for_timeout(2000)
        self.page.screenshot(path=str(file), full_page=True)
        self.page.set_viewport_size(size)

    def on_request_failed(self, request: Request) -> None:
        """Requests that the content security policy stopped never left."""
        if request.failure == "csp" and request.url in self.outside:
            self.outside.remove(request.url)

    def on_request(self, request: Request) -> None:
        """Note what goes anywhere but to this product."""
        parts = urlsplit(request.url)
        own = urlsplit(self.base)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != own.netloc:
            self.outside.append(request.url)

    def on_response(self, response: Response) -> None:
        """Note failures and the data that tiles were given."""
        # Every board's page tries to keep the colours it found, whether its reader may or not.
        if response.status >= 400 and not BY_ITSELF.fullmatch(urlsplit(response.url).path):
            self.problems.append(f"{response.status} {response.url}")
        elif "/api/v1/chart/data" in response.url and response.request.method == "POST":
            from playwright.sync_api import Error as GoneError

            form = json.loads(response.request.post_data or "{}").get("form_data", {})
            if "slice_id" not in form:
                return  # a filter asks which values there are
            try:
                results = [result["data"] for result in response.json()["result"]]
            except GoneError:  # the page was left in between
                return
            asked_by = urlsplit(response.request.headers["referer"]).path
            self.answers.setdefault(asked_by, {})[str(form["slice_id"])] = results


def callhouse(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Output to files, not pipes: the components inherit them and would keep a pipe open.
    log = settings.home.parent / f"callhouse_{arguments[0]}.log"
    with log.open("w", encoding="utf-8") as output:
        result = subprocess.run(
            [REPOSITORY / "callhouse", *arguments],
            env=dict(settings.environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=UP_SECONDS,
            cwd=REPOSITORY,
        )
    result.stdout = log.read_text(encoding="utf-8", errors="replace")
    return result


# Of the package: once its tests are over it makes room for the others.
@pytest.fixture(scope="package")
def product(
    tmp_path_factory: pytest.TempPathFactory, new_port_base: Callable[[], int]
) -> Iterator[Settings]:
    """Settings of a product that is up, with the sample calls published."""
    environment = {
        **os.environ,
        "CALLHOUSE_DEMO": "1",
        # DAG files do not change meanwhile, and reading them again costs a tenth of a core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
    environment.pop("PYTHONPATH", None)
    if running := os.environ.get("CALLHOUSE_E2E_HOME"):
        environment["CALLHOUSE_HOME"] = running
        environment["CALLHOUSE_PORT_BASE"] = os.environ.get("CALLHOUSE_E2E_PORT_BASE", "8400")
        yield settings_module.load(environment)
        return
    environment["CALLHOUSE_HOME"] = str(tmp_path_factory.mktemp("product") / "home")
    environment["CALLHOUSE_PORT_BASE"] = str(new_port_base())
    settings = settings_module.load(environment)
    settings.home.mkdir()
    try:
        result = callhouse(settings, "up")
        if result.returncode:
            pytest.fail(f"./callhouse up failed:\n{result.stdout[-3000:]}")
        yield settings
    finally:
        callhouse(settings, "down")
        # Where the home is closed to the server's account its data lies outside of it.
        for directory in postgres.data_directories(settings):
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept for people to look at."""
    directory = Path(os.environ.get("CALLHOUSE_ARTEFACTS") or REPOSITORY / "artefacts")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium, which the project does not install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium here: apt-get install chromium")


@pytest.fixture
def visit(product: Settings, chromium: str) -> Visitor:
    """Opens a browser with a fresh profile in which the given person has logged in."""
    pytest.importorskip("playwright", reason="the development environment has playwright")
    return lambda person: _visit(product, chromium, person)


def _log_in(seen: Visit, person: str, password: str) -> None:
    """Log in, once more where the form was drawn anew while it was being filled.

    Or where the session is none: what the login page had asked for may be answered after the
    login, with the cookie of a stranger.
    """
    from playwright.sync_api import TimeoutError as NoAnswerError

    for _ in range(LOGIN_ATTEMPTS):
        seen.page.goto(f"{seen.base}/login/", wait_until="networkidle")
        seen.page.fill("#username", person)
        seen.page.fill("#password", password)
        seen.page.click("button[type=submit]")
        try:
            # The page that follows is not looked at: its first answer is enough.
            seen.page.wait_for_url(
                lambda url: "/login" not in url, timeout=LOGIN_MILLISECONDS, wait_until="commit"
            )
        except NoAnswerError:
            said = seen.page.locator("body").inner_text()
            continue
        known = seen.context.request.get(f"{seen.base}/api/v1/me/")
        if known.ok:
            return
        said = f"{known.status} at {seen.page.url}"
        warnings.warn(f"{person} is logged out after the login: {said}", stacklevel=2)
    raise AssertionError(f"{person} could not log in: {seen.problems} and the page said {said!r}")


@contextmanager
def _visit(settings: Settings, chromium: str, person: str) -> Iterator[Visit]:
    from playwright.sync_api import sync_playwright

    base = f"http://127.0.0.1:{settings.superset_port}"
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            headless=True,
            args=FLAGS,
            viewport={"width": 1600, "height": 1900},
            locale="en-US",
        )
        page = context.pages[0] if context.pages else context.new_page()
        seen = Visit(context, page, base)
        seen.listen()
        _log_in(seen, person, web_password(settings, person))
        try:
            yield seen
        finally:
            context.close()
