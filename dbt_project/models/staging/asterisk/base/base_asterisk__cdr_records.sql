-- One row per call detail record of a customer's call, in the order of the call.
with records as (
    select * from {{ source('staging', 'asterisk_cdr_records') }}
),

-- The call is that of its first channel: linkedid is the unique id of the oldest one.
called as (
    select
        *,
        first_value(unique_id) over from_its_first_channel as first_unique_id,
        first_value(direction) over from_its_first_channel as call_direction,
        coalesce(
            bool_or(application_kind = 'queue') over (
                partition by call_id, source, business_day
            ),
            false
        ) as has_queue
    from records
    window
        from_its_first_channel as (
            partition by call_id, source, business_day
            order by coalesce(unique_id <> call_id, true), event_at, sequence, row_hash
        )
),

customers as (
    select
        *,
        coalesce(unique_id = first_unique_id, true) as is_caller
    from called
    -- Colleagues talk to each other, and call customers; who waits in a queue is served.
    where call_direction in ('inbound', 'callback') or has_queue
),

-- One record per phone that rang; the one that answered, or a bridge with an agent. In a conference
-- each pair has one: those of the others are no conversation of the caller.
answered as (
    select
        *,
        is_caller
        and agent_id is not null
        and peer_channel is not null
        and coalesce(disposition = 'ANSWERED', false)
        and answered_at is not null as has_answer,
        coalesce(starts_with(peer_channel, 'Local/'), false) as is_local
    from customers
),

-- A Local channel stands between the caller and an agent's device until both are joined: where the
-- device is seen too, it is no connection of its own.
told_apart as (
    select
        *,
        bool_or(has_answer and not is_local) over (
            partition by call_id, source, business_day
        ) as has_device
    from answered
),

final as (
    select
        source,
        call_id,
        application,
        application_data,
        application_kind,
        agent_id,
        hotline_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        disposition,
        peer_channel,
        (row_number() over (
            partition by call_id, source, business_day
            order by is_caller, ended_at, event_at, sequence, row_hash
        ))::integer as position,
        duration_seconds,
        billed_seconds,
        call_direction = 'callback' as is_callback,
        is_caller,
        has_answer and (not is_local or not has_device) as is_connected,
        data_issues,
        business_day,
        event_at,
        answered_at,
        ended_at
    from told_apart
)

select * from final
