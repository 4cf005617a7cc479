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

-- Who an agent is does not change within a day: what tells it is no part of the groups' key.
sums as (
    select
        business_day,
        source,
        agent_id,
        start_at,
        max(agent_name) as agent_name,
        max(team_id) as team_id,
        max(team_name) as team_name,
        max(region_code) as region_code,
        max(region_name) as region_name,
        max(time_zone) as time_zone,
        sum(agent_days) as agent_days,
        sum(seconds) as login_seconds,
        coalesce(sum(seconds) filter (where is_provisional), 0) as provisional_login_seconds,
        coalesce(sum(seconds) filter (where state = 'ready'), 0) as ready_seconds,
        coalesce(sum(seconds) filter (where state = 'pause'), 0) as pause_seconds,
        coalesce(sum(seconds) filter (where state = 'ring'), 0) as state_ring_seconds,
        coalesce(sum(seconds) filter (where state = 'dial'), 0) as state_dial_seconds,
        coalesce(sum(seconds) filter (where state = 'consult'), 0) as state_consult_seconds,
        coalesce(sum(seconds) filter (where state = 'talk'), 0) as state_talk_seconds,
        coalesce(sum(seconds) filter (where state = 'hold'), 0) as state_hold_seconds,
        coalesce(sum(seconds) filter (where state = 'acw'), 0) as state_acw_seconds
    from pieces
    group by start_at, agent_id, source, business_day
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
