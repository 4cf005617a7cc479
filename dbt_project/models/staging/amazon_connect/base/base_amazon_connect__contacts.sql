-- One row per contact of a customer's call in Amazon Connect, in its newest version.
-- Windows are parted by business day: filters on days then reach the partitions.
with contacts as (
    select * from {{ source('staging', 'amazon_connect_contacts') }}
),

-- A supervisor who listens is no customer, and a chat is no call.
spoken as (
    select
        *,
        coalesce(
            initiation_method in (
                'OUTBOUND',
                'EXTERNAL_OUTBOUND',
                'CALLBACK',
                'CALLBACK_CUSTOMER_FIRST_QUEUED',
                'CALLBACK_CUSTOMER_FIRST_DIALED',
                'CAMPAIGN_PREVIEW'
            ),
            false
        ) as is_dialled,
        coalesce(
            connected_to_agent_at,
            -- Who talked was connected, whatever the record left out.
            case
                when agent_id is not null and talk_seconds > 0
                    then coalesce(
                        dequeued_at,
                        disconnected_at
                        - (talk_seconds + coalesce(hold_seconds, 0)) * interval '1 second'
                    )
            end
        ) as answered_at,
        -- What the contact was for the one before it, which its agent or its queue passed on.
        case
            when initiation_method = 'QUEUE_TRANSFER' then 'queue'
            when initiation_method = 'EXTERNAL_OUTBOUND' then 'blind'
            when initiation_method = 'TRANSFER' and queue_id is null and agent_id is not null
                then 'attended'
            when initiation_method = 'TRANSFER' then 'blind'
            else 'other'
        end as passed_on_as
    from contacts
    where
        superseded_by is null
        and coalesce(contact_channel, 'VOICE') = 'VOICE'
        and initiation_method is distinct from 'MONITOR'
),

placed as (
    select
        *,
        row_number() over in_order as contact_number,
        bool_or(contact_id = call_id) over whole_call as has_first_contact,
        jsonb_object_agg(previous_contact_id, passed_on_as) filter (
            where previous_contact_id is not null
        ) over whole_call ->> contact_id as followed_as
    from spoken
    window
        in_order as (
            partition by call_id, source, business_day
            order by event_at, (contact_id <> call_id), disconnected_at, contact_id
        ),
        -- Of several contacts that follow the same one, the last decides.
        whole_call as (
            partition by call_id, source, business_day
            order by event_at, (contact_id <> call_id), disconnected_at, contact_id
            rows between unbounded preceding and unbounded following
        )
),

described as (
    select
        *,
        -- A call-back waits without its customer, and calls that agents make wait in no queue.
        queue_id is not null and enqueued_at is not null and not is_dialled as is_visit,
        -- An agent who dialled in vain was connected to nobody; who dialled a third party is
        -- connected by the contact before.
        answered_at is not null
        and (not is_dialled or connected_to_system_at is not null)
        and coalesce(initiation_method <> 'EXTERNAL_OUTBOUND', true) as is_connected,
        coalesce(initiation_method in ('INBOUND', 'API', 'WEBRTC_API'), false) as is_self_service,
        trim_scale(extract(epoch from dequeued_at - enqueued_at)) as measured_wait,
        trim_scale(extract(epoch from acw_started_at - answered_at)) as measured_talk,
        -- Times are whole seconds, so the end of one wait and of the call may lie one apart.
        disconnected_at <= dequeued_at + interval '1 second' as is_left_by_ending
    from placed
),

judged as (
    select
        *,
        case
            when not is_visit then null
            when is_connected then 'answered'
            when followed_as = 'queue' then 'transferred'
            when queue_exit is not null then queue_exit
            -- The next contact is none of this call: it begins the call-back.
            when next_contact_id is not null and followed_as is null then 'callback_requested'
            when dequeued_at is null or disconnected_at is null then 'incomplete'
            when is_left_by_ending and disconnect_reason = 'CUSTOMER_DISCONNECT' then 'abandoned'
            when
                is_left_by_ending
                and disconnect_reason not in ('CONTACT_FLOW_DISCONNECT', 'API', 'EXPIRED')
                then 'incomplete'
            when is_left_by_ending and disconnect_reason is null then 'incomplete'
            -- The flow took the caller out of the queue, and no attribute says why.
            else 'timeout'
        end as visit_outcome
    from described
),

final as (
    select
        source,
        call_id,
        contact_id,
        contact_number::integer as contact_number,
        initiation_method,
        disconnect_reason,
        queue_id,
        agent_id,
        case
            when followed_as in ('blind', 'attended') then followed_as
            when transferred_to is not null and transfer_completed_at is not null then 'blind'
        end as transfer_type,
        case disconnect_reason
            when 'CUSTOMER_DISCONNECT' then 'customer'
            when 'CUSTOMER_NETWORK_DISCONNECT' then 'customer'
            when 'AGENT_DISCONNECT' then 'agent'
            when 'AGENT_COMPLETED' then 'agent'
            when 'AGENT_NETWORK_DISCONNECT' then 'agent'
            when 'THIRD_PARTY_DISCONNECT' then 'system'
            when 'TELECOM_PROBLEM' then 'system'
            when 'BARGED' then 'system'
            when 'CONTACT_FLOW_DISCONNECT' then 'system'
            when 'OTHER' then 'system'
            when 'EXPIRED' then 'system'
            when 'API' then 'system'
            when 'TRANSFERRED' then 'system'
            when 'IDLE_DISCONNECT' then 'system'
            when 'SYSTEM_ERROR' then 'system'
            when 'DISCARDED' then 'system'
            when 'OUTBOUND_DESTINATION_ENDPOINT_ERROR' then 'system'
            when 'OUTBOUND_RESOURCE_ERROR' then 'system'
            when 'OUTBOUND_ATTEMPT_FAILED' then 'system'
            when 'OUTBOUND_PREVIEW_DISCARDED' then 'system'
            when 'CUSTOMER_NEVER_ARRIVED' then 'system'
            when 'CUSTOMER_CONNECTION_NOT_ESTABLISHED' then 'system'
        end as hangup_party,
        visit_outcome,
        case
            when voicemail = 'left' then 'voicemail'
            when voicemail = 'none' then 'abandoned'
            when is_connected then 'answered'
            when is_visit then visit_outcome
            when ivr_outcome is not null then ivr_outcome
            when is_dialled then 'incomplete'
            when disconnect_reason = 'CUSTOMER_DISCONNECT' then 'abandoned'
            else 'incomplete'
        end as outcome,
        case
            when voicemail = 'none' then 'voicemail'
            when voicemail = 'left' or is_connected then null
            when visit_outcome = 'abandoned' then 'queue'
            when is_visit or ivr_outcome is not null or not is_self_service then null
            when disconnect_reason = 'CUSTOMER_DISCONNECT' and self_service = 'bot' then 'bot'
            when disconnect_reason = 'CUSTOMER_DISCONNECT' then 'ivr'
        end as abandon_stage,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        business_type,
        priority,
        self_service,
        ivr_outcome,
        voicemail,
        survey_type,
        survey_score,
        coalesce(queue_seconds, measured_wait) as wait_seconds,
        coalesce(talk_seconds, measured_talk) as talk_seconds,
        hold_seconds,
        coalesce(
            acw_seconds, trim_scale(extract(epoch from acw_ended_at - acw_started_at))
        ) as acw_seconds,
        is_dialled,
        is_self_service,
        is_visit,
        is_connected,
        has_first_contact,
        nullif(data_issues || array_remove(
            array[
                case when abs(queue_seconds - measured_wait) > 2 then 'disagrees:wait_seconds' end,
                case
                    when abs(talk_seconds + coalesce(hold_seconds, 0) - measured_talk) > 2
                        then 'disagrees:talk_seconds'
                end,
                case
                    when answered_at is not null and connected_to_agent_at is null
                        then 'missing:connected_at'
                end,
                case when disconnected_at is null then 'missing:ended_at' end
            ],
            null
        ), '{}') as data_issues,
        business_day,
        event_at as initiated_at,
        connected_to_system_at,
        enqueued_at,
        dequeued_at,
        answered_at as connected_at,
        coalesce(
            answered_at
            + (talk_seconds + coalesce(hold_seconds, 0)) * interval '1 second',
            acw_started_at
        ) as released_at,
        acw_started_at,
        acw_ended_at,
        transfer_completed_at,
        disconnected_at,
        survey_offered_at,
        survey_answered_at
    from judged
)

select * from final
