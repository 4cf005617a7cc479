"""Dataset of bi.data_status, which publishing keeps and dbt does not know."""

from __future__ import annotations

from callhouse.semantic import Column, Dataset, Metric

NAME = "data_status"


def data_status() -> Dataset:
    """One row per business day: what is published of it, and what is held back and why."""
    return Dataset(
        name=NAME,
        description="One row per business day: its state, revision and time of publication.",
        columns=(
            Column("business_day", "date", "Business day.", "Business day", "业务日"),
            Column(
                "status",
                "text",
                "complete: final. provisional: newer rows wait. held: the newest version failed "
                "its audit, the last good one is shown.",
                "Status",
                "状态",
            ),
            Column(
                "published_at",
                "timestamp with time zone",
                "When the shown version was published.",
                "Published at (UTC)",
                "发布时间（UTC）",
            ),
            Column("revision", "integer", "How often the day was published.", "Revision", "版次"),
            Column("reason", "text", "Why the day is held.", "Reason", "原因"),
            Column(
                "followup_status",
                "text",
                "Status of the day's follow-ups (first contact resolution), which are built after "
                "the days around it.",
                "Follow-ups",
                "后续来电状态",
            ),
        ),
        metrics=(
            _metric(
                "data_as_of",
                "max(business_day) filter (where published_at is not null)",
                "Data as of",
                "数据截至",
                "Last published business day.",
                "date",
            ),
            _metric(
                "business_days",
                "count(*)",
                "Business days",
                "业务日数",
                "Business days with data.",
                "count",
            ),
            _metric(
                "held_days",
                "count(*) filter (where status = 'held')",
                "Held days",
                "未发布日数",
                "Days whose newest version failed its audit.",
                "count",
            ),
        ),
    )


def _metric(
    name: str, expression: str, label_en: str, label_zh: str, description: str, unit: str
) -> Metric:
    return Metric(
        name=name,
        expression=expression,
        relation=NAME,
        columns=frozenset(),
        is_additive=False,
        label_en=label_en,
        label_zh=label_zh,
        description=description,
        unit=unit,
    )
