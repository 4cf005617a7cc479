-- One row per event of a call as its source recorded it, of a claimed day.
-- The one place where call events are filtered to the claimed days.
-- Vendors that know nothing of the kind are absent; `typed` keeps the relation then.
with typed as (
    select
        null::text as source,
        null::text as call_id,
        null::integer as event_number,
        null::text as record,
        null::text as event,
        null::text as queue_id,
        null::text as agent_id,
        null::date as business_day,
        null::timestamptz as event_at
    where false
),

unioned as (
    select * from typed
    union all
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
