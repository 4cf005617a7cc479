-- One row per customer's call of the call detail records.
with records as (
    select * from {{ ref('base_asterisk__cdr_records') }}
),

grouped as (
    select
        source,
        business_day,
        call_id,
        bool_or(is_callback) as is_callback,
        bool_or(is_connected) as is_connected,
        bool_or(application_kind = 'queue') as has_queue,
        bool_or(application_kind in ('queue', 'dial') or peer_channel is not null) as has_reached,
        (array_agg(hotline_id order by position) filter (where hotline_id is not null))[1]
            as hotline_id,
        (array_agg(caller_token order by position) filter (where caller_token is not null))[1]
            as caller_token,
        (array_agg(caller_region_code order by position) filter (
            where caller_region_code is not null
        ))[1] as caller_region_code,
        (array_agg(caller_carrier order by position) filter (
            where caller_carrier is not null
        ))[1] as caller_carrier,
        (array_agg(application_kind order by position desc))[1] as last_kind,
        (array_agg(application order by position desc))[1] as last_application,
        (array_agg(application_data order by position desc))[1] as last_data,
        (array_agg(disposition order by position desc))[1] as last_disposition,
        (array_agg(peer_channel order by position desc))[1] as last_peer,
        string_to_array(
            string_agg(
                array_to_string(data_issues, e'\x1f'), e'\x1f'
                order by position
            ) filter (where cardinality(data_issues) > 0),
            e'\x1f'
        ) as data_issues,
        min(event_at) as arrived_at,
        min(answered_at) as answered_at,
        -- The caller's channel lives as long as the call; those of others may outlive it.
        coalesce(max(ended_at) filter (where is_caller), max(ended_at)) as ended_at
    from records
    group by call_id, source, business_day
),

measured as (
    select
        *,
        trim_scale(extract(epoch from ended_at - coalesce(answered_at, arrived_at)))
            as whole_seconds
    from grouped
),

-- The last record of a call says where it ended, never who ended it. Decision 34 has the reasons.
judged as (
    select
        *,
        case
            when is_connected then 'answered'
            when is_callback then 'incomplete'
            when last_kind = 'voicemail' then 'voicemail'
            when last_disposition in ('BUSY', 'FAILED', 'CONGESTION') then 'incomplete'
            when last_peer is not null and last_disposition = 'ANSWERED' then 'transferred'
            when last_kind = 'queue' then 'incomplete'
            when last_peer is not null or last_kind = 'dial' then 'abandoned'
            when answered_at is null then 'abandoned'
            when last_kind in ('menu', 'bot') and whole_seconds < 10 then 'abandoned'
            when last_kind in ('menu', 'bot') then 'contained'
            else 'incomplete'
        end as outcome
    from measured
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
            when outcome = 'voicemail' then 'voicemail'
            when is_connected or has_reached then 'human'
            when last_kind = 'bot' then 'bot'
            else 'ivr'
        end as channel,
        outcome,
        case
            when outcome <> 'abandoned' then null
            when last_peer is not null or last_kind = 'dial' then 'ring'
            when last_kind = 'bot' then 'bot'
            else 'ivr'
        end as abandon_stage,
        last_application,
        last_data,
        last_kind,
        case
            when not has_reached and last_kind in ('menu', 'bot', 'announcement')
                then whole_seconds
        end as ivr_seconds,
        is_connected,
        has_queue,
        data_issues,
        business_day,
        arrived_at,
        answered_at,
        ended_at
    from judged
)

select * from final
