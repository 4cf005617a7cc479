-- One row per team of a source and period in which neither its name nor its region changes.
with versions as (
    select * from {{ ref('int_teams__versions') }}
),

final as (
    select
        source,
        team_id,
        team_name,
        region_code,
        valid_to is null as is_current,
        valid_from,
        valid_to
    from versions
)

select * from final
