-- One row per call of an exchange, of whatever its queue log, call detail records and channel
-- events say of it.
-- The three are stacked, not joined: filters on days then reach the partitions of all.
with queue_log as (
    select * from {{ ref('base_asterisk__queue_log_calls') }}
),

cel as (
    select * from {{ ref('base_asterisk__cel_calls') }}
),

cdr as (
    select * from {{ ref('base_asterisk__cdr_calls') }}
),

parts as (
    select
        source,
        call_id,
        1 as rank,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        channel,
        hangup_party,
        outcome,
        abandon_stage,
        null as ivr_application,
        null as ivr_data,
        null as ivr_kind,
        null::numeric as ivr_seconds,
        first_wait_seconds,
        talk_seconds,
        connections,
        outcome is not null as has_queue,
        true as is_over,
        data_issues,
        business_day,
        first_event_at,
        arrived_at,
        null::timestamptz as answered_at,
        entered_at,
        ended_at
    from queue_log
    union all
    select
        source,
        call_id,
        2 as rank,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        channel,
        hangup_party,
        outcome,
        abandon_stage,
        null as ivr_application,
        null as ivr_data,
        null as ivr_kind,
        ivr_seconds,
        first_wait_seconds,
        talk_seconds,
        connections,
        has_queue,
        is_over,
        data_issues,
        business_day,
        arrived_at as first_event_at,
        arrived_at,
        answered_at,
        null as entered_at,
        ended_at
    from cel
    union all
    select
        source,
        call_id,
        3 as rank,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        channel,
        null as hangup_party,
        outcome,
        abandon_stage,
        last_application as ivr_application,
        last_data as ivr_data,
        last_kind as ivr_kind,
        ivr_seconds,
        null as first_wait_seconds,
        null as talk_seconds,
        is_connected::integer as connections,
        has_queue,
        true as is_over,
        data_issues,
        business_day,
        arrived_at as first_event_at,
        arrived_at,
        answered_at,
        null as entered_at,
        ended_at
    from cdr
),

-- A kind of record that says nothing at all of a day is not there; then nothing of it is missing.
present as (
    select
        *,
        bool_or(rank = 1) over of_the_day as day_has_queue_log,
        bool_or(rank = 2) over of_the_day as day_has_cel,
        bool_or(rank = 3) over of_the_day as day_has_cdr
    from parts
    window of_the_day as (partition by source, business_day)
),

grouped as (
    select
        source,
        business_day,
        call_id,
        bool_or(rank = 1) as has_queue_log,
        bool_or(rank = 2) as has_cel,
        bool_or(rank = 3) as has_cdr,
        bool_or(day_has_queue_log) as day_has_queue_log,
        bool_or(day_has_cel) as day_has_cel,
        bool_or(day_has_cdr) as day_has_cdr,
        coalesce(bool_or(rank = 1 and has_queue), false) as has_visits,
        coalesce(bool_or(rank > 1 and has_queue), false) as has_queue,
        coalesce(bool_or(rank = 2 and not is_over), false) as is_open,
        coalesce(bool_or(channel = 'callback'), false) as is_callback,
        coalesce(bool_or(outcome = 'answered'), false) as is_answered,
        coalesce(bool_or(outcome = 'answered' and rank > 1), false) as is_answered_elsewhere,
        coalesce(bool_or(outcome = 'voicemail'), false) as has_voicemail,
        (array_agg(caller_token order by rank) filter (where caller_token is not null))[1]
            as caller_token,
        (array_agg(caller_region_code order by rank) filter (
            where caller_region_code is not null
        ))[1] as caller_region_code,
        (array_agg(caller_carrier order by rank) filter (where caller_carrier is not null))[1]
            as caller_carrier,
        count(distinct caller_token) > 1 as has_other_caller,
        (array_agg(hotline_id order by rank) filter (where hotline_id is not null))[1]
            as hotline_id,
        (array_agg(channel order by rank) filter (where channel is not null))[1] as channel,
        max(hangup_party) filter (where rank = 1) as queue_log_hangup_party,
        max(hangup_party) filter (where rank = 2) as cel_hangup_party,
        max(outcome) filter (where rank = 1) as queue_log_outcome,
        (array_agg(outcome order by rank) filter (where outcome is not null))[1] as outcome,
        (array_agg(abandon_stage order by rank) filter (where outcome is not null))[1]
            as abandon_stage,
        max(ivr_application) as ivr_application,
        max(ivr_data) as ivr_data,
        max(ivr_kind) as ivr_kind,
        max(ivr_seconds) filter (where rank = 2) as cel_ivr_seconds,
        max(ivr_seconds) filter (where rank = 3) as cdr_ivr_seconds,
        max(first_wait_seconds) filter (where rank = 1) as queue_log_wait_seconds,
        max(first_wait_seconds) filter (where rank = 2) as cel_wait_seconds,
        max(talk_seconds) filter (where rank = 1) as queue_log_talk_seconds,
        max(talk_seconds) filter (where rank = 2) as cel_talk_seconds,
        max(connections) filter (where rank = 1) as queue_log_connections,
        max(connections) filter (where rank = 2) as cel_connections,
        string_to_array(
            string_agg(array_to_string(data_issues, e'\x1f'), e'\x1f' order by rank) filter (
                where cardinality(data_issues) > 0
            ),
            e'\x1f'
        ) as data_issues,
        (array_agg(arrived_at order by first_event_at, arrived_at))[1] as arrived_at,
        min(arrived_at) filter (where rank = 1) as queue_log_arrived_at,
        min(arrived_at) filter (where rank = 2) as cel_arrived_at,
        min(arrived_at) filter (where rank = 3) as cdr_arrived_at,
        min(answered_at) as answered_at,
        min(entered_at) as entered_at,
        max(ended_at) filter (where rank = 1) as queue_log_ended_at,
        max(ended_at) filter (where rank = 2) as cel_ended_at,
        max(ended_at) filter (where rank = 3) as cdr_ended_at,
        max(ended_at) as ended_at
    from present
    group by call_id, source, business_day
),

judged as (
    select
        *,
        case
            when cel_ivr_seconds is not null then cel_ivr_seconds
            -- From the menu's answer, or the arrival, to the first queue.
            when has_visits and (has_cdr or has_cel)
                then greatest(
                    trim_scale(round(extract(
                        epoch from entered_at
                        - case when answered_at <= entered_at then answered_at else arrived_at end
                    ), 3)),
                    0
                )
            else cdr_ivr_seconds
        end as ivr_seconds,
        case
            when is_answered then 'answered'
            -- Who left a message after the queue ended there.
            when has_voicemail then 'voicemail'
            else coalesce(outcome, 'incomplete')
        end as final_outcome,
        array_remove(
            array[
                case when day_has_cdr and not has_cdr then 'missing:cdr' end,
                case when day_has_cel and not has_cel then 'missing:cel' end,
                case
                    when day_has_queue_log and has_queue and not has_visits
                        then 'missing:queue_log'
                end,
                case when is_open and not has_cdr then 'missing:ended_at' end,
                case
                    when
                        abs(extract(epoch from cdr_arrived_at - cel_arrived_at)) > 2
                        or extract(
                            epoch from least(cdr_arrived_at, cel_arrived_at) - queue_log_arrived_at
                        ) > 2
                        then 'disagrees:arrived_at'
                end,
                case
                    when
                        abs(extract(epoch from cdr_ended_at - cel_ended_at)) > 2
                        or extract(
                            epoch from queue_log_ended_at - greatest(cdr_ended_at, cel_ended_at)
                        ) > 2
                        then 'disagrees:ended_at'
                end,
                case
                    when abs(queue_log_wait_seconds - cel_wait_seconds) > 2
                        then 'disagrees:wait_seconds'
                end,
                case
                    when
                        queue_log_connections = cel_connections
                        and abs(queue_log_talk_seconds - cel_talk_seconds) > 2
                        then 'disagrees:talk_seconds'
                end,
                case
                    when queue_log_connections > cel_connections and not is_open
                        then 'disagrees:agent_connections'
                end,
                case
                    when queue_log_outcome = 'abandoned' and is_answered_elsewhere
                        then 'disagrees:outcome'
                end,
                case
                    when queue_log_hangup_party <> cel_hangup_party
                        then 'disagrees:hangup_party'
                end,
                case when has_other_caller then 'disagrees:caller' end
            ],
            null
        ) as found_issues
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
            when final_outcome = 'voicemail' then 'voicemail'
            when is_answered then 'human'
            else channel
        end as channel,
        coalesce(cel_hangup_party, queue_log_hangup_party) as hangup_party,
        final_outcome as outcome,
        case when final_outcome = outcome or has_visits and not has_voicemail then abandon_stage end
            as abandon_stage,
        ivr_application,
        ivr_data,
        ivr_kind,
        ivr_seconds,
        case
            when cardinality(found_issues) = 0 then data_issues
            else coalesce(data_issues, '{}') || found_issues
        end as data_issues,
        business_day,
        arrived_at,
        case when answered_at <= arrived_at + ivr_seconds * interval '1 second' then answered_at end
            as answered_at,
        ended_at
    from judged
)

select * from final
