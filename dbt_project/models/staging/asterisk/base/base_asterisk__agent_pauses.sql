-- One row per stretch in which an agent was paused in a queue, as far as the claimed days need it;
-- without a queue: by the events that hold for all queues alone. Stretches overlap.
with sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

events as (
    select
        events.*,
        sources.newest_event_at
    from {{ source('staging', 'asterisk_events') }} as events
    inner join sources on events.source = sources.source
    where events.business_day in ({{ claimed_days(reach=1) }})
),

work as (
    select * from {{ ref('base_asterisk__agent_work') }}
),

-- Who logs on or off is no longer paused, unless a queue is joined so.
steps as (
    select
        source,
        agent_id,
        case
            when event in ('PAUSE', 'UNPAUSE', 'ADDMEMBER', 'REMOVEMEMBER') then queue_id
        end as queue_id,
        queue_id is not null
        and event in ('PAUSE', 'UNPAUSE', 'ADDMEMBER', 'REMOVEMEMBER') as is_of_queue,
        case
            when event in ('PAUSE', 'PAUSEALL') or (event = 'ADDMEMBER' and data1 = 'PAUSED')
                then 'pause'
            when event in ('UNPAUSE', 'UNPAUSEALL') then 'resume'
            else 'change'
        end as step,
        case when event in ('PAUSE', 'PAUSEALL') then data1 end as reason,
        unit_id,
        line_number,
        row_hash,
        newest_event_at,
        business_day,
        event_at
    from events
    where
        agent_id is not null
        and event in (
            'PAUSE',
            'PAUSEALL',
            'UNPAUSE',
            'UNPAUSEALL',
            'ADDMEMBER',
            'REMOVEMEMBER',
            'AGENTLOGIN',
            'AGENTLOGOFF',
            'AGENTCALLBACKLOGIN',
            'AGENTCALLBACKLOGOFF'
        )
    union all
    -- A paused member is not rung. Rings of a call of the day before are left out: not every day
    -- that the pause could reach knows them.
    select
        work.source,
        work.agent_id,
        work.queue_id,
        true as is_of_queue,
        'ring' as step,
        null as reason,
        null as unit_id,
        null as line_number,
        null as row_hash,
        null as newest_event_at,
        work.business_day,
        work.started_at as event_at
    from work
    inner join sources on work.source = sources.source
    where
        work.state = 'ring'
        and (work.started_at at time zone sources.time_zone)::date = work.business_day
),

-- Within a second the file's order counts; where a file was cut there, a pause that ends comes
-- before one that begins.
timed as (
    select
        *,
        case
            when
                min(unit_id) over (partition by source, agent_id, event_at)
                = max(unit_id) over (partition by source, agent_id, event_at)
                then line_number
        end as line_in_second
    from steps
),

queues as (
    select distinct
        source,
        agent_id,
        queue_id
    from steps
    where queue_id is not null
    union all
    select distinct
        source,
        agent_id,
        null as queue_id
    from steps
),

-- A line of its own for each queue: what holds for all holds for each. By rings in any queue the
-- one without a queue ends as well.
lines as (
    select
        queues.queue_id as line,
        timed.*
    from queues
    inner join timed
        on
            queues.source = timed.source
            and queues.agent_id = timed.agent_id
            and (
                not timed.is_of_queue
                or queues.queue_id = timed.queue_id
                or (queues.queue_id is null and timed.step = 'ring')
            )
),

foreseen as (
    select
        *,
        min(event_at) filter (where step in ('pause', 'change')) over later as next_other_at,
        min(event_at) filter (where step = 'resume') over later as next_resume_at
    from lines
    window
        later as (
            partition by source, agent_id, line
            order by
                event_at desc,
                step <> 'ring' desc,
                line_in_second desc,
                step = 'pause' desc,
                row_hash desc
            rows between unbounded preceding and 1 preceding
        )
),

-- A ring ends a pause only where its end was not written: none follows, or first something else.
ends as (
    select
        *,
        case
            when step in ('resume', 'change') then true
            when step = 'ring'
                then
                    next_resume_at is null
                    or next_resume_at > event_at + interval '16 hours'
                    or coalesce(next_other_at < next_resume_at, false)
            else false
        end as is_end
    from foreseen
),

ended as (
    select
        *,
        min(event_at) filter (where is_end) over (
            partition by source, agent_id, line
            order by
                event_at desc,
                step <> 'ring' desc,
                line_in_second desc,
                step = 'pause' desc,
                row_hash desc
            rows between unbounded preceding and 1 preceding
        ) as end_at
    from ends
),

pauses as (
    select
        ended.source,
        ended.agent_id,
        ended.line as queue_id,
        ended.reason,
        ended.business_day,
        ended.event_at as started_at,
        ended.newest_event_at,
        ended.event_at + interval '16 hours' as capped_at,
        case
            when
                (ended.end_at at time zone sources.time_zone)::date <= ended.business_day + 1
                then ended.end_at
        end as end_at
    from ended
    inner join sources on ended.source = sources.source
    where ended.step = 'pause'
),

final as (
    select
        source,
        agent_id,
        queue_id,
        reason,
        end_at is null as is_provisional,
        business_day,
        started_at,
        coalesce(end_at, least(newest_event_at, capped_at)) as ended_at
    from pauses
)

select * from final
where ended_at > started_at
