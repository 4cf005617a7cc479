"""Data Docs: the pages of the last audits, built from their results without any network."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from callhouse.quality import gx
from callhouse.quality.runner import SuiteRun
from callhouse.settings import Settings

# Audits whose pages are kept. Older results stay in ops.expectation_results.
KEPT_AUDITS = 20
SITE = "audits"
# What a page would fetch from elsewhere when it is opened.
OUTSIDE = re.compile(
    r"<script[^>]*\ssrc=[\"']https?://[^>]*>\s*</script>"
    r"|<link[^>]*\shref=[\"']https?://[^>]*>"
    r"|<img[^>]*\ssrc=[\"']https?://[^>]*>",
    re.DOTALL,
)
STYLE = Path(__file__).with_name("pages.css")


def context(settings: Settings) -> Any:
    """A context whose results and pages lie in the instance's home, and nothing else of it."""
    results = results_directory(settings)
    for directory in (results, settings.data_docs):
        directory.mkdir(parents=True, exist_ok=True)
    config = gx.DataContextConfig(
        store_backend_defaults=gx.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={
            SITE: {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(settings.data_docs),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            }
        },
        analytics_enabled=False,
        progress_bars={"globally": False, "metric_calculations": False},
    )
    config.stores[config.validation_results_store_name] = {
        "class_name": "ValidationResultsStore",
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(results),
        },
    }
    return gx.gx.get_context(mode="ephemeral", project_config=config)


def results_directory(settings: Settings) -> Path:
    """Results that the pages are rendered from."""
    return settings.data_docs.parent / "data_docs_results"


def build(settings: Settings, data_context: Any, name: str, runs: list[SuiteRun]) -> Path:
    """Add the pages of one audit, drop the oldest, and return the index page."""
    store = data_context.validation_results_store
    run_id = gx.RunIdentifier(run_name=name, run_time=datetime.now(UTC))
    keys = []
    for run in runs:
        identifier = gx.ValidationResultIdentifier(
            expectation_suite_identifier=gx.ExpectationSuiteIdentifier(run.suite.name),
            run_id=run_id,
            batch_identifier=run.suite.relation.replace(".", "_"),
        )
        good = [outcome for outcome in run.validation if outcome.success]
        number = len(run.validation)
        result = gx.ExpectationSuiteValidationResult(
            success=len(good) == number,
            results=run.validation,
            suite_name=run.suite.name,
            statistics={
                "evaluated_expectations": number,
                "successful_expectations": len(good),
                "unsuccessful_expectations": number - len(good),
                "success_percent": 100 * len(good) / number if number else None,
            },
            meta={
                "run_id": run_id,
                "active_batch_definition": {
                    "datasource_name": "warehouse",
                    "data_asset_name": run.suite.relation,
                },
            },
        )
        store.set(identifier, result)
        keys.append(identifier)
    _forget_old(settings)
    with gx.quiet():
        data_context.build_data_docs(site_names=[SITE], resource_identifiers=keys)
    for page in settings.data_docs.rglob("*.html"):
        _keep_local(page)
    return _write_index(settings)


def _write_index(settings: Settings) -> Path:
    """The list of pages, the newest audit first: the library's own is drawn by scripts."""
    rows = []
    results = results_directory(settings)
    for result in results.rglob("*.json"):
        suite, name, _, _ = place = result.relative_to(results).with_suffix(".html").parts
        content = json.loads(result.read_text(encoding="utf-8"))
        rows.append((name, suite, bool(content["success"]), "/".join(("validations", *place))))
    rows.sort(key=lambda row: row[1])
    rows.sort(key=lambda row: row[0], reverse=True)
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td><a href='{escape(link)}'>{escape(suite)}</a></td>"
        f"<td class='{'text-success' if good else 'text-danger'}'>"
        f"{'all hold' if good else 'some do not'}</td></tr>"
        for name, suite, good, link in rows
    )
    index = settings.data_docs / "index.html"
    _replace(
        index,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Audits</title>"
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body><div class='container'>"
        "<h1>Audits</h1><table><tr><th>Audit</th><th>Suite</th><th>Expectations</th></tr>"
        f"{lines}</table></div></body></html>",
    )
    return index


def _replace(page: Path, text: str) -> None:
    """Whoever opens the page meanwhile gets the old one or the new one, never half of one."""
    partial = page.with_name(f".{page.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(page)


def _keep_local(page: Path) -> None:
    """Nothing of a page comes from the network, nor tells anybody there that it was opened."""
    text = page.read_text(encoding="utf-8")
    if OUTSIDE.search(text):
        style = f"<style>{STYLE.read_text(encoding='utf-8')}</style></head>"
        text = OUTSIDE.sub("", text).replace("</head>", style, 1)
        _replace(page, text)


def _forget_old(settings: Settings) -> None:
    """Results lie in <suite>/<run name>/<run time>/; the site follows what is left."""
    for suite in results_directory(settings).iterdir():
        if suite.is_dir():
            for run in sorted(p for p in suite.iterdir() if p.is_dir())[:-KEPT_AUDITS]:
                shutil.rmtree(run)
