-- One row per event of a call as its source recorded it, of a claimed day.
-- The one place where call events are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_asterisk__call_events') }}
    union all
    select * from {{ ref('stg_delimited__call_events') }}
    union all
    select * from {{ ref('stg_amazon_connect__call_events') }}
),

final as (
    select
        source,
        call_id,
        event_number,
        record,
        event,
        queue_id,
        agent_id,
        business_day,
        event_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
