-- One row per stretch between two events of an agent in Amazon Connect, of a claimed day or around.
-- Only of those days: an event says what is true until the next one, and that may be tomorrow.
with events as (
    select * from {{ source('staging', 'amazon_connect_agent_events') }}
    where business_day in ({{ claimed_days(reach=1) }}) and superseded_by is null
),

sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

-- Events of one instant follow each other by what was true before them.
remembered as (
    select
        *,
        max(event_at) filter (where event_type in ('LOGIN', 'STATE_CHANGE')) over earlier
            as changed_at,
        max(event_at) filter (where event_type = 'LOGOUT') over earlier as logged_out_at
    from events
    window earlier as (
        partition by source, agent_id
        order by
            event_at,
            previous_started_at,
            array_position(array['LOGIN', 'STATE_CHANGE', 'HEART_BEAT', 'LOGOUT'], event_type),
            event_id
        rows between unbounded preceding and 1 preceding
    )
),

-- The stream goes on beating up to an hour after a logout, with whatever it knew last.
alive as (
    select * from remembered
    where
        event_type <> 'HEART_BEAT'
        or logged_out_at is null
        or changed_at > logged_out_at
        or event_at > logged_out_at + interval '1 hour'
),

compared as (
    select
        alive.*,
        sources.newest_event_at,
        lag(alive.event_at) over agent_events as prior_at,
        -- Arrays of JSON, because nulls in them are equal.
        lag(
            jsonb_build_array(
                alive.status_name, alive.status_type, alive.contact_id, alive.contact_state
            )
        ) over agent_events as prior_snapshot,
        jsonb_build_array(
            alive.previous_status_name,
            alive.previous_status_type,
            alive.previous_contact_id,
            alive.previous_contact_state
        ) as previous_snapshot
    from alive
    inner join sources on alive.source = sources.source
    window agent_events as (
        partition by alive.source, alive.agent_id
        order by
            alive.event_at,
            alive.previous_started_at,
            array_position(
                array['LOGIN', 'STATE_CHANGE', 'HEART_BEAT', 'LOGOUT'], alive.event_type
            ),
            alive.event_id
    )
),

-- No stretch is longer than 16 hours, so what lies further back is no neighbour. A difference from
-- what the event before said: one between them is lost.
reaching as (
    select
        *,
        case
            when previous_started_at is null then event_at
            when
                coalesce(prior_at < event_at - interval '16 hours', true)
                or prior_snapshot <> previous_snapshot
                then least(
                    event_at,
                    greatest(previous_started_at, prior_at, event_at - interval '16 hours')
                )
            else event_at
        end as reaches_back_to
    from compared
),

followed as (
    select
        *,
        lead(reaches_back_to) over (
            partition by source, agent_id
            order by
                event_at,
                previous_started_at,
                array_position(
                    array['LOGIN', 'STATE_CHANGE', 'HEART_BEAT', 'LOGOUT'], event_type
                ),
                event_id
        ) as next_at
    from reaching
),

stretches as (
    select
        source,
        agent_id,
        event_type,
        status_name,
        status_type,
        call_id,
        contact_id,
        contact_state,
        initiation_method,
        queue_id,
        coalesce(next_at > event_at + interval '16 hours', true) as is_provisional,
        event_at as started_at,
        least(next_at, newest_event_at, event_at + interval '16 hours') as ended_at
    from followed
    union all
    select
        source,
        agent_id,
        'HEART_BEAT' as event_type,
        previous_status_name as status_name,
        previous_status_type as status_type,
        previous_call_id as call_id,
        previous_contact_id as contact_id,
        previous_contact_state as contact_state,
        previous_initiation_method as initiation_method,
        previous_queue_id as queue_id,
        false as is_provisional,
        reaches_back_to as started_at,
        event_at as ended_at
    from followed
),

final as (
    select
        source,
        agent_id,
        case
            when event_type = 'LOGOUT' then null
            when contact_state = 'CONNECTED' then 'talk'
            when contact_state in ('CONNECTED_ONHOLD', 'PAUSED') then 'hold'
            when
                contact_state = 'CONNECTING'
                and initiation_method in (
                    'OUTBOUND',
                    'EXTERNAL_OUTBOUND',
                    'CALLBACK',
                    'CALLBACK_CUSTOMER_FIRST_QUEUED',
                    'CALLBACK_CUSTOMER_FIRST_DIALED',
                    'CAMPAIGN_PREVIEW'
                )
                then 'dial'
            when contact_state in ('CONNECTING', 'INCOMING', 'PENDING') then 'ring'
            when contact_state = 'ENDED' then 'acw'
            when contact_state in ('MISSED', 'REJECTED', 'ERROR') then 'pause'
            when status_type = 'ROUTABLE' then 'ready'
            -- Of a status that is new to us one thing is certain: no call comes by it.
            when status_type <> 'OFFLINE' then 'pause'
            when event_type = 'LOGIN' and status_type is null then 'ready'
        end as state,
        case
            when contact_state in ('MISSED', 'REJECTED', 'ERROR') then contact_state
            when contact_state is null and status_type <> 'ROUTABLE' then status_name
        end as reason,
        call_id,
        contact_id,
        contact_state,
        queue_id,
        is_provisional,
        started_at,
        ended_at
    from stretches
    where ended_at > started_at
)

select * from final
