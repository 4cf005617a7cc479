-- One row per agent of Amazon Connect and day from which name, team and region are as they are.
with seen as (
    select * from {{ source('staging', 'amazon_connect_agents') }}
),

-- Agent events know an agent's team at every moment, contact records while in a call.
days as (
    select distinct on (source, agent_id, seen_on) *
    from seen
    order by source, agent_id, seen_on, record
),

compared as (
    select
        *,
        lag((agent_name, team_id, team_name, agent_region_code)) over agent_days
            as attributes_before,
        row_number() over agent_days as day_number
    from days
    window agent_days as (partition by source, agent_id order by seen_on)
),

final as (
    select
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        agent_region_code as region_code,
        seen_on as valid_from
    from compared
    where
        day_number = 1
        or (agent_name, team_id, team_name, agent_region_code)
        is distinct from attributes_before
)

select * from final
