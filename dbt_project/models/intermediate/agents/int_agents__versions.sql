-- One row per agent of a source and period in which the agent's attributes do not change.
-- The first period reaches back to 1900: a call before the first roster keeps a known agent.
with roster as (
    select * from {{ ref('int_agents__unioned') }}
),

members as (
    select * from {{ ref('int_members__known') }}
),

sources as (
    select * from {{ ref('int_sources__registered') }}
),

rostered as (
    select
        source,
        agent_id,
        coalesce(agent_name, agent_id) as agent_name,
        coalesce(team_id, 'unknown') as team_id,
        coalesce(team_name, team_id, 'Unknown team') as team_name,
        coalesce(region_code, 'unknown') as region_code,
        case
            when row_number() over (partition by source, agent_id order by valid_from) = 1
                then date '1900-01-01'
            else valid_from
        end as valid_from,
        lead(valid_from) over (partition by source, agent_id order by valid_from) as valid_to
    from roster
),

unrostered as (
    select
        members.source,
        members.code as agent_id
    from members
    left join roster
        on members.source = roster.source and members.code = roster.agent_id
    where
        members.kind = 'agent'
        and members.code not in ('unknown', 'none')
        and roster.agent_id is null
),

versions as (
    select * from rostered
    union all
    select
        source,
        agent_id,
        agent_id as agent_name,
        'unknown' as team_id,
        'Unknown team' as team_name,
        'unknown' as region_code,
        date '1900-01-01' as valid_from,
        null as valid_to
    from unrostered
    union all
    select
        source,
        'unknown' as agent_id,
        'Unknown agent' as agent_name,
        'unknown' as team_id,
        'Unknown team' as team_name,
        'unknown' as region_code,
        date '1900-01-01' as valid_from,
        null as valid_to
    from sources
    union all
    select
        source,
        'none' as agent_id,
        'No agent' as agent_name,
        'none' as team_id,
        'No team' as team_name,
        'unknown' as region_code,
        date '1900-01-01' as valid_from,
        null as valid_to
    from sources
),

final as (
    select
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        valid_from,
        valid_to
    from versions
)

select * from final
