-- One row per team of a source and period in which neither its name nor its region changes.
-- The first period reaches back to 1900: a call before the first roster keeps a known team.
with roster as (
    select * from {{ ref('int_agents__unioned') }}
),

sources as (
    select * from {{ ref('int_sources__registered') }}
),

-- A roster describes teams by their members; of the lines of one day the first agent's counts.
ranked as (
    select
        source,
        team_id,
        valid_from,
        coalesce(team_name, team_id) as team_name,
        coalesce(region_code, 'unknown') as region_code,
        row_number() over (
            partition by source, team_id, valid_from
            order by agent_id asc
        ) as choice
    from roster
    where team_id is not null
),

compared as (
    select
        source,
        team_id,
        valid_from,
        team_name,
        region_code,
        lag(team_name) over (partition by source, team_id order by valid_from) as earlier_name,
        lag(region_code) over (partition by source, team_id order by valid_from) as earlier_region
    from ranked
    where choice = 1
),

changes as (
    select
        source,
        team_id,
        valid_from,
        team_name,
        region_code
    from compared
    where (team_name, region_code) is distinct from (earlier_name, earlier_region)
),

versions as (
    select
        source,
        team_id,
        team_name,
        region_code,
        case
            when row_number() over (partition by source, team_id order by valid_from) = 1
                then date '1900-01-01'
            else valid_from
        end as valid_from,
        lead(valid_from) over (partition by source, team_id order by valid_from) as valid_to
    from changes
    union all
    select
        source,
        'unknown' as team_id,
        'Unknown team' as team_name,
        'unknown' as region_code,
        date '1900-01-01' as valid_from,
        null as valid_to
    from sources
    union all
    select
        source,
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
        team_id,
        team_name,
        region_code,
        valid_from,
        valid_to
    from versions
)

select * from final
