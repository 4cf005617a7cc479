-- What boards show of published rows in another form. Views of the reader: row security gives in
-- them what it gives in the tables below, and a column that is added below stays out of them.

-- One row per request of a channel: the channel that the call asked next, or how it ended. Menus
-- and bots come before agents, as callers meet them.
create or replace view bi.fct_channel_paths with (security_invoker, security_barrier) as
select
    path.business_day,
    path.request_key,
    path.call_key,
    path.source,
    path.queue_id,
    path.queue_name,
    path.agent_id,
    path.agent_name,
    path.team_id,
    path.team_name,
    path.region_code,
    path.region_name,
    path.channel,
    path.business_type,
    path.hotline_id,
    path.next_channel,
    coalesce(asked.channel_name, path.channel) as from_name,
    case
        when path.next_channel is not null
            then coalesce(following.channel_name, path.next_channel)
        when path.channel_requests_served = 1 then 'Served'
        else 'Left unserved'
    end as to_name,
    coalesce(asked.channel_name_zh, path.channel) as from_name_zh,
    case
        when path.next_channel is not null
            then coalesce(following.channel_name_zh, path.next_channel)
        when path.channel_requests_served = 1 then '已满足'
        else '未满足'
    end as to_name_zh
from (
    select
        *,
        lead(channel) over (
            partition by business_day, call_key
            order by array_position(array['bot', 'ivr', 'human', 'callback', 'voicemail'], channel)
        ) as next_channel
    from marts.fct_channel_requests
) as path
left join marts.dim_channel as asked on path.channel = asked.channel
left join marts.dim_channel as following on path.next_channel = following.channel;

-- Three rows per call: from its hotline into the menu or straight in, to its queue, to its outcome.
create or replace view bi.fct_call_flows with (security_invoker, security_barrier) as
select
    calls.business_day,
    calls.call_key,
    step.number as step,
    calls.source,
    calls.queue_id,
    calls.queue_name,
    calls.agent_id,
    calls.agent_name,
    calls.team_id,
    calls.team_name,
    calls.region_code,
    calls.region_name,
    calls.channel,
    calls.business_type,
    calls.hotline_id,
    calls.outcome,
    step.from_name,
    step.to_name,
    step.from_name_zh,
    step.to_name_zh
from marts.fct_calls as calls
left join marts.dim_outcome as outcome on calls.outcome = outcome.outcome
cross join lateral (
    values
    (
        1,
        'Hotline ' || calls.hotline_id,
        case when calls.ivr_seconds > 0 then 'Menu or bot' else 'Straight in' end,
        '热线 ' || calls.hotline_id,
        case when calls.ivr_seconds > 0 then '菜单或机器人' else '直接进入' end
    ),
    (
        2,
        case when calls.ivr_seconds > 0 then 'Menu or bot' else 'Straight in' end,
        case when calls.queue_id = 'none' then 'No queue' else 'Queue ' || calls.queue_name end,
        case when calls.ivr_seconds > 0 then '菜单或机器人' else '直接进入' end,
        case when calls.queue_id = 'none' then '未进队列' else '技能组 ' || calls.queue_name end
    ),
    (
        3,
        case when calls.queue_id = 'none' then 'No queue' else 'Queue ' || calls.queue_name end,
        coalesce(outcome.outcome_name, calls.outcome),
        case when calls.queue_id = 'none' then '未进队列' else '技能组 ' || calls.queue_name end,
        coalesce(outcome.outcome_name_zh, calls.outcome)
    )
) as step (number, from_name, to_name, from_name_zh, to_name_zh)
where calls.calls = 1;

-- What the executive summary shows: the groups of all calls for who may see those, and for who sees
-- a region or queues the sums of their own calls in the same form. Those read single calls anyway,
-- so that none of their groups is too small to be shown.
create or replace view bi.agg_summary_daily with (security_invoker, security_barrier) as
select
    business_day,
    source,
    dimension,
    member,
    member_name,
    week_start,
    month_start,
    is_withheld,
    callers,
    calls,
    phantom_calls,
    calls_connected,
    calls_abandoned_before_agent,
    abandoned_in_ivr,
    calls_contained,
    calls_after_hours,
    calls_transferred,
    queue_visits,
    calls_offered,
    calls_answered,
    calls_abandoned,
    answered_within_target,
    abandoned_within_target,
    answered_within_15s,
    answered_within_20s,
    answered_within_30s,
    short_abandons,
    answered_waits,
    abandoned_waits,
    answered_wait_seconds,
    abandoned_wait_seconds
from marts.agg_groups_daily
union all
select
    days.business_day,
    days.source,
    d.dimension,
    d.member,
    coalesce(max(d.member_name), d.member) as member_name,
    days.week_start,
    days.month_start,
    false as is_withheld,
    null::bigint as callers,
    sum(days.calls)::bigint as calls,
    sum(days.phantom_calls)::bigint as phantom_calls,
    sum(days.calls_connected)::bigint as calls_connected,
    sum(days.calls_abandoned_before_agent)::bigint as calls_abandoned_before_agent,
    sum(days.abandoned_in_ivr)::bigint as abandoned_in_ivr,
    sum(days.calls_contained)::bigint as calls_contained,
    sum(days.calls_after_hours)::bigint as calls_after_hours,
    sum(days.calls_transferred)::bigint as calls_transferred,
    sum(days.queue_visits)::bigint as queue_visits,
    sum(days.calls_offered)::bigint as calls_offered,
    sum(days.calls_answered)::bigint as calls_answered,
    sum(days.calls_abandoned)::bigint as calls_abandoned,
    sum(days.answered_within_target)::bigint as answered_within_target,
    sum(days.abandoned_within_target)::bigint as abandoned_within_target,
    sum(days.answered_within_15s)::bigint as answered_within_15s,
    sum(days.answered_within_20s)::bigint as answered_within_20s,
    sum(days.answered_within_30s)::bigint as answered_within_30s,
    sum(days.short_abandons)::bigint as short_abandons,
    sum(days.answered_waits)::bigint as answered_waits,
    sum(days.abandoned_waits)::bigint as abandoned_waits,
    sum(days.answered_wait_seconds) as answered_wait_seconds,
    sum(days.abandoned_wait_seconds) as abandoned_wait_seconds
from marts.agg_calls_daily as days
cross join
    lateral (
        values
        ('all', 'all', 'All calls'),
        ('queue', days.queue_id, days.queue_name),
        ('channel', days.channel, null),
        ('region', days.region_code, days.region_name),
        ('business_type', days.business_type, null),
        ('hotline', days.hotline_id, null)
    ) as d (dimension, member, member_name)
-- Else their calls would be counted twice.
where not (select sec.sees_aggregates())
group by
    days.business_day, days.source, d.dimension, d.member, days.week_start, days.month_start;

-- One row per whole week, source, dimension and member of groups, beside the week before; of the
-- last fourteen weeks of each source: who asks for the newest one need not wait for years. Weeks of
-- which a day is missing are compared with nothing: they would look like a fall.
create or replace view bi.agg_group_changes_weekly with (security_invoker, security_barrier) as
with recent as (
    select g.*
    from (
        select
            source,
            max(business_day) as last_day
        from bi.source_days
        group by source
    ) as newest
    cross join lateral (
        select
            source,
            week_start,
            dimension,
            member,
            max(member_name) as member_name,
            count(distinct business_day) as days,
            coalesce(sum(calls_offered), 0)::bigint as calls_offered,
            coalesce(sum(calls_abandoned), 0)::bigint as calls_abandoned,
            coalesce(sum(answered_within_target), 0)::bigint as answered_within_target,
            coalesce(sum(calls_answered + calls_abandoned), 0)::bigint as answered_or_abandoned
        from bi.agg_summary_daily
        where source = newest.source and business_day > newest.last_day - 14 * 7
        group by source, week_start, dimension, member
    ) as g
),

whole as (
    select *
    from (
        select
            *,
            max(days) filter (where dimension = 'all') over (partition by source, week_start)
            as days_of_all
        from recent
    ) as weeks
    where days_of_all = 7
),

-- By windows: joins with the weeks were planned as if there were few of them.
sums as (
    select
        *,
        count(*) over before > 0 as has_before,
        count(*) over after > 0 as has_after
    from whole
    window
        before as (
            partition by source order by week_start
            range between interval '7 days' preceding and interval '7 days' preceding
        ),
        after as (
            partition by source order by week_start
            range between interval '7 days' following and interval '7 days' following
        )
),

pairs as (
    select
        coalesce(s.week_start, b.week_start + 7) as week_start,
        coalesce(s.source, b.source) as source,
        coalesce(s.dimension, b.dimension) as dimension,
        coalesce(s.member, b.member) as member,
        coalesce(s.member_name, b.member_name) as member_name,
        coalesce(s.calls_offered, 0) as calls_offered,
        coalesce(b.calls_offered, 0) as calls_offered_before,
        coalesce(s.calls_abandoned, 0) as calls_abandoned,
        coalesce(b.calls_abandoned, 0) as calls_abandoned_before,
        coalesce(s.answered_within_target, 0) as answered_within_target,
        coalesce(b.answered_within_target, 0) as answered_within_target_before,
        coalesce(s.answered_or_abandoned, 0) as answered_or_abandoned,
        coalesce(b.answered_or_abandoned, 0) as answered_or_abandoned_before
    from (select * from sums where has_before) as s
    full join (select * from sums where has_after) as b
        on
            s.source = b.source
            and s.week_start = b.week_start + 7
            and s.dimension = b.dimension
            and s.member = b.member
),

known as (
    select
        *,
        week_start = max(week_start) over (partition by source) as is_newest,
        sum(answered_or_abandoned) over whole_week as total,
        sum(answered_or_abandoned_before) over whole_week as total_before,
        sum(answered_within_target_before) over whole_week as in_target_before
    from pairs
    window whole_week as (partition by source, week_start, dimension)
)

select
    week_start as business_day,
    source,
    dimension,
    member,
    member_name,
    is_newest,
    calls_offered,
    calls_offered_before,
    calls_abandoned,
    calls_abandoned_before,
    answered_within_target,
    answered_within_target_before,
    answered_or_abandoned,
    answered_or_abandoned_before,
    -- What the member's own level and its share of the calls add to the change of the whole: the
    -- members of a dimension add up to it.
    answered_within_target / nullif(total, 0)
    - answered_within_target_before / nullif(total_before, 0)
    - in_target_before / nullif(total_before, 0)
    * (
        answered_or_abandoned / nullif(total, 0)
        - answered_or_abandoned_before / nullif(total_before, 0)
    ) as service_contribution
from known;

grant select on
bi.fct_channel_paths, bi.fct_call_flows, bi.agg_summary_daily, bi.agg_group_changes_weekly
to callhouse_reader;
