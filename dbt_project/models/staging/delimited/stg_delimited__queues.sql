-- One row per queue of a delimited list and day from which it holds.
with queues as (
    select * from {{ source('staging', 'delimited_queues') }}
),

final as (
    select
        source,
        queue_id,
        queue_name,
        business_type,
        valid_from
    from queues
    where superseded_by is null
)

select * from final
