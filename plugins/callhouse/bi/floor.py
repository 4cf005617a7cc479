"""Datasets of the live views in warehouse/live.sql, which dbt does not know."""

from __future__ import annotations

from callhouse.bi.ledger import INSTANT, SOURCE, made_dataset
from callhouse.semantic import Dataset

SOURCE_NAME = ("source_name", "text", "Name of the source.", "Source", "数据源")
QUEUE = (
    ("queue_id", "text", "Queue.", "Queue code", "技能组编码"),
    ("queue_name", "text", "Name of the queue.", "Queue", "技能组"),
)
AGENT = (
    ("agent_id", "text", "Agent.", "Agent code", "坐席工号"),
    ("agent_name", "text", "Name of the agent.", "Agent", "坐席"),
    ("team_id", "text", "Team.", "Team code", "班组编码"),
    ("team_name", "text", "Name of the team.", "Team", "班组"),
)
REGION = (
    ("region_code", "text", "Region.", "Region code", "地区编码"),
    ("region_name", "text", "Name of the region.", "Region", "地区"),
)
# Sums that several views have, with the ratios over them: name, expression, text, labels, unit.
DAY_METRICS = (
    ("waiting_now", "sum(waiting_now)", "Calls that wait now.", "Waiting", "排队人数"),
    (
        "longest_wait",
        "max(longest_wait_seconds)",
        "Longest wait of those who wait now.",
        "Longest wait",
        "最长等待",
        "seconds",
    ),
    ("calls_offered", "sum(calls_offered)", "Today.", "Offered", "呼入量"),
    ("calls_answered", "sum(calls_answered)", "Today.", "Answered", "接通量"),
    ("calls_abandoned", "sum(calls_abandoned)", "Today.", "Abandoned", "放弃量"),
    (
        "service_level",
        "sum(answered_within_target)::numeric / nullif(sum(calls_answered + calls_abandoned), 0)",
        "Answered within the target ÷ (answered + abandoned), today.",
        "Service level",
        "服务水平",
        "rate",
    ),
    (
        "abandon_rate",
        "sum(calls_abandoned)::numeric / nullif(sum(calls_answered + calls_abandoned), 0)",
        "Abandoned ÷ (answered + abandoned), today.",
        "Abandon rate",
        "放弃率",
        "rate",
    ),
    (
        "asa",
        "sum(answered_wait_seconds) / nullif(sum(answered_waits), 0)",
        "Mean wait of answered calls, today.",
        "ASA",
        "平均应答速度",
        "seconds",
    ),
    (
        "aht",
        "sum(handle_seconds) / nullif(sum(connections_handled), 0)",
        "Mean talk, hold and after-call work, today.",
        "AHT",
        "平均处理时长",
        "seconds",
    ),
)
AGENTS_NOW = (
    ("agents_ready", "sum(agents_ready)", "Agents who are ready.", "Ready", "空闲"),
    ("agents_busy", "sum(agents_busy)", "Agents who talk or are rung.", "Busy", "通话"),
    ("agents_acw", "sum(agents_acw)", "Agents in after-call work.", "ACW", "话后"),
    ("agents_break", "sum(agents_break)", "Agents on a break.", "Break", "小休"),
)


def datasets() -> list[Dataset]:
    """The floor as it is now: in one row per source, by queue, caller, agent and conversation."""
    return [_floor(), _queues(), _visits(), _connections(), _agents(), _lost()]


def _floor() -> Dataset:
    return made_dataset(
        "live_floor",
        "One row per live source: the floor now. Stale: the lane has been silent for 15 seconds.",
        (
            SOURCE,
            SOURCE_NAME,
            ("lane", "text", "live, or STALE: nothing was heard for 15 s.", "Lane", "实时通道"),
            ("as_of", "text", "Until when everything is here, local time.", "As of", "数据时间"),
        ),
        (
            *DAY_METRICS,
            *AGENTS_NOW,
            (
                "calls_in_progress",
                "sum(calls_in_progress)",
                "Calls that wait or talk now.",
                "In progress",
                "进行中",
            ),
        ),
    )


def _queues() -> Dataset:
    return made_dataset(
        "live_queues",
        "One row per source and queue with a call today.",
        (SOURCE, SOURCE_NAME, *QUEUE),
        (
            *DAY_METRICS,
            (
                "conversations_now",
                "sum(conversations_now)",
                "Conversations that go on.",
                "Talking",
                "通话中",
            ),
            (
                "service_level_15min",
                (
                    "sum(answered_within_target_15min)::numeric"
                    " / nullif(sum(calls_answered_15min + calls_abandoned_15min), 0)"
                ),
                "Of calls of the last 15 minutes.",
                "SL 15 min",
                "15分钟服务水平",
                "rate",
            ),
            (
                "calls_offered_15min",
                "sum(calls_offered_15min)",
                "In the last 15 minutes.",
                "Offered 15 min",
                "15分钟呼入",
            ),
            (
                "usual_offered_15min",
                "sum(usual_offered_15min)",
                "What these minutes bring on this weekday, mean of eight weeks.",
                "Usual",
                "同期均值",
                "number",
            ),
        ),
    )


def _visits() -> Dataset:
    return made_dataset(
        "live_queue_visits",
        "One row per visit to a queue today.",
        (
            SOURCE,
            ("call_key", "text", "Call.", "Call", "通话"),
            *QUEUE,
            *AGENT,
            *REGION,
            ("outcome", "text", "How it ended; incomplete: not yet.", "Outcome", "结果"),
            ("is_waiting", "boolean", "Waits now.", "Waiting", "排队中"),
            ("is_over_target", "boolean", "Waits longer than the target.", "Over target", "超时"),
            ("queue_position", "bigint", "Place in the queue.", "Place", "位次"),
            ("entered_at", INSTANT, "Entry into the queue.", "Since (UTC)", "进入时间（UTC）"),
            ("wait_seconds", "numeric", "Wait so far, or until the end.", "Wait s", "等待秒"),
        ),
        (
            ("calls_waiting", "count(*)", "Calls.", "Calls", "通话数"),
            (
                "wait",
                "max(wait_seconds)",
                "Wait so far, or until the end.",
                "Wait",
                "等待",
                "seconds",
            ),
        ),
    )


def _connections() -> Dataset:
    return made_dataset(
        "live_agent_connections",
        "One row per conversation of today.",
        (
            SOURCE,
            ("call_key", "text", "Call.", "Call", "通话"),
            *QUEUE,
            *AGENT,
            *REGION,
            ("is_in_progress", "boolean", "Goes on.", "Goes on", "进行中"),
            ("connected_at", INSTANT, "Answer.", "Answered (UTC)", "接通时间（UTC）"),
            ("ended_at", INSTANT, "End.", "Ended (UTC)", "结束时间（UTC）"),
            ("handle_seconds", "numeric", "Talk, hold and after-call work.", "Handle s", "处理秒"),
        ),
        (
            ("conversations", "count(*)", "Conversations.", "Conversations", "通话数"),
            (
                "conversations_now",
                "count(*) filter (where is_in_progress)",
                "Conversations that go on.",
                "Talking",
                "通话中",
            ),
            (
                "handled",
                "sum(connections_handled)",
                "Conversations that are over.",
                "Handled",
                "已处理",
            ),
            (
                "aht",
                "sum(handle_seconds) / nullif(sum(connections_handled), 0)",
                "Mean talk, hold and after-call work, today.",
                "AHT",
                "平均处理时长",
                "seconds",
            ),
        ),
    )


def _agents() -> Dataset:
    return made_dataset(
        "live_agents",
        "One row per agent who is logged in: what the agent does now.",
        (
            SOURCE,
            *AGENT,
            *REGION,
            *QUEUE,
            ("state", "text", "ready, talk, acw, pause …", "State", "状态"),
            ("reason", "text", "Of a pause.", "Reason", "原因"),
            ("day", "text", "Way to the agent's day.", "Day", "当日"),
            ("started_at", INSTANT, "Since when.", "Since (UTC)", "开始时间（UTC）"),
        ),
        (
            ("agents", "count(*)", "Agents.", "Agents", "坐席数"),
            (
                "time_in_state",
                "max(state_seconds)",
                "Time in the state.",
                "For",
                "持续",
                "seconds",
            ),
            *AGENTS_NOW,
        ),
    )


def _lost() -> Dataset:
    return made_dataset(
        "live_lost_callers",
        "One row per caller who gave up today and was not talked to since.",
        (
            SOURCE,
            *QUEUE,
            *REGION,
            ("call_id", "text", "The last attempt.", "Call", "通话"),
            ("entered_at", INSTANT, "Of the last attempt.", "Called (UTC)", "来电时间（UTC）"),
        ),
        (
            ("callers_lost", "count(*)", "Callers.", "Callers", "来电人数"),
            ("attempts", "sum(attempts)", "Attempts today.", "Attempts", "来电次数"),
            ("waited", "max(wait_seconds)", "Wait until giving up.", "Waited", "等待", "seconds"),
        ),
    )
