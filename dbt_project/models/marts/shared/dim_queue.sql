-- One row per queue of a source and period in which neither its attributes nor its targets change.
with versions as (
    select * from {{ ref('int_queues__versions') }}
),

final as (
    select
        source,
        queue_id,
        queue_name,
        business_type,
        target_seconds,
        short_abandon_seconds,
        answer_rate_target,
        service_level_target,
        abandon_rate_target,
        valid_to is null as is_current,
        valid_from,
        valid_to
    from versions
)

select * from final
