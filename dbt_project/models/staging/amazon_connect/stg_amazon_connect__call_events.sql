-- One row per instant that a contact record of Amazon Connect names.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

-- Within a second: the way that a contact takes.
instants as (
    select
        contacts.source,
        contacts.call_id,
        contacts.contact_number,
        contacts.queue_id,
        contacts.agent_id,
        contacts.business_day,
        named.turn,
        named.event,
        named.event_at
    from contacts
    cross join
        lateral (
            values
            (1, 'INITIATED', contacts.initiated_at),
            (2, 'CONNECTED_TO_SYSTEM', contacts.connected_to_system_at),
            (3, 'QUEUED', contacts.enqueued_at),
            (4, 'DEQUEUED', contacts.dequeued_at),
            (5, 'CONNECTED_TO_AGENT', contacts.connected_at),
            (6, 'TRANSFER_COMPLETED', contacts.transfer_completed_at),
            (7, 'DISCONNECTED', contacts.disconnected_at),
            (8, 'AFTER_CONTACT_WORK_STARTED', contacts.acw_started_at),
            (9, 'AFTER_CONTACT_WORK_ENDED', contacts.acw_ended_at)
        ) as named (turn, event, event_at)
    where named.event_at is not null
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by event_at, contact_number, turn
        ))::integer as event_number,
        'contacts' as record,
        event,
        case when turn in (3, 4, 5) then queue_id end as queue_id,
        case when turn >= 5 then agent_id end as agent_id,
        business_day,
        event_at
    from instants
)

select * from final
