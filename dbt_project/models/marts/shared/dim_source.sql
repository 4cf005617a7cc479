-- One row per registered source.
with sources as (
    select * from {{ ref('int_sources__registered') }}
),

final as (
    select
        source,
        vendor,
        source_name,
        time_zone
    from sources
)

select * from final
