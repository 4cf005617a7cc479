"""What a notification says, in the instance's language."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from callhouse.alerts import link
from callhouse.alerts.channels import Letter
from callhouse.alerts.metrics import METRICS
from callhouse.settings import Settings

WORDS = {
    "en": {
        "colon": ": ", "comma": ", ", "limits": "{text} ({limit})",
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
        "over": "Over: {value} after {minutes} min.",
        "ended_after": "Its rule ended after {minutes} min.",
        "button": "I look after it",
        "taken": "Taken up by {person} at {at}.", "done": "You have taken it up.",
        "late": "It was over before anybody took it up.", "untaken": "Nobody has taken it up yet.",
        "not_yours": "This alert is outside what you may see, or there is no such alert.",
        "key": "Rule {rule}, {key}",
    },
    "zh": {
        "colon": "：", "comma": "，", "limits": "{text}（{limit}）",
        "fired": "告警", "escalated": "未确认升级", "resolved": "恢复", "ended": "规则已结束",
        "info": "提示", "warning": "警告", "critical": "严重",
        "all": "全中心", "pipeline": "数据管道", "source": "数据源", "region": "地区",
        "team": "班组", "queue": "技能组", "agent": "坐席",
        "limit_above": "阈值：不低于{limit}", "limit_below": "阈值：不高于{limit}",
        "since": "自{at}起超限，{opened}发出。",
        "why": "监控原因：{reason}",
        "owner": "负责人：{owner}。", "unowned": "{owner}尚未确认，现升级至您。",
        "take_up": "确认：{url}",
        "over": "已恢复：{value}，历时{minutes}分钟。",
        "ended_after": "规则在{minutes}分钟后结束。",
        "button": "由我处理",
        "taken": "{person}已于{at}确认。", "done": "您已确认。",
        "late": "确认前已恢复。", "untaken": "尚无人确认。",
        "not_yours": "该告警不存在，或超出您的权限范围。",
        "key": "规则 {rule}，{key}",
    },
}  # fmt: skip


def title(settings: Settings, kind: str, alert: dict[str, Any]) -> str:
    """One line. `alert`: a row of ops.alerts, or of bi.fct_alert_events."""
    words = WORDS[settings.language]
    what = "ended" if kind == "resolved" and alert["resolution"] == "rule ended" else kind
    subject = _subject(settings, alert)
    text = f"[{words[alert['severity']]}] {words[what]}{words['colon']}{subject}"
    shown = alert["resolved_value"] if kind == "resolved" else alert["value"]
    return text if shown is None else f"{text}{words['colon']}{_value(shown, alert)}"


def facts(settings: Settings, alert: dict[str, Any]) -> list[str]:
    """The value and its limit, since when, and how it ended."""
    words, zone = WORDS[settings.language], ZoneInfo(settings.time_zone)

    def clock(at: datetime) -> str:
        return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")

    limit = words[f"limit_{alert['comparison']}"].format(limit=_value(alert["fire_at"], alert))
    lines = [
        words["limits"].format(
            text=f"{_subject(settings, alert)}{words['colon']}{_value(alert['value'], alert)}",
            limit=limit,
        ),
        words["since"].format(at=clock(alert["breached_at"]), opened=clock(alert["opened_at"])),
    ]
    if alert["resolved_at"]:
        minutes = (alert["resolved_at"] - alert["opened_at"]).total_seconds() / 60
        if alert["resolved_value"] is None:
            lines.append(words["ended_after"].format(minutes=f"{minutes:.0f}"))
        else:
            value = _value(alert["resolved_value"], alert)
            lines.append(words["over"].format(value=value, minutes=f"{minutes:.0f}"))
    return lines


def letter(settings: Settings, key: str, kind: str, alert: dict[str, Any]) -> Letter:
    """The text for one person. `alert`: a row of ops.alerts with its rule's `reason`."""
    words, is_over = WORDS[settings.language], kind == "resolved"
    lines = facts(settings, alert)
    if not is_over:
        owner = words["owner" if kind == "fired" else "unowned"]
        lines += [
            owner.format(owner=alert["owner"] or "–"),
            words["why"].format(reason=alert["reason"]),
            words["take_up"].format(url=link.url(settings, alert["alert_id"])),
        ]
    lines.append(words["key"].format(rule=alert["rule"], key=key))
    return Letter(
        key=key,
        title=title(settings, kind, alert),
        body="\n".join(lines),
        is_urgent=alert["severity"] == "critical" and not is_over,
        is_good=is_over,
    )


def _subject(settings: Settings, alert: dict[str, Any]) -> str:
    words, metric = WORDS[settings.language], METRICS.get(alert["metric"])
    label = alert["metric"]
    if metric:
        label = metric.label_zh if settings.language == "zh" else metric.label_en
    whole = alert["scope_type"] in ("all", "pipeline")
    scope = words[alert["scope_type"]] + ("" if whole else f" {alert['scope_id']}")
    return f"{label}{words['comma']}{scope}"


def _value(value: Decimal, alert: dict[str, Any]) -> str:
    metric = METRICS.get(alert["metric"])
    unit = metric.unit if metric else "count"
    if unit == "rate":
        return f"{float(value):.1%}"
    text = f"{float(value):.1f}".rstrip("0").rstrip(".")
    return f"{text} s" if unit == "seconds" else text
