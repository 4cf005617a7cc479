"""Datasets of views that dbt does not know: warehouse/{ledger,capture,alerts,trail,board_views}."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from callhouse.semantic import Column, Dataset, Metric
from callhouse.transform import marts

# Name, type, description, label, Chinese label.
DAY = ("business_day", "date", "Business day.", "Business day", "业务日")
SOURCE = ("source", "text", "Source of the records.", "Source", "数据源")
REASON = ("reason", "text", "Why.", "Reason", "原因")
REVISION = ("revision", "integer", "How often the day's rows have changed.", "Revision", "版次")
PUBLISHED_AT = (
    "published_at",
    "timestamp with time zone",
    "When the shown version was published.",
    "Published at (UTC)",
    "发布时间（UTC）",
)
INSTANT = "timestamp with time zone"
SECONDS = "double precision"
DEVICE = (
    ("device", "text", "Name of the feed or device.", "Device", "设备"),
    ("device_kind", "text", "feed, collector, pbx, trunk or recorder.", "Kind", "类别"),
)
OWNER = ("owner", "text", "Who looks after it.", "Owner", "负责人")
DETAIL = ("detail", "text", "What was found.", "Found", "发现")
HEALTH = (
    ("checked_at", INSTANT, "When it was looked at.", "Checked (UTC)", "检查时间（UTC）"),
    *DEVICE,
    ("device_name", "text", "Its name for people.", "Name", "名称"),
    OWNER,
    (
        "status",
        "text",
        (
            "ok: all that is judged is well. recovering: well again, not yet for long. excused: "
            "what is wrong was closed by a person. unknown: something cannot be judged. incident: "
            "something is wrong."
        ),
        "Status",
        "状态",
    ),
    DETAIL,
    ("heartbeat_at", INSTANT, "Last heartbeat.", "Heartbeat (UTC)", "最近心跳（UTC）"),
    ("newest_event_at", INSTANT, "Newest event.", "Newest event (UTC)", "最新事件（UTC）"),
    ("heartbeat_age_seconds", SECONDS, "Seconds since the heartbeat.", "Age (s)", "心跳距今（秒）"),
    ("lag_seconds", SECONDS, "Seconds since the newest event.", "Lag (s)", "滞后（秒）"),
    ("skew_seconds", SECONDS, "How far its clock is ahead of ours.", "Skew (s)", "时钟偏差（秒）"),
    ("missing_numbers", "bigint", "Numbers that its series lack.", "Numbers missing", "缺失编号"),
    ("missing_days", "bigint", "Days of which files lack.", "Days missing", "缺失日数"),
    (
        "expected_events",
        SECONDS,
        "Events to expect since the newest one; none: not judged.",
        "Expected",
        "应有事件数",
    ),
    (
        "silence_probability",
        SECONDS,
        "Chance that none is normal.",
        "Chance of silence",
        "静默概率",
    ),
)

# A call in the views of boards, as in the marts, and a step from one name to another.
CALL = (
    ("call_key", "text", "Source and number of the call.", "Call", "通话"),
    SOURCE,
    ("queue_id", "text", "First queue of the call.", "Queue", "技能组"),
    ("queue_name", "text", "First queue of the call.", "Queue name", "技能组名称"),
    ("agent_id", "text", "First agent of the call.", "Agent", "坐席"),
    ("agent_name", "text", "First agent of the call.", "Agent name", "坐席姓名"),
    ("team_id", "text", "Team of the agent.", "Team", "班组"),
    ("team_name", "text", "Team of the agent.", "Team name", "班组名称"),
    ("region_code", "text", "Region of the caller.", "Region", "地区"),
    ("region_name", "text", "Region of the caller.", "Region name", "地区名称"),
    ("channel", "text", "Channel.", "Channel", "渠道"),
    ("business_type", "text", "What the call was about.", "Business type", "业务类型"),
    ("hotline_id", "text", "Number that was called.", "Hotline", "热线号码"),
)
STEP = (
    ("from_name", "text", "Where the call came from.", "From", "从"),
    ("to_name", "text", "Where it went.", "To", "到"),
    ("from_name_zh", "text", "Where the call came from, in Chinese.", "From (zh)", "从（中文）"),
    ("to_name_zh", "text", "Where it went, in Chinese.", "To (zh)", "到（中文）"),
)

CHECK_METRICS = (
    (
        "checks_waiting",
        "count(*)",
        "Abnormal calls that nobody has reviewed: a call counts once with each rule.",
        "Waiting for a review",
        "待质检量",
    ),
    (
        "calls_to_review",
        "count(distinct call_key)",
        "Calls of which a rule waits for a review.",
        "Calls to review",
        "待质检通话数",
    ),
    (
        "oldest_check_day",
        "min(business_day)",
        "Day of the call that has waited longest.",
        "Since",
        "最早日期",
        "date",
    ),
)
SUMMARY = "agg_summary_daily"
SUMMARY_DESCRIPTION = (
    "One row per day, source, dimension and member: groups of at least five callers of all calls "
    "for who may see those, the reader's own calls for who sees a region or queues. Ask for one "
    "dimension at a time; `all` has the totals."
)


def datasets() -> list[Dataset]:
    """The state of days, the ledger, who delivers, who looks, and forms that boards show."""
    return [*_ledger(), *_capture(), _alerts(), _annotations(), _access_audit(), *_board_views()]


def of_marts(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Views with the columns of a mart, which `datasets` may or may not have.

    The queue of the quality check, of what is checked; the summary of each reader, of groups.
    """
    known = {source.name: source for source in datasets}
    made = []
    if checked := known.get(marts.CHECKED):
        metrics = tuple(_metric(marts.CHECKS, *metric) for metric in CHECK_METRICS)
        made.append(Dataset(marts.CHECKS, marts.CHECKS_DESCRIPTION, checked.columns, metrics))
    if groups := known.get("agg_groups_daily"):
        metrics = tuple(replace(metric, relation=SUMMARY) for metric in groups.metrics)
        made.append(Dataset(SUMMARY, SUMMARY_DESCRIPTION, groups.columns, metrics))
    return made


def _alerts() -> Dataset:
    return made_dataset(
        "fct_alert_events",
        "One row per firing of a rule for a scope: whose, told, acknowledged, resolved. Row "
        "security by scope.",
        (
            ("alert_id", "bigint", "Number of the alert.", "Alert", "告警"),
            ("rule", "text", "Name of the rule.", "Rule", "规则"),
            ("metric", "text", "What is watched.", "Metric", "指标"),
            (
                "scope_type",
                "text",
                "all, pipeline, source, region, team, queue or agent.",
                "Scope",
                "范围类别",
            ),
            ("scope_id", "text", "Which one; * of the whole.", "Of", "范围"),
            ("severity", "text", "info, warning or critical.", "Severity", "级别"),
            (
                "status",
                "text",
                "firing, escalated, acknowledged or resolved.",
                "Status",
                "状态",
            ),
            ("comparison", "text", "Fires above or below the limit.", "Fires", "方向"),
            ("fire_at", "numeric", "The limit.", "Limit", "阈值"),
            ("value", "numeric", "When it fired.", "Value", "触发值"),
            ("reason", "text", "Why it is watched.", "Reason", "监控原因"),
            OWNER,
            (
                "breached_at",
                INSTANT,
                "Since when the value had been beyond the limit.",
                "Since (UTC)",
                "超限时间（UTC）",
            ),
            ("opened_at", INSTANT, "When it fired.", "Fired (UTC)", "触发时间（UTC）"),
            (
                "notified_at",
                INSTANT,
                "When a channel first took a notification.",
                "Told (UTC)",
                "通知时间（UTC）",
            ),
            (
                "escalated_at",
                INSTANT,
                "When nobody had acknowledged it in time.",
                "Escalated (UTC)",
                "升级时间（UTC）",
            ),
            ("escalated_to", "text", "To whom.", "Escalated to", "升级至"),
            (
                "acknowledged_at",
                INSTANT,
                "When a person took it up.",
                "Acknowledged (UTC)",
                "确认时间（UTC）",
            ),
            ("acknowledged_by", "text", "Who.", "Acknowledged by", "确认人"),
            (
                "resolved_at",
                INSTANT,
                "When it was over.",
                "Resolved (UTC)",
                "恢复时间（UTC）",
            ),
            ("resolved_value", "numeric", "The value then.", "Value then", "恢复值"),
            ("resolution", "text", "cleared, or rule ended.", "Resolution", "处理结果"),
            (
                "notify_seconds",
                SECONDS,
                "From firing to the first notification.",
                "To tell (s)",
                "通知用时（秒）",
            ),
            (
                "acknowledge_seconds",
                SECONDS,
                "From firing to acknowledgement.",
                "To acknowledge (s)",
                "确认用时（秒）",
            ),
            (
                "resolve_seconds",
                SECONDS,
                "From firing to its end.",
                "To resolve (s)",
                "恢复用时（秒）",
            ),
            (
                "undelivered",
                "bigint",
                "Notifications that no attempt delivered.",
                "Undelivered",
                "未送达数",
            ),
        ),
        (
            ("alerts_fired", "count(*)", "Firings.", "Alerts", "告警数"),
            (
                "alerts_firing",
                "count(*) filter (where resolved_at is null)",
                "Alerts that are not over.",
                "Firing",
                "未恢复告警数",
            ),
            (
                "alerts_unacknowledged",
                "count(*) filter (where resolved_at is null and acknowledged_at is null)",
                "Alerts that nobody has taken up.",
                "Not acknowledged",
                "未确认告警数",
            ),
            (
                "alerts_escalated",
                "count(escalated_at)",
                "Alerts that nobody had acknowledged in time.",
                "Escalated",
                "升级告警数",
            ),
            (
                "alert_mtta_seconds",
                "avg(acknowledge_seconds)",
                "Mean time from firing to acknowledgement, of those acknowledged.",
                "MTTA",
                "平均确认用时",
                "seconds",
            ),
            (
                "alert_mttr_seconds",
                "avg(resolve_seconds)",
                "Mean time from firing to its end, of those resolved.",
                "MTTR",
                "平均恢复用时",
                "seconds",
            ),
            (
                "notifications_undelivered",
                "sum(undelivered)",
                "Notifications that no attempt delivered.",
                "Undelivered",
                "未送达通知数",
            ),
        ),
    )


def _annotations() -> Dataset:
    return made_dataset(
        "fct_annotations",
        "One row per day, source and campaign, outage, change or event that somebody noted, or "
        "incident of capture for those who may read of them.",
        (
            DAY,
            SOURCE,
            ("annotation", "text", "Which one.", "Annotation", "标注"),
            ("kind", "text", "campaign, outage, change, event or incident.", "Kind", "类别"),
            ("title", "text", "What happened.", "Title", "标题"),
            ("first_day", "date", "First day.", "From", "开始日"),
            ("last_day", "date", "Last day.", "To", "结束日"),
            ("noted_by", "text", "Who noted it.", "Noted by", "记录人"),
        ),
        (
            (
                "annotated_days",
                "count(distinct business_day)",
                "Days of the chosen period on which it was so.",
                "Days",
                "天数",
            ),
        ),
    )


def _board_views() -> list[Dataset]:
    return [
        made_dataset(
            "fct_channel_paths",
            "One row per request of a channel: the channel that the call asked next, or how it "
            "ended.",
            (
                DAY,
                ("request_key", "text", "Call and channel.", "Request", "请求"),
                *CALL,
                (
                    "next_channel",
                    "text",
                    "Channel that the call asked next; none: it ended here.",
                    "Next channel",
                    "下一渠道",
                ),
                *STEP,
            ),
            (
                (
                    "path_steps",
                    "count(*)",
                    "Requests of channels, each with where the call went from there.",
                    "Requests",
                    "请求量",
                ),
            ),
        ),
        made_dataset(
            "fct_call_flows",
            "Three rows per call: from its hotline into the menu or straight in, to its queue, to "
            "its outcome.",
            (
                DAY,
                ("step", "integer", "1 entry, 2 queue, 3 outcome.", "Step", "步骤"),
                *CALL,
                ("outcome", "text", "How the call ended.", "Outcome", "结果"),
                *STEP,
            ),
            (
                (
                    "flow_calls",
                    "count(*)",
                    "Calls that took this step; each call takes three.",
                    "Calls",
                    "呼叫量",
                ),
            ),
        ),
        made_dataset(
            "agg_group_changes_weekly",
            "One row per whole week of the last fourteen, source, dimension and member of groups "
            "of at least five callers, beside the week before. Ask for one dimension at a time.",
            (
                ("business_day", "date", "Monday of the week.", "Week", "周"),
                SOURCE,
                ("dimension", "text", "What calls are grouped by.", "Dimension", "维度"),
                ("member", "text", "Member of the dimension.", "Member", "成员"),
                ("member_name", "text", "Name of the member.", "Member name", "成员名称"),
                ("is_newest", "boolean", "The newest whole week.", "Newest week", "最新一周"),
                *(
                    (name + suffix, "bigint", text + when, label + short, chinese + kurz)
                    for name, text, label, chinese in (
                        ("calls_offered", "Calls offered", "Offered", "呼入量"),
                        ("calls_abandoned", "Calls abandoned", "Abandoned", "放弃量"),
                        ("answered_within_target", "Answered in time", "In time", "目标内接通"),
                        ("answered_or_abandoned", "Answered or abandoned", "Ended", "接通与放弃"),
                    )
                    for suffix, when, short, kurz in (
                        ("", " in the week.", "", ""),
                        ("_before", " in the week before.", " before", "（上周）"),
                    )
                ),
                (
                    "service_contribution",
                    "numeric",
                    "What the member adds to the change of the whole service level.",
                    "Contribution",
                    "贡献",
                ),
            ),
            (
                (
                    "offered_before",
                    "coalesce(sum(calls_offered_before), 0)",
                    "Calls offered in the week before.",
                    "Offered the week before",
                    "上周呼入量",
                ),
                (
                    "offered_change",
                    "coalesce(sum(calls_offered - calls_offered_before), 0)",
                    "Calls offered, against the week before.",
                    "Change of offered",
                    "呼入量变化",
                ),
                (
                    "abandoned_change",
                    "coalesce(sum(calls_abandoned - calls_abandoned_before), 0)",
                    "Calls abandoned, against the week before.",
                    "Change of abandoned",
                    "放弃量变化",
                ),
                (
                    "service_level_this_week",
                    "1.0 * sum(answered_within_target) / nullif(sum(answered_or_abandoned), 0)",
                    "Service level of the week.",
                    "Service level",
                    "服务水平",
                    "rate",
                ),
                (
                    "service_level_week_before",
                    (
                        "1.0 * sum(answered_within_target_before)"
                        " / nullif(sum(answered_or_abandoned_before), 0)"
                    ),
                    "Service level of the week before.",
                    "Service level the week before",
                    "上周服务水平",
                    "rate",
                ),
                (
                    "service_contribution",
                    "sum(service_contribution)",
                    (
                        "Points that the member adds to the change of the whole service level, by "
                        "its own level and its share of the calls; the members add up to it."
                    ),
                    "Contribution to the change",
                    "对服务水平变化的贡献",
                    "rate",
                ),
            ),
        ),
    ]


def _access_audit() -> Dataset:
    return made_dataset(
        "fct_access_audit",
        "One row per access, log-in, refusal or command. Only auditors see rows.",
        (
            ("entry_id", "bigint", "Number in the chain.", "Entry", "序号"),
            ("happened_at", INSTANT, "When.", "When (UTC)", "时间（UTC）"),
            ("recorded_at", INSTANT, "When it was collected.", "Recorded (UTC)", "入账时间（UTC）"),
            (
                "person",
                "text",
                "Login, Superset or Airflow user, or account of the system.",
                "Person",
                "人员",
            ),
            ("origin", "text", "postgres, superset, airflow, dbt, callhouse.", "Origin", "来源"),
            ("address", "text", "From where.", "Address", "地址"),
            ("program", "text", "That asked, as it names itself.", "Program", "程序"),
            (
                "action",
                "text",
                "query, chart, dashboard, drill, sql_lab, export, login, login_failed, denied, …",
                "Action",
                "操作",
            ),
            ("object_name", "text", "Board, chart, relation or DAG.", "Object", "对象"),
            ("statement", "text", "What was asked, callers masked.", "Statement", "语句"),
            ("row_count", "bigint", "Rows, where they are known.", "Rows", "行数"),
            ("is_export", "boolean", "Left as a file.", "Export", "导出"),
            (
                "outcome",
                "text",
                "ok, denied, refused, failed, cancelled, …",
                "Outcome",
                "结果",
            ),
        ),
        (
            ("accesses", "count(*)", "Entries.", "Entries", "条数"),
            (
                "people_seen",
                "count(distinct person)",
                "People and accounts with an entry.",
                "People",
                "人数",
            ),
            (
                "exports",
                "count(*) filter (where is_export)",
                "Rows that left as a file.",
                "Exports",
                "导出次数",
            ),
            (
                "accesses_denied",
                "count(*) filter (where outcome = 'denied')",
                "What a person had no right to.",
                "Denied",
                "拒绝次数",
            ),
            (
                "logins_failed",
                "count(*) filter (where action = 'login_failed')",
                "Log-ins that were refused.",
                "Failed log-ins",
                "登录失败次数",
            ),
        ),
    )


def _capture() -> list[Dataset]:
    return [
        made_dataset(
            "capture_status",
            "One row per device: what delivers records, as it was last found.",
            HEALTH,
            (
                ("devices", "count(*)", "Devices that are watched.", "Devices", "设备数"),
                (
                    "devices_in_trouble",
                    "count(*) filter (where status = 'incident')",
                    "Devices with something wrong.",
                    "In trouble",
                    "异常设备数",
                ),
                (
                    "devices_unknown",
                    "count(*) filter (where status = 'unknown')",
                    "Devices of which something cannot be judged.",
                    "Unknown",
                    "状态未知设备数",
                ),
            ),
        ),
        made_dataset(
            "fct_capture_health",
            "One row per device and check, kept when something changed and every 15 minutes.",
            HEALTH,
            (
                ("capture_checks", "count(*)", "Checks that are kept.", "Checks", "检查次数"),
                (
                    "capture_checks_in_trouble",
                    "count(*) filter (where status = 'incident')",
                    "Checks that found something wrong.",
                    "In trouble",
                    "异常次数",
                ),
            ),
        ),
        made_dataset(
            "fct_incidents",
            "One row per incident of capture: opened, acknowledged, resolved, back-filled.",
            (
                ("incident_id", "bigint", "Number of the incident.", "Incident", "事件"),
                *DEVICE,
                SOURCE,
                (
                    "kind",
                    "text",
                    "heartbeat, silence, late, empty, gap, clock or lag.",
                    "What",
                    "类型",
                ),
                (
                    "status",
                    "text",
                    "open, acknowledged, recovering or resolved.",
                    "Status",
                    "状态",
                ),
                OWNER,
                DETAIL,
                ("opened_at", INSTANT, "When it opened.", "Opened (UTC)", "发生时间（UTC）"),
                (
                    "escalated_at",
                    INSTANT,
                    "When nobody had acknowledged it in time.",
                    "Escalated (UTC)",
                    "升级时间（UTC）",
                ),
                (
                    "acknowledged_at",
                    INSTANT,
                    "When a person took it up.",
                    "Acknowledged (UTC)",
                    "确认时间（UTC）",
                ),
                ("acknowledged_by", "text", "Who.", "Acknowledged by", "确认人"),
                (
                    "resolved_at",
                    INSTANT,
                    "When its cause was gone, or a person closed it.",
                    "Resolved (UTC)",
                    "解决时间（UTC）",
                ),
                ("resolved_by", "text", "Who; none: by itself.", "Resolved by", "解决人"),
                ("resolution", "text", "What ended it.", "Resolution", "处理结果"),
                (
                    "acknowledge_seconds",
                    SECONDS,
                    "From opening to acknowledgement.",
                    "To acknowledge (s)",
                    "确认用时（秒）",
                ),
                (
                    "resolve_seconds",
                    SECONDS,
                    "From opening to resolution.",
                    "To resolve (s)",
                    "解决用时（秒）",
                ),
                ("affected_days", "integer", "Days that may lack rows.", "Days", "影响日数"),
                ("first_affected_day", "date", "The first of them.", "First day", "首日"),
                (
                    "back_filled_rows",
                    "bigint",
                    "Rows that came late, of what had been missing.",
                    "Came late",
                    "补录行数",
                ),
                (
                    "back_filled_days",
                    "bigint",
                    "Days of these rows.",
                    "Days came late",
                    "补录日数",
                ),
                (
                    "rebuilt_days",
                    "bigint",
                    "Days whose published version has these rows.",
                    "Days rebuilt",
                    "已重建日数",
                ),
            ),
            (
                ("incidents", "count(*)", "Incidents.", "Incidents", "事件数"),
                (
                    "open_incidents",
                    "count(*) filter (where resolved_at is null)",
                    "Incidents that are not resolved.",
                    "Open",
                    "未解决事件数",
                ),
                (
                    "unacknowledged_incidents",
                    "count(*) filter (where resolved_at is null and acknowledged_at is null)",
                    "Incidents that nobody has taken up.",
                    "Not acknowledged",
                    "未确认事件数",
                ),
                (
                    "mtta_seconds",
                    "avg(acknowledge_seconds)",
                    "Mean time from opening to acknowledgement, of those acknowledged.",
                    "MTTA",
                    "平均确认用时",
                    "seconds",
                ),
                (
                    "mttr_seconds",
                    "avg(resolve_seconds)",
                    "Mean time from opening to resolution, of those resolved.",
                    "MTTR",
                    "平均解决用时",
                    "seconds",
                ),
                (
                    "rows_back_filled",
                    "sum(back_filled_rows)",
                    "Rows that came late, of what had been missing.",
                    "Came late",
                    "补录行数",
                ),
            ),
        ),
    ]


def _ledger() -> list[Dataset]:
    return [
        made_dataset(
            "source_days",
            "One row per source and business day of which calls are published.",
            (SOURCE, DAY, REVISION, PUBLISHED_AT),
            (
                ("first_day", "min(business_day)", "First day shown.", "From", "起始日", "date"),
                ("last_day", "max(business_day)", "Last day shown.", "To", "截止日", "date"),
            ),
        ),
        made_dataset(
            "data_status",
            "One row per business day: its state, revision and time of publication.",
            (
                DAY,
                (
                    "status",
                    "text",
                    (
                        "complete: final. restated: changed after the day had ended. provisional: "
                        "newer rows wait. held: the newest version failed its audit, the last "
                        "good one is shown."
                    ),
                    "Status",
                    "状态",
                ),
                PUBLISHED_AT,
                REVISION,
                ("reason", "text", "Why the day is held, or was released.", "Reason", "原因"),
                (
                    "followup_status",
                    "text",
                    (
                        "Status of the day's follow-ups (first contact resolution), which are "
                        "built after the days around it."
                    ),
                    "Follow-ups",
                    "后续来电状态",
                ),
                (
                    "restated_at",
                    "timestamp with time zone",
                    "When published numbers of the day last changed after it had ended.",
                    "Restated at (UTC)",
                    "更正时间（UTC）",
                ),
                (
                    "restated_because",
                    "text",
                    "What changed them.",
                    "Restated because",
                    "更正原因",
                ),
            ),
            (
                (
                    "data_as_of",
                    "max(business_day) filter (where published_at is not null)",
                    "Last published business day.",
                    "Data as of",
                    "数据截至",
                    "date",
                ),
                (
                    "business_days",
                    "count(*)",
                    "Business days with data.",
                    "Business days",
                    "业务日数",
                ),
                (
                    "held_days",
                    "count(*) filter (where status = 'held')",
                    "Days whose newest version failed its audit.",
                    "Held days",
                    "未发布日数",
                ),
                (
                    "restated_days",
                    "count(*) filter (where status = 'restated')",
                    "Days whose published numbers changed after they had ended.",
                    "Restated days",
                    "更正日数",
                ),
            ),
        ),
        made_dataset(
            "fct_landed_units",
            "One row per landed unit (a file, a piece of a log, an hour of a table): "
            "read = staged + open + discarded + duplicates.",
            (
                ("unit_id", "bigint", "Number of the unit.", "Unit", "单元"),
                SOURCE,
                ("record", "text", "Kind of record in it.", "Record", "记录类型"),
                ("unit_name", "text", "Its file, or what else it is.", "Name", "名称"),
                (
                    "landed_at",
                    "timestamp with time zone",
                    "When.",
                    "Landed (UTC)",
                    "入库时间（UTC）",
                ),
                ("status", "text", "landed, or refused as a whole.", "Status", "状态"),
                ("first_day", "date", "First business day of its rows.", "First day", "首日"),
                ("last_day", "date", "Last business day of its rows.", "Last day", "末日"),
                ("read_rows", "bigint", "Rows read.", "Read", "读取"),
                ("staged_rows", "bigint", "Rows staged.", "Staged", "入库"),
                ("open_rows", "bigint", "Rows open in quarantine.", "Open", "待处理"),
                ("discarded_rows", "bigint", "Rows a person has closed.", "Discarded", "已关闭"),
                ("duplicate_rows", "bigint", "Rows staged before.", "Duplicates", "重复"),
                ("header_rows", "bigint", "Lines of headers and trailers.", "Headers", "表头"),
                ("missing_rows", "bigint", "Rows in no place; must be 0.", "Missing", "缺失"),
                ("reason", "text", "Why it was refused.", "Reason", "原因"),
                ("replayed_rows", "bigint", "Of them read again later.", "Replayed", "重读"),
            ),
            (
                ("units_landed", "count(*)", "Units.", "Units", "单元数"),
                ("rows_read", "sum(read_rows)", "Rows read.", "Read", "读取行数"),
                ("rows_staged", "sum(staged_rows)", "Rows staged.", "Staged", "入库行数"),
                ("rows_open", "sum(open_rows)", "Rows open in quarantine.", "Open", "待处理行数"),
                (
                    "rows_discarded",
                    "sum(discarded_rows)",
                    "Rows of the quarantine that a person has closed.",
                    "Discarded",
                    "已关闭行数",
                ),
                ("rows_repeated", "sum(duplicate_rows)", "Duplicates.", "Duplicates", "重复行数"),
                (
                    "rows_missing",
                    "sum(missing_rows)",
                    "Rows read that are in no place; anything but 0 is a lost row.",
                    "Missing",
                    "缺失行数",
                ),
                (
                    "units_refused",
                    "count(*) filter (where status = 'refused')",
                    "Files refused as a whole.",
                    "Refused",
                    "拒收单元数",
                ),
            ),
        ),
        made_dataset(
            "fct_day_balances",
            "One row per published day, source and balance: a fact against what it is made from, "
            "or offered against its outcomes. The checksums are sums over the keys of the rows.",
            (
                DAY,
                SOURCE,
                ("balance", "text", "The fact, or the balance.", "Balance", "平衡项"),
                ("left_count", "bigint", "Rows before the hop, or left side.", "Before", "前"),
                ("right_count", "bigint", "Rows of the fact, or right side.", "After", "后"),
                (
                    "left_checksum",
                    "numeric",
                    "Sum over keys, before.",
                    "Checksum before",
                    "前校验和",
                ),
                (
                    "right_checksum",
                    "numeric",
                    "Sum over keys, after.",
                    "Checksum after",
                    "后校验和",
                ),
                ("is_balanced", "boolean", "Both sides agree.", "Balanced", "平衡"),
                PUBLISHED_AT,
                REVISION,
            ),
            (
                ("rows_before", "sum(left_count)", "Rows before the hop.", "Before", "前行数"),
                ("rows_after", "sum(right_count)", "Rows after the hop.", "After", "后行数"),
                ("balances", "count(*)", "Balances struck.", "Balances", "平衡数"),
                (
                    "balances_broken",
                    "count(*) filter (where not is_balanced)",
                    "Balances whose sides differ; must be 0.",
                    "Broken",
                    "不平衡数",
                ),
            ),
        ),
        made_dataset(
            "fct_restatements",
            "One row per restated day, revision and source: totals of both versions.",
            (
                DAY,
                REVISION,
                SOURCE,
                (
                    "restated_at",
                    "timestamp with time zone",
                    "When the newer version was published.",
                    "Restated at (UTC)",
                    "更正时间（UTC）",
                ),
                ("reason", "text", "What changed the day.", "Reason", "原因"),
                *(
                    (
                        f"{name}_{when}",
                        kind,
                        f"{label} {told}.",
                        f"{label} {when}",
                        f"{zh}（{zh_when}）",
                    )
                    for name, kind, label, zh in (
                        ("calls", "bigint", "Calls", "通话"),
                        ("calls_offered", "bigint", "Offered", "呼入"),
                        ("calls_answered", "bigint", "Answered", "接通"),
                        ("calls_abandoned", "bigint", "Abandoned", "放弃"),
                        ("handle_seconds", "numeric", "Handle time in seconds", "处理时长（秒）"),
                    )
                    for when, told, zh_when in (
                        ("before", "in the version before", "更正前"),
                        ("after", "in the newer version", "更正后"),
                    )
                ),
            ),
            (("restatements", "count(*)", "Restatements.", "Restatements", "更正数"),),
        ),
        made_dataset(
            "fct_dq_results",
            "One row per expectation and audit, with what was found.",
            (
                ("result_id", "bigint", "Number of the result.", "Result", "结果"),
                ("build_id", "bigint", "Build; none: what was published.", "Build", "构建"),
                ("audited", "text", "facts, followups or published.", "Audited", "审核对象"),
                ("boundary", "text", "staging or marts.", "Boundary", "边界"),
                ("suite", "text", "Suite of expectations.", "Suite", "检查集"),
                ("expectation", "text", "What should hold.", "Expectation", "检查项"),
                ("column_name", "text", "Column, where it is one.", "Column", "列"),
                ("severity", "text", "fail holds the day, warn does not.", "Severity", "级别"),
                ("is_success", "boolean", "Whether it held.", "Held", "通过"),
                ("observed", "text", "What was found.", "Found", "发现"),
                ("failing_days", "integer", "Days at fault.", "Days", "日数"),
                ("first_failing_day", "date", "First day at fault.", "First day", "首日"),
                ("note", "text", "Why this bound.", "Why", "说明"),
                (
                    "checked_at",
                    "timestamp with time zone",
                    "When.",
                    "Checked (UTC)",
                    "检查时间（UTC）",
                ),
            ),
            (
                ("expectations_checked", "count(*)", "Expectations.", "Checked", "检查数"),
                (
                    "expectations_failed",
                    "count(*) filter (where not is_success and severity = 'fail')",
                    "Expectations that held a day.",
                    "Failed",
                    "未通过数",
                ),
                (
                    "expectations_warned",
                    "count(*) filter (where not is_success and severity = 'warn')",
                    "Expectations that gave a warning.",
                    "Warnings",
                    "警告数",
                ),
            ),
        ),
        made_dataset(
            "fct_releases",
            "One row per release of a held day.",
            (
                ("release_id", "bigint", "Number of the release.", "Release", "放行"),
                DAY,
                ("lane", "text", "facts or followups.", "Lane", "通道"),
                ("expectations", "text", "What was let through.", "Expectations", "检查项"),
                REASON,
                ("released_by", "text", "Who.", "Released by", "放行人"),
                (
                    "released_at",
                    "timestamp with time zone",
                    "When.",
                    "Released (UTC)",
                    "放行时间（UTC）",
                ),
            ),
            (("releases", "count(*)", "Releases.", "Releases", "放行数"),),
        ),
    ]


def made_dataset(
    name: str,
    description: str,
    columns: tuple[tuple[str, str, str, str, str], ...],
    metrics: tuple[tuple[str, ...], ...],
) -> Dataset:
    """A dataset whose columns and metrics are (name, …) tuples, as above."""
    return Dataset(
        name=name,
        description=description,
        columns=tuple(Column(*column) for column in columns),
        metrics=tuple(_metric(name, *metric) for metric in metrics),
    )


def _metric(
    relation: str,
    name: str,
    expression: str,
    description: str,
    label_en: str,
    label_zh: str,
    unit: str = "count",
) -> Metric:
    return Metric(
        name=name,
        expression=expression,
        relation=relation,
        columns=frozenset(),
        is_additive=False,
        label_en=label_en,
        label_zh=label_zh,
        description=description,
        unit=unit,
    )
