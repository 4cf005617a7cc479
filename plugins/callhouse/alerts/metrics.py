"""What a rule may watch: the floor as live.metric_values has it, and the pipeline itself."""

from __future__ import annotations

from dataclasses import dataclass

QUEUES = ("all", "source", "region", "queue")
TEAMS = ("all", "source", "region", "team")
CALLS = ("all", "source", "region", "team", "queue", "agent")
AGENT = ("agent",)
LANE = ("all", "source")
PIPELINE = ("pipeline",)


@dataclass(frozen=True)
class Metric:
    """What a rule may watch: its words for people, its unit and its kinds of scope."""

    label_en: str
    label_zh: str
    unit: str  # count, seconds or rate (0 to 1)
    scopes: tuple[str, ...]


METRICS = {
    "waiting_now": Metric("Calls waiting", "排队通话数", "count", QUEUES),
    "longest_wait_seconds": Metric("Longest wait", "最长等待", "seconds", QUEUES),
    "calls_in_progress": Metric("Calls in progress", "进行中通话数", "count", CALLS),
    "agents_ready": Metric("Agents ready", "空闲坐席数", "count", TEAMS),
    "agents_busy": Metric("Agents busy", "通话中坐席数", "count", TEAMS),
    "agents_acw": Metric("Agents in after-call work", "话后处理坐席数", "count", TEAMS),
    "agents_break": Metric("Agents on break", "小休坐席数", "count", TEAMS),
    "time_in_state_seconds": Metric("Time in state", "当前状态时长", "seconds", AGENT),
    "calls_offered_today": Metric("Offered today", "今日呼入", "count", CALLS),
    "calls_answered_today": Metric("Answered today", "今日接通", "count", CALLS),
    "calls_abandoned_today": Metric("Abandoned today", "今日放弃", "count", CALLS),
    "service_level_today": Metric("Service level today", "今日服务水平", "rate", CALLS),
    "service_level_15min": Metric(
        "Service level, 15 minutes", "近15分钟服务水平", "rate", CALLS
    ),
    "abandon_rate_today": Metric("Abandon rate today", "今日放弃率", "rate", CALLS),
    "abandon_rate_15min": Metric("Abandon rate, 15 minutes", "近15分钟放弃率", "rate", CALLS),
    "asa_today": Metric("Average speed of answer today", "今日平均应答速度", "seconds", CALLS),
    "aht_today": Metric("Average handle time today", "今日平均处理时长", "seconds", CALLS),
    "data_age_seconds": Metric("Age of the live data", "实时数据滞后", "seconds", LANE),
    "lane_silence_seconds": Metric(
        "Silence of the live lane", "实时采集静默时长", "seconds", PIPELINE
    ),
    "open_incidents": Metric("Incidents of capture", "采集事件数", "count", PIPELINE),
    "unacknowledged_incidents": Metric(
        "Incidents nobody has taken up", "未确认采集事件数", "count", PIPELINE
    ),
    "held_days": Metric("Days held by their audit", "未发布日数", "count", PIPELINE),
    "published_age_seconds": Metric(
        "Time since the last publication", "距上次发布", "seconds", PIPELINE
    ),
}  # fmt: skip
