-- One row per registered source.
with sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

final as (
    select
        source,
        vendor,
        label as source_name,
        time_zone
    from sources
)

select * from final
