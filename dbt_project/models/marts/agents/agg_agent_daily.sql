-- One row per day, agent of a source and region of the work (one region for an agent with a team).
with connections as (
    select * from {{ ref('fct_agent_connections') }}
),

final as (
    select
        business_day,
        source,
        agent_id,
        region_code,
        agent_name,
        team_id,
        team_name,
        region_name,
        iso_weekday,
        week_start,
        month_start,
        sum(agent_connections) as agent_connections,
        sum(connections_handled) as connections_handled,
        sum(connections_held) as connections_held,
        sum(transfers) as transfers,
        sum(transfers_blind) as transfers_blind,
        sum(transfers_attended) as transfers_attended,
        sum(transfers_consult) as transfers_consult,
        coalesce(sum(talk_seconds), 0) as talk_seconds,
        coalesce(sum(hold_seconds), 0) as hold_seconds,
        coalesce(sum(acw_seconds), 0) as acw_seconds,
        coalesce(sum(handle_seconds), 0) as handle_seconds,
        coalesce(sum(handled_talk_seconds), 0) as handled_talk_seconds,
        coalesce(sum(handled_talk_seconds_squared), 0) as handled_talk_seconds_squared
    from connections
    group by
        business_day,
        source,
        agent_id,
        region_code,
        agent_name,
        team_id,
        team_name,
        region_name,
        iso_weekday,
        week_start,
        month_start
)

select * from final
