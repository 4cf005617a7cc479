"""Superset datasets from the metric catalogue: one per published relation, nothing added by hand.

A metric in seconds gets a twin `<metric>_clock` in milliseconds, because Superset's only minute:
second format reads milliseconds. The twin is computed from the same expression, for display only.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from callhouse.bi import members
from callhouse.bi.superset_access import STORED_URI, WAREHOUSE
from callhouse.errors import CallhouseError

if TYPE_CHECKING:
    from callhouse.semantic import Catalogue, Column, Dataset, Metric

VERSION = "1.0.0"
DATABASE = "Callhouse"
SCHEMA = "bi"
CLOCK = "_clock"
CLOCK_FORMAT = "DURATION_COL"
# How a unit looks: rates with one decimal, counts with thousands separators.
FORMATS = {
    "count": ",d",
    "rate": ".1%",
    "seconds": ",.1f",
    "date": None,
    "number": ",.2f",
}
_NAMESPACE = uuid.UUID("7c9c4f1e-52c4-5d3f-9c55-6a0a7b1f2f10")


def identity(kind: str, name: str) -> str:
    """Stable uuid of an asset: the same name is the same asset on every instance."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{name}"))


def database() -> dict[str, Any]:
    """The connection "Callhouse", without host, person or password (see superset_access)."""
    return {
        "database_name": DATABASE,
        "sqlalchemy_uri": STORED_URI,
        "cache_timeout": None,
        "expose_in_sqllab": True,
        "allow_run_async": False,
        "allow_ctas": False,
        "allow_cvas": False,
        "allow_dml": False,
        "allow_csv_upload": False,
        "impersonate_user": False,
        "extra": {
            # Row security gives each login other rows: a cache shared by people would leak them.
            "per_user_caching": True,
            "allows_virtual_table_explore": False,
            "cancel_query_on_windows_unload": True,
            "metadata_params": {},
            "engine_params": {},
            "metadata_cache_timeout": {},
            "schemas_allowed_for_csv_upload": [],
        },
        "uuid": identity("database", DATABASE),
        "version": VERSION,
    }


def dataset(source: Dataset, language: str) -> dict[str, Any]:
    """Asset of one dataset; texts in `language`."""
    metrics = [asset for metric in source.metrics for asset in _metric(metric, language)]
    return {
        "table_name": source.name,
        "main_dttm_col": source.main_time_column,
        "description": source.description,
        "default_endpoint": None,
        "offset": 0,
        "cache_timeout": None,
        "catalog": WAREHOUSE,
        "schema": SCHEMA,
        "sql": None,
        "params": None,
        "template_params": None,
        "filter_select_enabled": True,
        "fetch_values_predicate": None,
        "extra": None,
        "normalize_columns": False,
        "always_filter_main_dttm": False,
        "uuid": identity("dataset", source.name),
        "metrics": metrics,
        "columns": [_column(source, column, language) for column in source.columns],
        "version": VERSION,
        "database_uuid": identity("database", DATABASE),
    }


def _column(source: Dataset, column: Column, language: str) -> dict[str, Any]:
    return {
        "column_name": column.name,
        "verbose_name": _label(column, language),
        "is_dttm": column.is_time,
        "is_active": True,
        "type": column.data_type.upper(),
        "groupby": True,
        "filterable": True,
        "expression": members.expression(source.name, column.name, language)
        if column.data_type == "text"
        else None,
        "description": column.description or None,
        "python_date_format": None,
    }


def _metric(metric: Metric, language: str) -> list[dict[str, Any]]:
    label = _label(metric, language)
    if metric.unit not in FORMATS:
        raise CallhouseError(
            f"metric {metric.name} has unit {metric.unit!r}: use one of {', '.join(FORMATS)}"
        )
    asset = {
        "metric_name": metric.name,
        "verbose_name": label,
        "metric_type": None,
        "expression": metric.expression,
        "description": _description(metric),
        "d3format": FORMATS[metric.unit],
        "currency": None,
        "extra": None,
        "warning_text": None,
    }
    if metric.unit != "seconds":
        return [asset]
    unit = {"en": "s", "zh": "秒"}[language]
    clock = {
        **asset,
        "metric_name": metric.name + CLOCK,
        "expression": f"1000 * round({metric.expression})",
        "d3format": CLOCK_FORMAT,
    }
    opening, closing = ("（", "）") if language == "zh" else (" (", ")")
    return [{**asset, "verbose_name": f"{label}{opening}{unit}{closing}"}, clock]


def _description(metric: Metric) -> str | None:
    """What people read beside a number: its meaning, and the target it is held against."""
    if metric.target in ("", "none"):
        return metric.description or None
    return f"{metric.description} Target: {metric.target}."


def _label(item: Column | Metric, language: str) -> str:
    return str(getattr(item, f"label_{language}") or item.label_en or item.name)


def shown_metric(source: Dataset, name: str, where: str) -> str:
    """Saved metric that displays metric `name`; CallhouseError when the dataset has none."""
    for metric in source.metrics:
        if metric.name == name:
            return name + CLOCK if metric.unit == "seconds" else name
    known = ", ".join(sorted(m.name for m in source.metrics)) or "none"
    raise CallhouseError(
        f"{where}: dataset {source.name} has no saved metric {name!r}; it has: {known}"
    )


def known_column(source: Dataset, name: str, where: str) -> str:
    """`name` if the dataset has that column, else CallhouseError."""
    if name not in {column.name for column in source.columns}:
        raise CallhouseError(f"{where}: dataset {source.name} has no column {name!r}")
    return name


def find(catalogue: Catalogue, name: str, where: str) -> Dataset:
    """Dataset `name` of the catalogue, else CallhouseError."""
    for source in catalogue.datasets:
        if source.name == name:
            return source
    known = ", ".join(sorted(d.name for d in catalogue.datasets))
    raise CallhouseError(f"{where}: there is no dataset {name!r}; there are: {known}")
