-- One row per ring of a contact to an agent in Amazon Connect, as the agent's own events tell.
-- Only of the claimed days, by the local day on which it began to ring.
with stretches as (
    select * from {{ ref('base_amazon_connect__agent_stretches') }}
),

sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

compared as (
    select
        *,
        lag(state) over agent_stretches = 'ring'
        and lag(contact_id) over agent_stretches = contact_id
        and lag(ended_at) over agent_stretches = started_at as is_same_ring,
        case
            when lead(started_at) over agent_stretches > ended_at then null
            when lead(contact_id) over agent_stretches = contact_id
                then lead(contact_state) over agent_stretches
        end as next_state,
        lead(reason) over agent_stretches as next_reason
    from stretches
    window agent_stretches as (
        partition by source, agent_id order by started_at
    )
),

rings as (
    select
        *,
        count(*) filter (where is_same_ring is not true) over (
            partition by source, agent_id order by started_at
        ) as ring_number
    from compared
    where state = 'ring' and contact_id is not null
),

offers as (
    select
        source,
        agent_id,
        call_id,
        contact_id,
        min(queue_id) as queue_id,
        min(started_at) as offered_at,
        max(ended_at) as ended_at,
        (array_agg(next_state order by started_at desc))[1] as next_state,
        (array_agg(next_reason order by started_at desc))[1] as next_reason,
        bool_or(is_provisional) as is_provisional
    from rings
    group by source, agent_id, call_id, contact_id, ring_number
),

dated as (
    select
        offers.*,
        (offers.offered_at at time zone sources.time_zone)::date as business_day
    from offers
    inner join sources on offers.source = sources.source
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day order by offered_at, agent_id
        ))::integer as offer_number,
        queue_id,
        agent_id,
        case
            when next_state in ('CONNECTED', 'CONNECTED_ONHOLD', 'ENDED') then 'answered'
            when next_state = 'MISSED' then 'no_answer'
            when next_state = 'REJECTED' then 'rejected'
            when next_state = 'ERROR' then 'failed'
            when next_reason = 'Missed call' then 'no_answer'
            else 'cancelled'
        end as outcome,
        trim_scale(extract(epoch from ended_at - offered_at)) as ring_seconds,
        business_day,
        offered_at,
        case when not is_provisional then ended_at end as ended_at
    from dated
    where business_day in ({{ claimed_days() }})
)

select * from final
