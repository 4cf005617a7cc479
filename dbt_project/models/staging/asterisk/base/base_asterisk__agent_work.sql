-- One row per stretch in which an agent was rung, talked or did after-call work, as far as the
-- claimed days need it. Stretches of one kind may overlap, but for after-call work.
-- A call that goes on for more than seven hours after the midnight of its day says no more of its
-- agents: what it would leave open (16 hours) could reach a day that does not read it.
with sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

visits as (
    select
        visits.*,
        sources.time_zone,
        lead(visits.entered_at) over (
            partition by visits.call_id, visits.source, visits.business_day
            order by visits.visit_number
        ) as next_entered_at
    from {{ ref('base_asterisk__visits') }} as visits
    inner join sources on visits.source = sources.source
    where visits.business_day in ({{ claimed_days(reach=1) }})
),

offers as (
    select offers.*
    from {{ ref('stg_asterisk__agent_offers') }} as offers
    inner join sources on offers.source = sources.source
    where
        offers.business_day in ({{ claimed_days(reach=1) }})
        and offers.ended_at
        < (offers.business_day + 1)::timestamp at time zone sources.time_zone + interval '7 hours'
),

events as (
    select events.*
    from {{ source('staging', 'asterisk_events') }} as events
    inner join sources on events.source = sources.source
    where
        events.business_day in ({{ claimed_days(reach=1) }})
        and events.event_at
        < (events.business_day + 1)::timestamp at time zone sources.time_zone + interval '7 hours'
),

rings as (
    select
        source,
        agent_id,
        call_id,
        queue_id,
        business_day,
        offered_at as started_at,
        ended_at
    from offers
    where agent_id is not null
),

conversations as (
    select
        source,
        agent_id,
        call_id,
        queue_id,
        visit_number,
        talk_seconds,
        business_day,
        case when next_entered_at > connected_at then next_entered_at end as next_entered_at,
        connected_at as started_at
    from visits
    where
        is_connected
        and connected_at
        < (business_day + 1)::timestamp at time zone time_zone + interval '7 hours'
),

-- A conversation whose end was not written is over when the agent is rung again, logs on or off,
-- joins or leaves a queue or starts to wrap up, and when the exchange starts anew. Pausing says
-- nothing: agents ask for their break while they talk.
signs as (
    select
        source,
        agent_id,
        offered_at as sign_at
    from offers
    union
    select
        source,
        agent_id,
        event_at as sign_at
    from events
    where
        event in (
            'AGENTLOGIN',
            'AGENTLOGOFF',
            'AGENTCALLBACKLOGIN',
            'AGENTCALLBACKLOGOFF',
            'ADDMEMBER',
            'REMOVEMEMBER',
            'WRAPUPSTART'
        )
),

restarts as (
    select
        source,
        event_at as sign_at
    from events
    where event = 'QUEUESTART'
),

unfinished as (
    select
        conversations.source,
        conversations.agent_id,
        conversations.business_day,
        conversations.call_id,
        conversations.visit_number,
        least(min(signs.sign_at), min(restarts.sign_at)) as sign_at
    from conversations
    left join signs
        on
            conversations.source = signs.source
            and conversations.agent_id = signs.agent_id
            and conversations.started_at < signs.sign_at
            and conversations.started_at + interval '16 hours' >= signs.sign_at
    left join restarts
        on
            conversations.source = restarts.source
            and conversations.started_at < restarts.sign_at
    where conversations.talk_seconds is null
    group by
        conversations.source,
        conversations.agent_id,
        conversations.business_day,
        conversations.call_id,
        conversations.visit_number
),

talks as (
    select
        conversations.source,
        conversations.agent_id,
        conversations.call_id,
        conversations.queue_id,
        conversations.visit_number,
        conversations.business_day,
        conversations.started_at,
        coalesce(
            conversations.started_at + conversations.talk_seconds * interval '1 second',
            -- Nulls do not count.
            least(
                unfinished.sign_at,
                conversations.next_entered_at,
                sources.newest_event_at,
                conversations.started_at + interval '16 hours'
            )
        ) as ended_at,
        conversations.talk_seconds is null and coalesce(
            least(unfinished.sign_at, conversations.next_entered_at)
            > least(sources.newest_event_at, conversations.started_at + interval '16 hours'),
            unfinished.sign_at is null and conversations.next_entered_at is null
        ) as is_provisional
    from conversations
    inner join sources on conversations.source = sources.source
    left join unfinished
        on
            conversations.source = unfinished.source
            and conversations.agent_id = unfinished.agent_id
            and conversations.business_day = unfinished.business_day
            and conversations.call_id = unfinished.call_id
            and conversations.visit_number = unfinished.visit_number
    where conversations.agent_id is not null
),

-- What comes next of an agent's conversations, the rings before them, wrap-ups and logoffs.
turns as (
    select
        source,
        agent_id,
        call_id,
        queue_id,
        visit_number,
        null::numeric as wrapup_seconds,
        null::uuid as row_hash,
        business_day,
        'talk' as turn,
        started_at as turn_at
    from talks
    union all
    select
        source,
        agent_id,
        call_id,
        queue_id,
        null as visit_number,
        null as wrapup_seconds,
        null as row_hash,
        business_day,
        'ring' as turn,
        offered_at as turn_at
    from offers
    where agent_id is not null and outcome = 'answered'
    union all
    select
        source,
        agent_id,
        call_id,
        queue_id,
        null as visit_number,
        wrapup_seconds,
        row_hash,
        business_day,
        case when event = 'WRAPUPSTART' then 'wrapup' else 'logoff' end as turn,
        event_at as turn_at
    from events
    where
        agent_id is not null
        and event in ('WRAPUPSTART', 'AGENTLOGOFF', 'AGENTCALLBACKLOGOFF')
),

ordered as (
    select
        *,
        -- Latest conversation that began by then, by its number.
        count(*) filter (where turn = 'talk') over (
            partition by source, agent_id
            order by turn_at, turn = 'wrapup', call_id, visit_number, row_hash
            rows unbounded preceding
        ) as talks_before,
        -- First logoff or answered call after it: ringing is no after-call work any more.
        min(turn_at) filter (where turn <> 'wrapup') over (
            partition by source, agent_id
            order by turn_at desc, turn = 'wrapup' desc, call_id asc, visit_number asc, row_hash asc
            rows unbounded preceding
        ) as over_at
    from turns
),

-- The latest conversation of the agent, unless the line names another call of that agent's.
wrapups as (
    select
        wrapups.source,
        wrapups.agent_id,
        coalesce(wrapups.call_id, latest.call_id) as call_id,
        coalesce(wrapups.queue_id, latest.queue_id) as queue_id,
        case
            when wrapups.call_id is null or wrapups.call_id = latest.call_id
                then latest.visit_number
            else (
                select max(same.visit_number) from talks as same
                where
                    same.source = wrapups.source
                    and same.call_id = wrapups.call_id
                    and same.agent_id = wrapups.agent_id
                    and same.started_at <= wrapups.turn_at
            )
        end as visit_number,
        wrapups.row_hash,
        wrapups.business_day,
        case
            when wrapups.call_id is null or wrapups.call_id = latest.call_id
                then latest.business_day
            else wrapups.business_day
        end as call_day,
        wrapups.turn_at as started_at,
        least(
            wrapups.turn_at + wrapups.wrapup_seconds * interval '1 second',
            wrapups.turn_at + interval '8 hours',
            wrapups.over_at
        ) as ended_at
    from ordered as wrapups
    left join ordered as latest
        on
            wrapups.source = latest.source
            and wrapups.agent_id = latest.agent_id
            and wrapups.talks_before = latest.talks_before
            and latest.turn = 'talk'
            and wrapups.turn_at < latest.turn_at + interval '8 hours'
    where wrapups.turn = 'wrapup' and wrapups.wrapup_seconds > 0
),

-- Where a second wrap-up begins within a first, the first counts to its end.
told_apart as (
    select
        *,
        greatest(
            started_at,
            max(ended_at) over (
                partition by source, agent_id
                order by started_at, row_hash
                rows between unbounded preceding and 1 preceding
            )
        ) as begun_at
    from wrapups
),

stretches as (
    select
        source,
        agent_id,
        call_id,
        queue_id,
        null::integer as visit_number,
        'ring' as state,
        false as is_provisional,
        business_day,
        business_day as call_day,
        started_at,
        ended_at
    from rings
    union all
    select
        source,
        agent_id,
        call_id,
        queue_id,
        visit_number,
        'talk' as state,
        is_provisional,
        business_day,
        business_day as call_day,
        started_at,
        ended_at
    from talks
    where ended_at > started_at
    union all
    select
        source,
        agent_id,
        call_id,
        queue_id,
        visit_number,
        'acw' as state,
        false as is_provisional,
        business_day,
        call_day,
        begun_at as started_at,
        ended_at
    from told_apart
    where ended_at > begun_at
),

final as (
    select
        source,
        agent_id,
        call_id,
        queue_id,
        visit_number,
        state,
        is_provisional,
        business_day,
        call_day,
        started_at,
        ended_at
    from stretches
)

select * from final
