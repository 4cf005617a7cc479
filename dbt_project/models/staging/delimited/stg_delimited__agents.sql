-- One row per agent of a delimited roster and day from which it holds.
with agents as (
    select * from {{ source('staging', 'delimited_agents') }}
),

final as (
    select
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        valid_from
    from agents
    where superseded_by is null
)

select * from final
