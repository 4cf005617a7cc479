-- One row per agent of a source and period in which the agent's attributes do not change.
with versions as (
    select * from {{ ref('int_agents__versions') }}
),

final as (
    select
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        valid_to is null as is_current,
        valid_from,
        valid_to
    from versions
)

select * from final
