-- One row per team of a source, as its newest member's roster line describes it.
with versions as (
    select * from {{ ref('int_agents__versions') }}
),

ranked as (
    select
        source,
        team_id,
        team_name,
        region_code,
        row_number() over (
            partition by source, team_id
            order by valid_from desc, agent_id asc
        ) as newest
    from versions
),

final as (
    select
        source,
        team_id,
        team_name,
        region_code
    from ranked
    where newest = 1
)

select * from final
