-- One row per channel event of a call, with its place in the channel and whose channel it is.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with events as (
    select * from {{ source('staging', 'asterisk_cel_events') }}
    where call_id is not null
),

-- Clocks that tick in seconds leave the order within one to what a channel can do.
turned as (
    select
        *,
        case event
            when 'CHAN_START' then 1
            when 'ANSWER' then 2
            when 'APP_END' then 3
            when 'APP_START' then 4
            when 'BRIDGE_ENTER' then 5
            when 'BRIDGE_EXIT' then 7
            when 'HANGUP' then 8
            when 'CHAN_END' then 9
            when 'LINKEDID_END' then 10
            else 6
        end as turn
    from events
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
    from turned
    window
        from_its_first_channel as (
            partition by call_id, source, business_day
            order by coalesce(unique_id <> call_id, true), event_at, turn, row_hash
        )
),

final as (
    select
        source,
        call_id,
        unique_id,
        channel,
        event,
        application,
        application_data,
        application_kind,
        agent_id,
        hotline_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        hangup_party,
        row_hash,
        (row_number() over (
            partition by call_id, source, business_day
            order by event_at, turn, row_hash
        ))::integer as position,
        -- Colleagues talk to each other, and call customers; who waits in a queue is served.
        call_direction in ('inbound', 'callback') or has_queue as is_customers,
        call_direction = 'callback' as is_callback,
        coalesce(unique_id = first_unique_id, false) as is_caller,
        data_issues,
        business_day,
        event_at
    from called
)

select * from final
