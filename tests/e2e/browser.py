"""A person in front of a board: logs in, opens it, and writes down what the browser did."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import Page, Request, Response, sync_playwright

from callhouse.security import web_password
from callhouse.settings import Settings

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
PATIENCE_SECONDS = 90
LOADING = ".dashboard-component-chart-holder [data-test=loading-indicator]"


@dataclass
class Visit:
    """One person's open board."""

    page: Page
    base: str
    tiles: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, slug: str, tiles: int, native_filters: str = "") -> None:
        """Open board `slug` and wait until its `tiles` charts have drawn."""
        self.tiles.clear()
        query = f"?native_filters={quote(native_filters)}" if native_filters else ""
        self.page.goto(f"{self.base}/superset/dashboard/{slug}/{query}")
        self.page.wait_for_selector(".dashboard-component-chart-holder", timeout=60_000)
        deadline = time.monotonic() + PATIENCE_SECONDS
        # The page's own policy forbids eval, hence no wait_for_function.
        while time.monotonic() < deadline:
            drawn = self.page.locator("[data-test=slice-container]").count()
            if drawn >= tiles and not self.page.locator(LOADING).count():
                break
            self.page.wait_for_timeout(250)
        else:
            raise AssertionError(f"board {slug} was not drawn within {PATIENCE_SECONDS} s")
        self.page.wait_for_timeout(2000)  # animations

    def number(self, title: str) -> str:
        """Text of the big number in the tile whose title begins with `title`."""
        tile = self.page.locator(".dashboard-component-chart-holder").filter(
            has=self.page.locator(".header-title", has_text=title)
        )
        return tile.first.locator(".header-line").inner_text().strip()

    def errors(self) -> list[str]:
        """Texts of the tiles that show an error."""
        alerts = self.page.locator(
            ".dashboard-component-chart-holder [role=alert], "
            ".dashboard-component-chart-holder .ant-alert-error"
        )
        return [text for text in alerts.all_inner_texts() if text.strip()]

    def screenshot(self, file: Path) -> None:
        """The whole board."""
        self.page.screenshot(path=str(file), full_page=True)

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
        if response.status >= 400:
            self.problems.append(f"{response.status} {response.url}")
        elif "/api/v1/chart/data" in response.url and response.request.method == "POST":
            form = json.loads(response.request.post_data or "{}").get("form_data", {})
            results = [result["data"] for result in response.json()["result"]]
            self.tiles[str(form.get("slice_id"))] = results


@contextmanager
def visit(settings: Settings, chromium: str, person: str) -> Iterator[Visit]:
    """A browser with a fresh profile in which `person` has logged in."""
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
        seen = Visit(page, base)
        page.on("request", seen.on_request)
        page.on("requestfailed", seen.on_request_failed)
        page.on("response", seen.on_response)
        page.goto(f"{base}/login/")
        page.fill("#username", person)
        page.fill("#password", web_password(settings, person))
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/login" not in url, timeout=60_000)
        try:
            yield seen
        finally:
            context.close()
