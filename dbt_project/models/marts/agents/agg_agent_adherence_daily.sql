-- One row per day and agent with a plan, where the source told on that day what agents did.
with schedules as (
    select * from {{ ref('fct_agent_schedules') }}
),

-- States are read twice: a copy of all their columns would cost more than both.
states as not materialized (
    select * from {{ ref('fct_agent_states') }}
),

plan_sums as (
    select
        business_day,
        source,
        agent_id,
        max(agent_name) as agent_name,
        max(team_id) as team_id,
        max(team_name) as team_name,
        max(region_code) as region_code,
        max(region_name) as region_name,
        sum(planned_seconds) as scheduled_seconds,
        sum(planned_work_seconds) as scheduled_work_seconds,
        sum(planned_paid_seconds) as paid_seconds
    from schedules
    group by business_day, source, agent_id
),

state_sums as (
    select
        business_day,
        source,
        agent_id,
        sum(login_seconds) as login_seconds,
        sum(login_seconds) - sum(pause_seconds) as worked_seconds,
        sum(ready_seconds)
        + sum(state_talk_seconds)
        + sum(state_hold_seconds)
        + sum(state_acw_seconds) as utilised_seconds
    from states
    group by business_day, source, agent_id
),

-- Without a state of anybody nobody knows who kept to the plan: the day is still to come, or its
-- states are not exported. With them, an agent who has none was not there.
told_days as (
    select distinct
        business_day,
        source
    from state_sums
),

shared_stretches as (
    select
        schedules.business_day,
        schedules.source,
        schedules.agent_id,
        schedules.activity,
        states.state,
        trim_scale(extract(
            epoch from least(schedules.ends_at, states.ended_at)
            - greatest(schedules.starts_at, states.started_at)
        )) as seconds
    from schedules
    inner join states
        on
            schedules.business_day = states.business_day
            and schedules.source = states.source
            and schedules.agent_id = states.agent_id
            and schedules.starts_at < states.ended_at
            and schedules.ends_at > states.started_at
    where schedules.activity <> 'absence'
),

shared_sums as (
    select
        business_day,
        source,
        agent_id,
        sum(seconds) as login_seconds,
        sum(case when activity = 'work' then seconds else 0 end) as work_login_seconds,
        sum(case when activity = 'work' and state = 'pause' then seconds else 0 end)
            as paused_seconds,
        sum(case when activity <> 'work' and state <> 'pause' then seconds else 0 end)
            as worked_break_seconds
    from shared_stretches
    group by business_day, source, agent_id
),

compared as (
    select
        plan_sums.business_day,
        plan_sums.source,
        plan_sums.agent_id,
        plan_sums.agent_name,
        plan_sums.team_id,
        plan_sums.team_name,
        plan_sums.region_code,
        plan_sums.region_name,
        plan_sums.scheduled_seconds,
        plan_sums.scheduled_work_seconds,
        plan_sums.paid_seconds,
        coalesce(state_sums.worked_seconds, 0) as worked_seconds,
        coalesce(state_sums.utilised_seconds, 0) as utilised_seconds,
        plan_sums.scheduled_work_seconds - coalesce(shared_sums.work_login_seconds, 0)
            as absent_seconds,
        coalesce(shared_sums.paused_seconds, 0) as paused_seconds,
        coalesce(shared_sums.worked_break_seconds, 0) as worked_break_seconds,
        coalesce(state_sums.login_seconds, 0) - coalesce(shared_sums.login_seconds, 0)
            as outside_seconds
    from plan_sums
    inner join told_days
        on
            plan_sums.business_day = told_days.business_day
            and plan_sums.source = told_days.source
    left join state_sums
        on
            plan_sums.business_day = state_sums.business_day
            and plan_sums.source = state_sums.source
            and plan_sums.agent_id = state_sums.agent_id
    left join shared_sums
        on
            plan_sums.business_day = shared_sums.business_day
            and plan_sums.source = shared_sums.source
            and plan_sums.agent_id = shared_sums.agent_id
),

final as (
    select
        business_day,
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        region_name,
        extract(isodow from business_day)::integer as iso_weekday,
        date_trunc('week', business_day)::date as week_start,
        date_trunc('month', business_day)::date as month_start,
        scheduled_seconds,
        scheduled_work_seconds,
        paid_seconds,
        worked_seconds,
        utilised_seconds,
        absent_seconds,
        paused_seconds,
        worked_break_seconds,
        outside_seconds,
        absent_seconds + paused_seconds + worked_break_seconds + outside_seconds
            as exception_seconds
    from compared
)

select * from final
