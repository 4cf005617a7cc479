-- One row per day, agent of a source and region of the work (one region for an agent with a team).
-- Connections count on the day of their call, states on their own local day. Seconds of connections
-- add up every connection; those of states (login, ready, pause, state_…) tile the agent's time.
with connections as (
    select * from {{ ref('fct_agent_connections') }}
),

states as (
    select * from {{ ref('fct_agent_states') }}
),

connection_sums as (
    select
        business_day,
        source,
        agent_id,
        region_code,
        max(agent_name) as agent_name,
        max(team_id) as team_id,
        max(team_name) as team_name,
        max(region_name) as region_name,
        sum(agent_connections) as agent_connections,
        sum(connections_handled) as connections_handled,
        sum(connections_held) as connections_held,
        sum(transfers) as transfers,
        sum(transfers_blind) as transfers_blind,
        sum(transfers_attended) as transfers_attended,
        sum(transfers_consult) as transfers_consult,
        sum(talk_seconds) as talk_seconds,
        sum(hold_seconds) as hold_seconds,
        sum(acw_seconds) as acw_seconds,
        sum(handle_seconds) as handle_seconds,
        sum(handled_talk_seconds) as handled_talk_seconds,
        sum(handled_talk_seconds_squared) as handled_talk_seconds_squared
    from connections
    group by business_day, source, agent_id, region_code
),

state_sums as (
    select
        business_day,
        source,
        agent_id,
        region_code,
        max(agent_name) as agent_name,
        max(team_id) as team_id,
        max(team_name) as team_name,
        max(region_name) as region_name,
        sum(agent_days) as agent_days,
        sum(login_seconds) as login_seconds,
        sum(provisional_login_seconds) as provisional_login_seconds,
        sum(ready_seconds) as ready_seconds,
        sum(pause_seconds) as pause_seconds,
        sum(state_ring_seconds) as state_ring_seconds,
        sum(state_dial_seconds) as state_dial_seconds,
        sum(state_consult_seconds) as state_consult_seconds,
        sum(state_talk_seconds) as state_talk_seconds,
        sum(state_hold_seconds) as state_hold_seconds,
        sum(state_acw_seconds) as state_acw_seconds
    from states
    group by business_day, source, agent_id, region_code
),

final as (
    select
        business_day,
        source,
        agent_id,
        region_code,
        coalesce(connection_sums.agent_name, state_sums.agent_name) as agent_name,
        coalesce(connection_sums.team_id, state_sums.team_id) as team_id,
        coalesce(connection_sums.team_name, state_sums.team_name) as team_name,
        coalesce(connection_sums.region_name, state_sums.region_name) as region_name,
        extract(isodow from business_day)::integer as iso_weekday,
        date_trunc('week', business_day)::date as week_start,
        date_trunc('month', business_day)::date as month_start,
        coalesce(connection_sums.agent_connections, 0) as agent_connections,
        coalesce(connection_sums.connections_handled, 0) as connections_handled,
        coalesce(connection_sums.connections_held, 0) as connections_held,
        coalesce(connection_sums.transfers, 0) as transfers,
        coalesce(connection_sums.transfers_blind, 0) as transfers_blind,
        coalesce(connection_sums.transfers_attended, 0) as transfers_attended,
        coalesce(connection_sums.transfers_consult, 0) as transfers_consult,
        coalesce(connection_sums.talk_seconds, 0) as talk_seconds,
        coalesce(connection_sums.hold_seconds, 0) as hold_seconds,
        coalesce(connection_sums.acw_seconds, 0) as acw_seconds,
        coalesce(connection_sums.handle_seconds, 0) as handle_seconds,
        coalesce(connection_sums.handled_talk_seconds, 0) as handled_talk_seconds,
        coalesce(connection_sums.handled_talk_seconds_squared, 0) as handled_talk_seconds_squared,
        -- Empty, not 0, without states: many sources do not tell when agents are logged in.
        state_sums.agent_days,
        state_sums.login_seconds,
        state_sums.provisional_login_seconds,
        state_sums.ready_seconds,
        state_sums.pause_seconds,
        state_sums.state_ring_seconds,
        state_sums.state_dial_seconds,
        state_sums.state_consult_seconds,
        state_sums.state_talk_seconds,
        state_sums.state_hold_seconds,
        state_sums.state_acw_seconds
    from connection_sums
    -- A full join's keys come from either side: only `using` merges them.
    full join state_sums
        using (business_day, source, agent_id, region_code)  -- noqa: ST07
)

select * from final
