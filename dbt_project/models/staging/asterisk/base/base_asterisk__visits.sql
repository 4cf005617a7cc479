-- One row per visit of a call to a queue, put together from the events of the queue log.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with events as (
    select * from {{ source('staging', 'asterisk_events') }}
),

steps as (
    select
        source,
        call_id,
        queue_id,
        agent_id,
        event,
        unit_id,
        line_number,
        row_hash,
        wait_seconds,
        ring_seconds,
        talk_seconds,
        business_day,
        event_at,
        began_at,
        case
            when event in ('FULL', 'CLOSED', 'JOINEMPTY') or event like 'DIVERT\_%' then 'refuse'
            when event = 'ENTERQUEUE' then 'enter'
            when event = 'CONNECT' then 'answer'
            when event in ('ABANDON', 'EXITEMPTY', 'EXITWITHKEY', 'EXITWITHTIMEOUT', 'LEAVEEMPTY')
                then 'depart'
            when
                event in (
                    'COMPLETEAGENT',
                    'COMPLETECALLER',
                    'TRANSFER',
                    'BLINDTRANSFER',
                    'ATTENDEDTRANSFER'
                )
                then 'finish'
        end as step
    from events
    where call_id is not null and queue_id is not null
),

-- The clock of a queue log ticks in seconds. Within one, the file's order counts; where a file was
-- cut between two of them, the order that a call can have: what began before ends first.
timed as (
    select
        *,
        case
            when
                min(unit_id) over (partition by call_id, source, business_day, event_at)
                = max(unit_id) over (partition by call_id, source, business_day, event_at)
                then line_number
        end as line_in_second,
        case
            when began_at < event_at and step = 'answer' then 1
            when began_at < event_at then 2
            when step = 'refuse' then 3
            when step = 'enter' then 4
            when step = 'answer' then 5
            when event = 'LEAVEEMPTY' then 7
            else 6
        end as turn
    from steps
    where step is not null
),

ordered as (
    select
        *,
        row_number() over in_queue as position,
        lag(step) over in_queue as step_before,
        lag(event) over in_queue as event_before,
        lag(event_at) over in_queue as event_before_at,
        lag(began_at) over in_queue as began_before_at,
        count(*) filter (where step in ('enter', 'refuse')) over whole as entries,
        count(*) filter (where step = 'finish') over so_far as finishes_so_far,
        count(*) filter (where step = 'finish') over later as finishes_later,
        count(*) filter (where step in ('answer', 'depart')) over later as others_later
    from timed
    window
        whole as (partition by call_id, source, business_day, queue_id),
        in_queue as (whole order by event_at, line_in_second, turn, line_number, row_hash),
        so_far as (in_queue rows between unbounded preceding and current row),
        later as (in_queue rows between 1 following and unbounded following)
),

-- A visit starts with its entry or refusal; without one (the line is lost), with what comes next
-- after the visit before has ended. A second end of the same visit is no visit, nor is the only
-- entry where nothing follows that it lacks and what comes before has no entry: the clocks of two
-- servers differ.
marked as (
    select
        *,
        case
            when step = 'refuse' then 1
            when
                step = 'enter'
                and step_before is not null
                and entries = 1
                and others_later = 0
                and least(finishes_so_far, finishes_later) = 0
                then 0
            when step = 'enter'
                then (step_before is distinct from 'enter' or event_before_at <> event_at)::integer
            when step_before is null then 1
            when event = 'LEAVEEMPTY' and event_before = 'EXITEMPTY' then 0
            when step = 'answer' then (step_before <> 'enter')::integer
            when step_before in ('refuse', 'depart', 'finish')
                then (
                    began_at >= event_before_at - interval '2 seconds'
                    and began_at > began_before_at + interval '2 seconds'
                )::integer
            else 0
        end as is_start
    from ordered
),

numbered as (
    select
        *,
        sum(is_start) over (
            partition by call_id, source, business_day, queue_id
            order by position
        ) as visit_of_queue
    from marked
),

grouped as (
    select
        source,
        call_id,
        queue_id,
        business_day,
        (array_agg(step order by position))[1] as first_step,
        (array_agg(event order by position))[1] as first_event,
        (array_agg(began_at order by position))[1] as began_at,
        min(event_at) filter (where step = 'enter') as entry_at,
        (array_agg(line_in_second order by position))[1] as first_line_in_second,
        (array_agg(turn order by position))[1] as first_turn,
        (array_agg(line_number order by position))[1] as first_line_number,
        (array_agg(row_hash order by position))[1] as first_row_hash,
        min(event_at) filter (where step = 'answer') as answered_at,
        (array_agg(agent_id order by position) filter (where step = 'answer'))[1] as answer_agent,
        (array_agg(wait_seconds order by position) filter (where step = 'answer'))[1]
            as answer_wait,
        (array_agg(ring_seconds order by position) filter (where step = 'answer'))[1]
            as answer_ring,
        (array_agg(event order by position) filter (where step in ('refuse', 'depart')))[1]
            as departure,
        (array_agg(event_at order by position) filter (where step in ('refuse', 'depart')))[1]
            as departed_at,
        (array_agg(wait_seconds order by position) filter (where step in ('refuse', 'depart')))[1]
            as departure_wait,
        (array_agg(event order by position) filter (where step = 'finish'))[1] as finish,
        (array_agg(event_at order by position) filter (where step = 'finish'))[1] as finished_at,
        (array_agg(agent_id order by position) filter (where step = 'finish'))[1] as finish_agent,
        (array_agg(wait_seconds order by position) filter (where step = 'finish'))[1]
            as finish_wait,
        (array_agg(talk_seconds order by position) filter (where step = 'finish'))[1]
            as finish_talk
    from numbered
    group by call_id, source, business_day, queue_id, visit_of_queue
),

-- Ruling 4: what has an end and no start began as much earlier as it reports.
placed as (
    select
        *,
        coalesce(entry_at, began_at) as entered_at,
        entry_at is not null and first_step <> 'enter' as is_entry_late
    from grouped
),

-- Where the clock that wrote the entry is ahead, the rest follows it by what it reports: the entry
-- decides the interval, and no time is negative.
shifted as (
    select
        *,
        case
            when is_entry_late
                then
                    entered_at
                    + coalesce(answer_wait, departure_wait, finish_wait, 0) * interval '1 second'
                    - coalesce(
                        answered_at,
                        departed_at,
                        finished_at - coalesce(finish_talk, 0) * interval '1 second'
                    )
            else interval '0'
        end as shift
    from placed
),

told as (
    select
        source,
        call_id,
        queue_id,
        business_day,
        case when is_entry_late then 'enter' else first_step end as first_step,
        first_event,
        is_entry_late,
        entered_at,
        first_line_in_second,
        first_turn,
        first_line_number,
        first_row_hash,
        answered_at + shift as answered_at,
        answer_agent,
        answer_wait,
        answer_ring,
        departure,
        departed_at + shift as departed_at,
        departure_wait,
        finish,
        finished_at + shift as finished_at,
        finish_agent,
        finish_wait,
        finish_talk
    from shifted
),

-- Reported durations count before differences of times (ruling 1). Who finished a conversation had
-- answered it, also where the line of the answer is lost.
measured as (
    select
        *,
        case
            when answered_at is not null or finish is not null then 'answered'
            when departure = 'ABANDON' then 'abandoned'
            when departure = 'EXITWITHTIMEOUT' then 'timeout'
            when departure = 'EXITWITHKEY' then 'exit_key'
            when departure in ('EXITEMPTY', 'LEAVEEMPTY', 'JOINEMPTY') then 'overflow_empty'
            when departure = 'FULL' then 'overflow_full'
            when departure = 'CLOSED' then 'closed'
            when departure like 'DIVERT\_%' then 'overflow_diverted'
            when departure is null then 'incomplete'
        end as outcome,
        case
            when answered_at is not null then answered_at
            when finish is not null
                then finished_at - coalesce(finish_talk, 0) * interval '1 second'
            else departed_at
        end as left_at,
        case
            when answered_at is not null then answer_wait
            when finish is not null then finish_wait
            else departure_wait
        end as reported_wait,
        trim_scale(extract(epoch from finished_at - answered_at)) as measured_talk
    from told
),

compared as (
    select
        *,
        -- A refused call never waited; without an entry only the log itself knows for how long.
        case
            when first_step = 'enter' and finish is not null and answered_at is null then null
            when first_step = 'enter' then trim_scale(extract(epoch from left_at - entered_at))
        end as measured_wait
    from measured
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by
                entered_at,
                first_line_in_second,
                first_turn,
                first_line_number,
                first_row_hash
        ))::integer as visit_number,
        queue_id,
        coalesce(answer_agent, finish_agent) as agent_id,
        outcome,
        case when outcome = 'abandoned' then 'queue' end as abandon_stage,
        case finish
            when 'TRANSFER' then 'blind'
            when 'BLINDTRANSFER' then 'blind'
            when 'ATTENDEDTRANSFER' then 'attended'
        end as transfer_type,
        case
            when finish = 'COMPLETEAGENT' then 'agent'
            when finish = 'COMPLETECALLER' or outcome = 'abandoned' then 'customer'
        end as hangup_party,
        coalesce(reported_wait, measured_wait) as wait_seconds,
        answer_ring as ring_seconds,
        coalesce(finish_talk, measured_talk) as talk_seconds,
        answered_at is not null or finish is not null as is_connected,
        array_remove(
            array[
                case
                    when
                        first_step not in ('enter', 'refuse') and first_event <> 'LEAVEEMPTY'
                        then 'missing:entered_at'
                end,
                case
                    when finish is not null and answered_at is null then 'missing:connected_at'
                end,
                case when is_entry_late then 'disagrees:entered_at' end,
                case
                    when
                        finish is null and (departure is null or answered_at is not null)
                        then 'missing:ended_at'
                end,
                case
                    when abs(reported_wait - measured_wait) > 2 then 'disagrees:wait_seconds'
                end,
                case
                    when abs(finish_talk - measured_talk) > 2 then 'disagrees:talk_seconds'
                end
            ],
            null
        ) as data_issues,
        business_day,
        entered_at,
        left_at,
        case when answered_at is not null or finish is not null then left_at end as connected_at,
        finished_at as ended_at
    from compared
)

select * from final
