-- One row per customer's call of the channel event log.
-- Events, stays and connections are stacked, not joined: filters on days then reach the partitions.
with events as (
    select * from {{ ref('base_asterisk__cel_events') }}
),

stays as (
    select * from {{ ref('base_asterisk__cel_stays') }}
),

connections as (
    select * from {{ ref('base_asterisk__cel_connections') }}
),

parts as (
    select
        source,
        call_id,
        'event' as part,
        event,
        null as application_kind,
        hotline_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        case when is_caller then hangup_party end as hangup_party,
        position,
        null::numeric as seconds,
        is_caller,
        is_callback,
        data_issues,
        business_day,
        event_at
    from events
    where is_customers
    union all
    select
        source,
        call_id,
        'stay' as part,
        null as event,
        application_kind,
        null as hotline_id,
        null as caller_token,
        null as caller_region_code,
        null as caller_carrier,
        null as hangup_party,
        position,
        stay_seconds as seconds,
        true as is_caller,
        false as is_callback,
        null as data_issues,
        business_day,
        entered_at as event_at
    from stays
    union all
    select
        source,
        call_id,
        'connection' as part,
        null as event,
        null as application_kind,
        null as hotline_id,
        null as caller_token,
        null as caller_region_code,
        null as caller_carrier,
        null as hangup_party,
        null as position,
        talk_seconds as seconds,
        false as is_caller,
        false as is_callback,
        null as data_issues,
        business_day,
        connected_at as event_at
    from connections
),

grouped as (
    select
        source,
        business_day,
        call_id,
        bool_or(is_callback) as is_callback,
        bool_or(event = 'LINKEDID_END') as is_over,
        bool_or(event = 'ANSWER' and is_caller) as is_answered,
        bool_or(part = 'stay') as has_stays,
        bool_or(application_kind = 'queue') as has_queue,
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
        (array_agg(hangup_party order by position desc) filter (
            where hangup_party is not null
        ))[1] as hangup_party,
        (array_agg(application_kind order by position desc) filter (where part = 'stay'))[1]
            as last_kind,
        (array_agg(seconds order by position desc) filter (where part = 'stay'))[1]
            as last_seconds,
        (array_agg(application_kind order by position desc) filter (
            where application_kind in ('menu', 'bot')
        ))[1] as last_self_service,
        coalesce(sum(seconds) filter (where application_kind in ('menu', 'bot')), 0)
            as ivr_seconds,
        coalesce(bool_or(application_kind in ('menu', 'bot') and seconds is null), false)
            as is_in_self_service,
        (count(*) filter (where part = 'connection'))::integer as connections,
        sum(seconds) filter (where part = 'connection') as talk_seconds,
        string_to_array(
            string_agg(
                array_to_string(data_issues, e'\x1f'), e'\x1f'
                order by position
            ) filter (where cardinality(data_issues) > 0),
            e'\x1f'
        ) as data_issues,
        min(event_at) filter (where part = 'event') as arrived_at,
        min(event_at) filter (where event = 'ANSWER' and is_caller) as answered_at,
        min(event_at) filter (where application_kind = 'queue') as entered_at,
        min(event_at) filter (where part = 'connection') as connected_at,
        max(event_at) filter (where event in ('HANGUP', 'CHAN_END') and is_caller)
            as hung_up_at,
        max(event_at) filter (where event = 'LINKEDID_END') as over_at
    from parts
    group by call_id, source, business_day
),

-- Which part of a call is the last one, and who ended it there, is all that CEL says of its
-- outcome. Decision 34 has the reasons.
judged as (
    select
        *,
        case
            when connections > 0 then 'answered'
            when is_callback or not is_over then 'incomplete'
            when last_kind = 'voicemail' then 'voicemail'
            when last_kind in ('queue', 'dial') and hangup_party = 'customer' then 'abandoned'
            when last_kind in ('menu', 'bot') and hangup_party = 'customer' and last_seconds < 10
                then 'abandoned'
            when last_kind in ('menu', 'bot') then 'contained'
            when not has_stays and not is_answered and hangup_party = 'customer' then 'abandoned'
            else 'incomplete'
        end as outcome
    from grouped
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
            when connections > 0 or has_queue or last_kind = 'dial' then 'human'
            when last_self_service = 'bot' then 'bot'
            else 'ivr'
        end as channel,
        hangup_party,
        outcome,
        case
            when outcome <> 'abandoned' then null
            when last_kind = 'queue' then 'queue'
            when last_kind = 'dial' then 'ring'
            when last_kind = 'bot' then 'bot'
            else 'ivr'
        end as abandon_stage,
        case when has_stays and not is_in_self_service then ivr_seconds end as ivr_seconds,
        trim_scale(round(extract(epoch from connected_at - entered_at), 3)) as first_wait_seconds,
        talk_seconds,
        connections,
        has_queue,
        is_over,
        data_issues,
        business_day,
        arrived_at,
        answered_at,
        case when is_over then coalesce(hung_up_at, over_at) end as ended_at
    from judged
)

select * from final
