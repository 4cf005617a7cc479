-- One row per call of a queue log.
-- Events and visits are stacked, not joined: filters on days then reach the partitions of both.
with events as (
    select * from {{ source('staging', 'asterisk_events') }}
),

visits as (
    select * from {{ ref('base_asterisk__visits') }}
),

-- Lines of the dialplan's own making, and the agent's work after the call, do not make a call.
parts as (
    select
        source,
        call_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        null::integer as visit_number,
        null::text as outcome,
        null::text as abandon_stage,
        null::text as hangup_party,
        null::boolean as is_connected,
        null::numeric as wait_seconds,
        null::numeric as talk_seconds,
        null::timestamptz as entered_at,
        data_issues,
        event in (
            'DID',
            'ENTERQUEUE',
            'CONNECT',
            'RINGNOANSWER',
            'RINGCANCELED',
            'AGENTDUMP',
            'ABANDON',
            'EXITEMPTY',
            'EXITWITHKEY',
            'EXITWITHTIMEOUT',
            'LEAVEEMPTY',
            'JOINEMPTY',
            'FULL',
            'CLOSED',
            'COMPLETEAGENT',
            'COMPLETECALLER',
            'TRANSFER',
            'BLINDTRANSFER',
            'ATTENDEDTRANSFER'
        ) or event like 'DIVERT\_%' as is_of_call,
        line_number,
        row_hash,
        business_day,
        event_at,
        began_at
    from events
    where call_id is not null
    union all
    select
        source,
        call_id,
        null as caller_token,
        null as caller_region_code,
        null as caller_carrier,
        null as hotline_id,
        visit_number,
        outcome,
        abandon_stage,
        hangup_party,
        is_connected,
        wait_seconds,
        talk_seconds,
        entered_at,
        data_issues,
        true as is_of_call,
        null as line_number,
        null as row_hash,
        business_day,
        null as event_at,
        null as began_at
    from visits
),

calls as (
    select
        source,
        call_id,
        (array_agg(caller_token order by event_at, line_number, row_hash) filter (
            where caller_token is not null
        ))[1] as caller_token,
        (array_agg(caller_region_code order by event_at, line_number, row_hash) filter (
            where caller_region_code is not null
        ))[1] as caller_region_code,
        (array_agg(caller_carrier order by event_at, line_number, row_hash) filter (
            where caller_carrier is not null
        ))[1] as caller_carrier,
        (array_agg(hotline_id order by event_at, line_number, row_hash) filter (
            where hotline_id is not null
        ))[1] as hotline_id,
        -- Who waited for an agent was on the way to one; of other calls the log says nothing.
        case when count(visit_number) > 0 then 'human' end as channel,
        (array_agg(hangup_party order by visit_number desc) filter (
            where visit_number is not null
        ))[1] as hangup_party,
        case
            when bool_or(outcome = 'answered') then 'answered'
            else (array_agg(outcome order by visit_number desc) filter (
                where visit_number is not null
            ))[1]
        end as outcome,
        (array_agg(abandon_stage order by visit_number desc) filter (
            where visit_number is not null
        ))[1] as abandon_stage,
        (array_agg(wait_seconds) filter (
            where visit_number = 1 and outcome = 'answered'
        ))[1] as first_wait_seconds,
        sum(talk_seconds) filter (where is_connected) as talk_seconds,
        (count(*) filter (where is_connected))::integer as connections,
        string_to_array(
            string_agg(
                array_to_string(data_issues, e'\x1f'), e'\x1f'
                order by event_at, visit_number, line_number, row_hash
            ) filter (where cardinality(data_issues) > 0),
            e'\x1f'
        ) as data_issues,
        business_day,
        min(event_at) as first_event_at,
        (array_agg(began_at order by event_at, began_at))[1] as arrived_at,
        min(entered_at) as entered_at,
        max(event_at) filter (where is_of_call) as ended_at
    from parts
    group by call_id, source, business_day
    having bool_or(is_of_call)
),

final as (
    select
        source,
        call_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        channel,
        hangup_party,
        outcome,
        abandon_stage,
        first_wait_seconds,
        talk_seconds,
        connections,
        data_issues,
        business_day,
        first_event_at,
        arrived_at,
        entered_at,
        ended_at
    from calls
)

select * from final
