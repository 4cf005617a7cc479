-- One row per hotline of a source.
with members as (
    select * from {{ ref('int_members__known') }}
),

sources as (
    select * from {{ ref('int_sources__registered') }}
),

final as (
    select
        source,
        code as hotline_id,
        code as hotline_name
    from members
    where kind = 'hotline' and code <> 'unknown'
    union all
    select
        source,
        'unknown' as hotline_id,
        'Unknown hotline' as hotline_name
    from sources
)

select * from final
