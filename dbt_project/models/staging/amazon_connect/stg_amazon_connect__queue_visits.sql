-- One row per visit of a call to a queue in Amazon Connect.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by enqueued_at, contact_number
        ))::integer as visit_number,
        queue_id,
        case when is_connected then agent_id end as agent_id,
        visit_outcome as outcome,
        case when visit_outcome = 'abandoned' then 'queue' end as abandon_stage,
        wait_seconds,
        null::numeric as ring_seconds,
        business_day,
        enqueued_at as entered_at,
        dequeued_at as left_at
    from contacts
    where is_visit
)

select * from final
