"""Pictures of boards and saved charts as the recipient sees them, and the rows behind them.

Runs in the Superset environment: a job on stdin, one line of JSON on stdout for each of its items.
A browser opens the page with a session of the recipient, so entitlements, cache keys and the audit
trail are those of that person; the rows are the answers that the page itself was given.
"""

from __future__ import annotations

import base64
import html
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PATIENCE_SECONDS = 400
ASKING: dict[str, Any] = {"max_retries": 3, "timeout": 1000 * PATIENCE_SECONDS}
SETTLE_MILLISECONDS = 1_500  # animations
WIDTH, HEIGHT = 1400, 1200
PAGE_WIDTH = 1000
LARGEST = 12_000  # pixels: what mail programs still show
LOCALES = {"en": "en-GB", "zh": "zh-CN"}
HOLDER = ".dashboard-component-chart-holder"
TEXT = ".dashboard-markdown"
BUSY = "[data-test=loading-indicator], .loading"
ALERTS = "[role=alert], .ant-alert-error"
# What is there to be clicked.
BARE = ".header-controls, .dashboard-component-header, .sort-icon { display: none !important; }"


class CannotBeShownError(Exception):
    """The page could not be drawn for this person; the message says why, without any row."""


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    from playwright.sync_api import Error, sync_playwright

    app = None
    if any("html" not in item for item in job["items"]):
        from superset.app import create_app

        app = create_app()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=job["chromium"], headless=True, args=list(FLAGS)
        )
        for item in job["items"]:
            try:
                told = _Page(browser, app, job["base"]).show(item)
            except (CannotBeShownError, Error) as error:
                told = {"problem": _said(error)}
            sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        browser.close()


class _Page:
    """One item in a browser context of its own: nothing of one person reaches the next."""

    def __init__(self, browser: Any, app: Any, base: str) -> None:
        self.browser, self.app, self.base = browser, app, base
        self.answers: dict[int, dict[str, Any]] = {}
        self.failed: list[str] = []

    def show(self, item: dict[str, Any]) -> dict[str, Any]:
        is_page = "html" in item
        context = self.browser.new_context(
            # A picture is at least as high as the window.
            viewport={
                "width": PAGE_WIDTH if is_page else WIDTH,
                "height": 200 if is_page else HEIGHT,
            },
            locale=LOCALES[item["language"]],
            timezone_id=item["time_zone"],
        )
        try:
            context.set_default_timeout(1000 * PATIENCE_SECONDS)
            page = context.new_page()
            tiles: list[dict[str, Any]] = []
            if is_page:
                page.set_content(item["html"])
                picture = page.screenshot(full_page=True)
            else:
                context.add_cookies(self._session(item))
                page.on("response", self._heard)
                page.route("**/api/v1/**", lambda route: _translated(route, item["words"]))
                tiles = self._board(page, item) if "board" in item else self._chart(page, item)
                page.add_style_tag(content=BARE)
                page.wait_for_timeout(SETTLE_MILLISECONDS)
                picture = page.screenshot(full_page=True)
            Path(item["picture"]).write_bytes(picture)
            self._document(context, item, picture)
        finally:
            context.close()
        return {"tiles": tiles}

    def _session(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """A session cookie of the recipient, as their own log-in would have made it."""
        from flask import Response, session
        from flask_login import login_user
        from superset import security_manager

        with self.app.test_request_context("/login"):
            user = security_manager.find_user(username=item["person"])
            if user is None or not user.is_active:
                raise CannotBeShownError(f"{item['person']} is no active user of Superset")
            login_user(user)
            session["locale"] = item["language"]
            response = Response()
            self.app.session_interface.save_session(self.app, session, response)
        name = self.app.config["SESSION_COOKIE_NAME"]
        text = response.headers["Set-Cookie"].split(";")[0].removeprefix(f"{name}=")
        return [{"name": name, "value": text, "url": self.base, "httpOnly": True}]

    def _get(self, page: Any, path: str) -> Any:
        answer = page.request.get(self.base + path, **ASKING)
        if not answer.ok:
            raise CannotBeShownError(f"Superset answers {answer.status} to {path.split('?')[0]}")
        return answer.json()["result"]

    def _board(self, page: Any, item: dict[str, Any]) -> list[dict[str, Any]]:
        import prison

        slug = quote(item["board"])
        charts = self._get(page, f"/api/v1/dashboard/{slug}/charts")
        labels = {}
        for dataset in self._get(page, f"/api/v1/dashboard/{slug}/datasets"):
            labels[dataset["id"]] = dataset["verbose_map"]
        chosen = quote(prison.dumps(self._filters(page, item)))
        # 3: without menus and filter bar.
        page.goto(f"{self.base}/superset/dashboard/{slug}/?standalone=3&native_filters={chosen}")
        self._wait(page, "[data-test=slice-container]", len(charts), HOLDER)
        return self._tiles(charts, labels, item["words"])

    def _filters(self, page: Any, item: dict[str, Any]) -> dict[str, Any]:
        """Values of the board's filters as its filter bar would write them, by their ids."""
        board = self._get(page, f"/api/v1/dashboard/{quote(item['board'])}")
        known = json.loads(board["json_metadata"]).get("native_filter_configuration", [])
        wanted = dict(item["filters"])
        masks: dict[str, Any] = {}
        has_period = False
        for one in known:
            if one.get("filterType") == "filter_time":
                has_period = True
                value: Any = item["time_range"]
                form: dict[str, Any] = {"time_range": value}
            else:
                found = wanted.pop(one["id"], None) or wanted.pop(one["name"], None)
                if found is None:
                    continue
                value = [found]
                column = one["targets"][0]["column"]["name"]
                form = {"filters": [{"col": column, "op": "IN", "val": value}]}
            masks[one["id"]] = {
                "id": one["id"],
                "extraFormData": form,
                "filterState": {"value": value, "label": str(value), "validateStatus": False},
                "ownState": {},
            }
        if wanted:
            raise CannotBeShownError(f"the board has no filter {', '.join(sorted(wanted))}")
        if not has_period:
            raise CannotBeShownError("the board has no filter for its period")
        return masks

    def _chart(self, page: Any, item: dict[str, Any]) -> list[dict[str, Any]]:
        with self.app.app_context():
            from superset import db
            from superset.models.slice import Slice

            found = db.session.query(Slice).filter_by(slice_name=item["chart"]).all()
            if len(found) != 1:
                raise CannotBeShownError(f"{len(found)} charts are called {item['chart']}, not one")
            number, dataset = found[0].id, found[0].datasource_id
        chart = self._get(page, f"/api/v1/chart/{number}")
        form = json.loads(chart["params"])
        form |= {"slice_id": number, "datasource": f"{dataset}__table"}
        form["adhoc_filters"] = [
            {**one, "comparator": item["time_range"]}
            if one.get("operator") == "TEMPORAL_RANGE"
            else one
            for one in form.get("adhoc_filters", [])
        ]
        labels = self._get(page, f"/api/v1/explore/?slice_id={number}")["dataset"]["verbose_map"]
        key = self._kept_form(page, number, dataset, form)
        page.goto(f"{self.base}/explore/?form_data_key={key}&slice_id={number}&standalone=1")
        self._wait(page, ".slice_container, [data-test=slice-container]", 1, "body")
        shown = {"id": number, "slice_name": item["chart"], "form_data": form}
        return self._tiles([shown], {dataset: labels}, item["words"])

    def _kept_form(self, page: Any, number: int, dataset: int, form: dict[str, Any]) -> str:
        """Key of the chart's form with another period; the saved chart stays as it is."""
        token = self._get(page, "/api/v1/security/csrf_token/")
        content = {
            "chart_id": number,
            "datasource_id": dataset,
            "datasource_type": "table",
            "form_data": json.dumps(form),
        }
        answer = page.request.post(
            f"{self.base}/api/v1/explore/form_data",
            **ASKING,
            data=content,
            headers={"X-CSRFToken": token, "Referer": self.base},
        )
        if not answer.ok:
            raise CannotBeShownError(f"Superset answers {answer.status} to the chart's period")
        return str(answer.json()["key"])

    def _wait(self, page: Any, selector: str, number: int, within: str) -> None:
        """Until `number` charts are drawn and their data is here."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        # The page's own policy forbids eval, hence no wait_for_function.
        while time.monotonic() < deadline:
            busy = page.locator(", ".join(f"{within} {one}" for one in BUSY.split(", "))).count()
            drawn = page.locator(selector).count()
            if "/login" in page.url:
                raise CannotBeShownError("Superset does not take the session")
            is_drawn = drawn >= number and len(self.answers) >= number
            # A chart that shows an error is never drawn.
            if not busy and (is_drawn or self.failed or self._alerts(page, within)):
                break
            page.wait_for_timeout(250)
        else:
            missing = number - len(self.answers)
            raise CannotBeShownError(
                f"the page was not drawn within {PATIENCE_SECONDS} s; {missing} charts lack data"
            )
        # What an alert says may be a row of a table: only that there is one is told.
        if self.failed or self._alerts(page, within):
            raise CannotBeShownError(
                f"a chart shows an error ({', '.join(self.failed) or 'alert'})"
            )
        # Not the page's height: a table that scrolls in its tile would count with all its rows.
        height = page.evaluate(
            f"Math.max(...[...document.querySelectorAll('{HOLDER}, {TEXT}, {selector}')]"
            ".map(e => e.getBoundingClientRect().bottom)) + 20"
        )
        page.set_viewport_size({"width": WIDTH, "height": min(max(int(height), 300), LARGEST)})

    def _alerts(self, page: Any, within: str) -> bool:
        """Whether a chart shows an error in its place."""
        alerts = page.locator(", ".join(f"{within} {one}" for one in ALERTS.split(", ")))
        return any(text.strip() for text in alerts.all_inner_texts())

    def _heard(self, response: Any) -> None:
        if "/api/v1/chart/data" not in response.url or response.request.method != "POST":
            return
        if response.status >= 400:
            self.failed.append(f"HTTP {response.status}")
            return
        form = json.loads(response.request.post_data or "{}").get("form_data", {})
        result = response.json()["result"]
        if result and form.get("slice_id"):
            self.answers[int(form["slice_id"])] = result[0]

    def _tiles(
        self, charts: list[dict[str, Any]], labels: dict[int, dict[str, str]], words: dict[str, str]
    ) -> list[dict[str, Any]]:
        tiles = []
        for chart in charts:
            answer = self.answers.get(chart["id"])
            if answer is None:
                raise CannotBeShownError("a chart was drawn without asking for data")
            dataset = int(str(chart["form_data"]["datasource"]).split("__")[0])
            named = labels.get(dataset, {})
            columns = answer["colnames"]
            tiles.append(
                {
                    "title": words.get(chart["slice_name"], chart["slice_name"]),
                    "name": chart["slice_name"],
                    "kind": chart["form_data"]["viz_type"],
                    "columns": columns,
                    "labels": [words.get(named.get(c, c), named.get(c, c)) for c in columns],
                    "times": [c for c, kind in zip(columns, answer["coltypes"], strict=True)
                              if kind == 2],
                    "rows": [[row.get(c) for c in columns] for row in answer["data"]],
                }
            )  # fmt: skip
        return tiles

    def _document(self, context: Any, item: dict[str, Any], picture: bytes) -> None:
        """PDF of one page as long as the picture, headed by what the mail says."""
        page = context.new_page()
        encoded = base64.b64encode(picture).decode()
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in item["heading"][1:])
        heading = f"<h1>{html.escape(item['heading'][0])}</h1>"
        headed = (
            "<style>body{margin:24px;font-family:sans-serif;color:#1D2733}"
            "h1{font-size:22px;margin:0 0 8px}p{font-size:13px;margin:2px 0}"
            "img{width:100%;margin-top:16px}</style>"
            f'{heading}{lines}<img src="data:image/png;base64,{encoded}">'
        )
        page.set_content(item.get("html", headed))
        page.wait_for_timeout(100)
        page.emulate_media(media="screen")
        height = page.evaluate("document.documentElement.scrollHeight") + 2
        width = PAGE_WIDTH if "html" in item else WIDTH
        page.pdf(
            path=item["document"], width=f"{width}px", height=f"{height}px", print_background=True
        )


def _said(error: Exception) -> str:
    """What went wrong, without the browser's log of the request: that has the session's cookie."""
    return " ".join(str(error).split("Call log")[0].split())[:300]


def _translated(route: Any, words: dict[str, str]) -> None:
    """Answers about boards, charts and datasets with their words in the recipient's language."""
    path = route.request.url.split("?")[0]
    told = any(part in path for part in ("/dashboard/", "/explore", "/dataset/"))
    if route.request.method != "GET" or not words or not told:
        route.continue_()
        return
    # The server may just be closing the connection that is used again.
    answer = route.fetch(**ASKING)
    try:
        content = answer.json()
    except ValueError:
        route.fulfill(response=answer)
        return
    route.fulfill(response=answer, json=_replaced(content, words))


def _replaced(content: Any, words: dict[str, str]) -> Any:
    """`content` with every text that is a key of `words` replaced, JSON within texts, too."""
    if isinstance(content, dict):
        return {key: _replaced(value, words) for key, value in content.items()}
    if isinstance(content, list):
        return [_replaced(value, words) for value in content]
    if isinstance(content, str):
        if content in words:
            return words[content]
        if content[:1] in "{[" and len(content) > 1:
            try:
                return json.dumps(_replaced(json.loads(content), words), ensure_ascii=False)
            except ValueError:
                return content
    return content


if __name__ == "__main__":
    main()
