"""What a notification says, in the instance's language."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from callhouse.alerts import link
from callhouse.alerts.channels import Letter
from callhouse.alerts.rules import METRICS
from callhouse.settings import Settings

WORDS = {
    "en": {
        "fired": "Alert", "escalated": "Not acknowledged", "resolved": "Over",
        "ended": "Rule ended",
        "info": "info", "warning": "warning", "critical": "critical",
        "all": "whole centre", "pipeline": "pipeline", "source": "source", "region": "region",
        "team": "team", "queue": "queue", "agent": "agent",
        "limit_above": "limit: {limit} or more", "limit_below": "limit: {limit} or less",
        "since": "Beyond the limit since {at}, told at {opened}.",
        "why": "Why it is watched: {reason}",
        "owner": "It is {owner}'s.", "unowned": "It escalates to you: {owner} has not taken it up.",
        "take_up": "Take it up: {url}",
        "over": "Now {value}, after {minutes} min.",
        "key": "Rule {rule}, {key}",
    },
    "zh": {
        "fired": "告警", "escalated": "未确认升级", "resolved": "恢复", "ended": "规则已结束",
        "info": "提示", "warning": "警告", "critical": "严重",
        "all": "全中心", "pipeline": "数据管道", "source": "数据源", "region": "地区",
        "team": "班组", "queue": "技能组", "agent": "座席",
        "limit_above": "阈值：不低于{limit}", "limit_below": "阈值：不高于{limit}",
        "since": "自{at}起超限，{opened}发出。",
        "why": "监控原因：{reason}",
        "owner": "负责人：{owner}。", "unowned": "{owner}尚未确认，现升级至您。",
        "take_up": "确认：{url}",
        "over": "当前{value}，历时{minutes}分钟。",
        "key": "规则 {rule}，{key}",
    },
}  # fmt: skip


def letter(settings: Settings, key: str, kind: str, alert: dict[str, Any]) -> Letter:
    """The text for one person. `alert`: a row of ops.alerts with its rule's `reason`."""
    words, metric = WORDS[settings.language], METRICS.get(alert["metric"])
    label = alert["metric"]
    if metric:
        label = metric.label_zh if settings.language == "zh" else metric.label_en
    unit = metric.unit if metric else "count"
    zone = ZoneInfo(settings.time_zone)

    def clock(at: datetime) -> str:
        return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")

    whole = alert["scope_type"] in ("all", "pipeline")
    scope = words[alert["scope_type"]] + ("" if whole else f" {alert['scope_id']}")
    is_over = kind == "resolved"
    limit = words[f"limit_{alert['comparison']}"].format(limit=_value(alert["fire_at"], unit))
    shown = alert["resolved_value"] if is_over else alert["value"]
    what = "ended" if is_over and alert["resolution"] == "rule ended" else kind
    title = f"[{words[alert['severity']]}] {words[what]}: {label}, {scope}"
    if shown is not None:
        title += f": {_value(shown, unit)}"
    lines = [
        f"{label}, {scope}: {_value(alert['value'], unit)} ({limit})",
        words["since"].format(at=clock(alert["breached_at"]), opened=clock(alert["opened_at"])),
    ]
    if is_over:
        minutes = (alert["resolved_at"] - alert["opened_at"]).total_seconds() / 60
        if shown is not None:
            lines.append(words["over"].format(value=_value(shown, unit), minutes=f"{minutes:.0f}"))
    else:
        owner = words["owner" if kind == "fired" else "unowned"]
        lines.append(owner.format(owner=alert["owner"]))
        lines.append(words["why"].format(reason=alert["reason"]))
        lines.append(words["take_up"].format(url=link.url(settings, alert["alert_id"])))
    lines.append(words["key"].format(rule=alert["rule"], key=key))
    return Letter(
        key=key,
        title=title,
        body="\n".join(lines),
        is_urgent=alert["severity"] == "critical" and not is_over,
        is_good=is_over,
    )


def _value(value: Decimal, unit: str) -> str:
    if unit == "rate":
        return f"{float(value):.1%}"
    text = f"{float(value):.1f}".rstrip("0").rstrip(".")
    return f"{text} s" if unit == "seconds" else text
