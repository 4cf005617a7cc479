"""What a report says beside its pictures, in both languages, and the page of changes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from callhouse.bi import theme

if TYPE_CHECKING:
    from callhouse.reports.changes import Change

WORDS = {
    "en": {
        "period": "{first} to {last}",
        "one_day": "{first}",
        "rows_of": "For {label}: only calls that this person may see.",
        "as_of": "Data as of {at} ({zone}); {published} of {days} days are published.",
        "one_of": (
            "{filter}: {value}. Not in it: {others}; each has a report of its own, with {name}=… "
            "as its filter."
        ),
        "not_yet": "Nothing is published yet.",
        "held": "Held back, not in these numbers: {days}.",
        "restated": "Restated since first published: {days}.",
        "incidents": "Incidents of capture: {items}.",
        "attached": "Attached: PDF{csv}.",
        "csv": " and the rows as CSV",
        "no_csv": "Rows as CSV are attached for people with the right to export.",
        "empty": "No call in this period that you may see.",
        "link": "Open it in Callhouse",
        "owner": "Set up by {owner}, who can end it.",
        "failed_subject": "Report not sent: {title}",
        "failed": "The report {title} ({name}) was not sent to {person}: {reason}.",
        "failed_more": "`./callhouse report history {name}` shows all of its mails.",
        "metric": "Metric",
        "difference": "Difference",
        "significance": "Significance",
        "z": "two-proportion z test on calls",
        "welch": "Welch's t test on daily values",
        "none": "too few days or calls to test",
        "yes": "changed",
        "no": "within chance",
        "points": "pts",
        "a_day": " a day",
        "note": (
            "p is adjusted for the number of metrics (Holm); changed means p < 5 %. The z test "
            "takes calls as independent of each other, so on very many calls it also finds changes "
            "that do not matter: read it together with the difference. Counts are compared by day, "
            "because months differ in length."
        ),
        "annotations": "What else happened",
        "nothing": "No day was held or restated, and no incident that you may see.",
    },
    "zh": {
        "period": "{first} 至 {last}",
        "one_day": "{first}",
        "rows_of": "收件人：{label}。仅包含其有权查看的通话。",
        "as_of": "数据截至 {at}（{zone}）；{days} 天中已发布 {published} 天。",
        "one_of": "{filter}：{value}。未包含：{others}，可另设报告并以 {name}=… 筛选。",
        "not_yet": "尚无已发布的数据。",
        "held": "未通过审核、未计入的日期：{days}。",
        "restated": "发布后重述的日期：{days}。",
        "incidents": "采集事件：{items}。",
        "attached": "附件：PDF{csv}。",
        "csv": "及 CSV 明细",
        "no_csv": "CSV 明细仅提供给有导出权限的人员。",
        "empty": "此期间内没有您有权查看的通话。",
        "link": "在 Callhouse 中打开",
        "owner": "由 {owner} 设置，可由其停止。",
        "failed_subject": "报告未发送：{title}",
        "failed": "报告 {title}（{name}）未能发送给 {person}：{reason}。",
        "failed_more": "`./callhouse report history {name}` 列出其全部邮件。",
        "metric": "指标",
        "difference": "变化",
        "significance": "显著性",
        "z": "双比例 z 检验（按通话）",
        "welch": "Welch t 检验（按日值）",
        "none": "天数或通话过少，无法检验",
        "yes": "有变化",
        "no": "属正常波动",
        "points": "个百分点",
        "a_day": "/日",
        "note": (
            "p 值已按指标个数校正（Holm）；“有变化”指 p < 5 %。z 检验假定通话相互独立，"
            "通话很多时也会检出无关紧要的变化，请结合变化幅度阅读。各月天数不同，数量按日比较。"
        ),
        "annotations": "同期事件",
        "nothing": "没有未通过审核或重述的日期，也没有您有权查看的事件。",
    },
}  # fmt: skip
STYLE = f"""
body {{ margin: 24px; font-family: Inter, 'Noto Sans CJK SC', 'Noto Sans SC', 'PingFang SC',
  'Microsoft YaHei', 'WenQuanYi Micro Hei', Helvetica, Arial, sans-serif; color: {theme.INK}; }}
h1 {{ font-size: 24px; margin: 0 0 8px; }} h2 {{ font-size: 16px; margin: 28px 0 8px; }}
p, li {{ font-size: 14px; line-height: 1.5; margin: 2px 0; }}
table {{ border-collapse: collapse; width: 100%; margin: 20px 0 8px; }}
th {{ text-align: right; font-size: 13px; font-weight: 600; color: #5B6773; padding: 8px 12px;
  border-bottom: 2px solid {theme.INK}; }}
td {{ text-align: right; font-size: 16px; padding: 12px; border-bottom: 1px solid #DDE3E9;
  font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child, th:last-child, td:last-child {{ text-align: left; }}
td:last-child {{ font-size: 13px; }} .small {{ font-size: 12px; color: #5B6773; }}
.yes {{ font-weight: 700; }} .no {{ color: #5B6773; }}
"""


def dates(language: str, start: date, end: date) -> str:
    """The days from `start` to the one before `end`."""
    last = end - timedelta(days=1)
    key = "one_day" if last == start else "period"
    return WORDS[language][key].format(first=start.isoformat(), last=last.isoformat())


def ranges(days: Sequence[date]) -> str:
    """Days, those in a row as the first and the last of them."""
    runs: list[list[date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1][1:] = [day]
        else:
            runs.append([day])
    return ", ".join(" – ".join(day.isoformat() for day in run) for run in runs)


def moment(at: datetime, zone: str) -> str:
    """An instant on a clock of `zone`."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def number(value: float | None, unit: str) -> str:
    """As people write it: rates with one decimal, seconds as min:s, counts with separators."""
    if value is None:
        return "–"
    if unit == "rate":
        return f"{value:.1%}"
    if unit == "seconds":
        minutes, seconds = divmod(round(abs(value)), 60)
        return f"{'-' if value < 0 and minutes + seconds else ''}{minutes}:{seconds:02d}"
    return f"{value:,.0f}" if unit == "count" else f"{value:,.2f}"


def difference(change: Change, language: str) -> str:
    """The difference with its sign: rates in percentage points, counts by day, and in per cent."""
    if change.compared is None:
        return "–"
    now, before = change.compared
    delta = now - before
    sign = "+" if delta > 0 else ""
    if change.unit == "rate":
        return f"{sign}{100 * delta:.1f} {WORDS[language]['points']}"
    share = f" ({sign}{delta / before:.1%})" if before else ""
    by_day = WORDS[language]["a_day"] if change.unit == "count" else ""
    return f"{sign}{number(delta, change.unit)}{by_day}{share}"


def significance(change: Change, language: str) -> str:
    """Which test, its p and what it says."""
    words = WORDS[language]
    if change.p_value is None:
        return words["none"]
    p = "p < 0.001" if change.p_value < 0.001 else f"p = {change.p_value:.3f}"
    verdict = words["yes"] if change.is_significant else words["no"]
    return f"{verdict}: {p}, {words[change.test]}"


def changes_page(
    heading: Sequence[str], changes: Sequence[Change], notes: Sequence[str], language: str,
    now: tuple[date, date], before: tuple[date, date],
) -> str:  # fmt: skip
    """The page of changes; `heading` is its title and lines."""
    words = WORDS[language]
    escape = html.escape
    rows = "".join(
        f"<tr><td>{escape(change.label(language))}</td><td>{number(change.now, change.unit)}</td>"
        f"<td>{number(change.before, change.unit)}</td><td>{escape(difference(change, language))}"
        f'</td><td class="{"yes" if change.is_significant else "no"}">'
        f"{escape(significance(change, language))}</td></tr>"
        for change in changes
    )
    columns = (words["metric"], f"{now[0]:%Y-%m}", f"{before[0]:%Y-%m}",
               words["difference"], words["significance"])  # fmt: skip
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join(f"<p>{escape(line)}</p>" for line in heading[1:])
    items = "".join(f"<li>{escape(note)}</li>" for note in notes or (words["nothing"],))
    return (
        f"<!doctype html><style>{STYLE}</style><h1>{escape(heading[0])}</h1>{lines}"
        f"<table><tr>{head}</tr>{rows}</table><p class=small>{escape(words['note'])}</p>"
        f"<h2>{escape(words['annotations'])}</h2><ul>{items}</ul>"
    )
