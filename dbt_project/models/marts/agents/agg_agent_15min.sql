-- One row per local quarter of an hour and agent of a source who was logged in during some of it.
-- Quarters are instants: those of a repeated autumn hour stay apart.
with states as (
    select * from {{ ref('fct_agent_states') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

-- Half-open: a state that ends on the border is no part of the next quarter.
pieces as (
    select
        states.business_day,
        states.source,
        states.agent_id,
        states.agent_name,
        states.team_id,
        states.team_name,
        states.region_code,
        states.region_name,
        states.state,
        states.is_provisional,
        quarters.start_at,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        case when quarters.start_at = states.interval_start_at then states.agent_days else 0 end
            as agent_days,
        trim_scale(extract(
            epoch from least(states.ended_at, quarters.start_at + interval '15 minutes')
            - greatest(states.started_at, quarters.start_at)
        )) as seconds
    from states
    cross join
        lateral generate_series(
            states.interval_start_at,
            states.ended_at - interval '1 microsecond',
            interval '15 minutes'
        ) as quarters (start_at)
    left join sources on states.source = sources.source
),

sums as (
    select
        business_day,
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        region_name,
        start_at,
        time_zone,
        sum(agent_days) as agent_days,
        sum(seconds) as login_seconds,
        sum(case when is_provisional then seconds else 0 end) as provisional_login_seconds,
        sum(case when state = 'ready' then seconds else 0 end) as ready_seconds,
        sum(case when state = 'pause' then seconds else 0 end) as pause_seconds,
        sum(case when state = 'ring' then seconds else 0 end) as state_ring_seconds,
        sum(case when state = 'dial' then seconds else 0 end) as state_dial_seconds,
        sum(case when state = 'consult' then seconds else 0 end) as state_consult_seconds,
        sum(case when state = 'talk' then seconds else 0 end) as state_talk_seconds,
        sum(case when state = 'hold' then seconds else 0 end) as state_hold_seconds,
        sum(case when state = 'acw' then seconds else 0 end) as state_acw_seconds
    from pieces
    group by
        business_day,
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        region_name,
        start_at,
        time_zone
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
        {{ local_time_columns('start_at', 'business_day', 'time_zone') }},
        agent_days,
        login_seconds,
        provisional_login_seconds,
        ready_seconds,
        pause_seconds,
        state_ring_seconds,
        state_dial_seconds,
        state_consult_seconds,
        state_talk_seconds,
        state_hold_seconds,
        state_acw_seconds
    from sums
)

select * from final
