-- One row per call in Amazon Connect: a chain of contacts, or one call-back.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

calls as (
    select
        source,
        call_id,
        (array_agg(caller_token order by contact_number) filter (
            where caller_token is not null
        ))[1] as caller_token,
        (array_agg(caller_region_code order by contact_number) filter (
            where caller_token is not null
        ))[1] as caller_region_code,
        (array_agg(caller_carrier order by contact_number) filter (
            where caller_token is not null
        ))[1] as caller_carrier,
        (array_agg(hotline_id order by contact_number) filter (
            where hotline_id is not null
        ))[1] as hotline_id,
        (array_agg(self_service order by contact_number) filter (
            where self_service is not null
        ))[1] as self_service,
        (array_agg(business_type order by contact_number) filter (
            where business_type is not null
        ))[1] as business_type,
        (array_agg(priority order by contact_number) filter (
            where priority is not null
        ))[1] as priority,
        -- What runs after the agent has hung up (a survey, say) ends the call, but is not how the
        -- call went.
        (array_agg(
            hangup_party
            order by (initiation_method is not distinct from 'DISCONNECT'), contact_number desc
        ))[1] as hangup_party,
        case
            when bool_or(is_connected) then 'answered'
            else (array_agg(
                outcome
                order by (initiation_method is not distinct from 'DISCONNECT'), contact_number desc
            ))[1]
        end as outcome,
        (array_agg(
            abandon_stage
            order by (initiation_method is not distinct from 'DISCONNECT'), contact_number desc
        ))[1] as abandon_stage,
        bool_or(is_connected) as is_answered,
        bool_or(is_visit or is_dialled) or not bool_or(is_self_service) as is_for_people,
        bool_or(initiation_method like 'CALLBACK%') as is_callback,
        bool_or(voicemail is not null) as is_voicemail,
        bool_and(has_first_contact) as has_first_contact,
        (array_agg(
            trim_scale(
                extract(
                    epoch
                    from coalesce(enqueued_at, connected_at, disconnected_at)
                    - connected_to_system_at
                )
            )
            order by contact_number
        ) filter (where is_self_service))[1] as ivr_seconds,
        string_to_array(
            string_agg(array_to_string(data_issues, e'\x1f'), e'\x1f' order by contact_number)
            filter (where cardinality(data_issues) > 0),
            e'\x1f'
        ) as data_issues,
        business_day,
        min(initiated_at) as arrived_at,
        max(disconnected_at) as ended_at
    from contacts
    group by call_id, source, business_day
),

final as (
    select
        source,
        call_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        case
            when is_callback then 'callback'
            when is_voicemail and not is_answered then 'voicemail'
            when is_answered or is_for_people then 'human'
            when self_service = 'bot' then 'bot'
            else 'ivr'
        end as channel,
        business_type,
        priority,
        hangup_party,
        outcome,
        abandon_stage,
        ivr_seconds,
        case
            when has_first_contact then data_issues
            else data_issues || array['missing:initial_contact']
        end as data_issues,
        business_day,
        arrived_at,
        ended_at
    from calls
)

select * from final
