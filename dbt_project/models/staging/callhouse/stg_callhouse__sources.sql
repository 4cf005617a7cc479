-- One row per registered source.
with sources as (
    select * from {{ source('ops', 'sources') }}
),

final as (
    select
        source,
        vendor,
        label,
        time_zone,
        newest_event_at
    from sources
)

select * from final
