-- One row per stretch in which an agent was logged in by one way (telephone, call-back, member of
-- a queue, or by implication), as far as the claimed days need it. Stretches overlap.
with sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

events as (
    select
        events.*,
        sources.newest_event_at,
        sources.time_zone
    from {{ source('staging', 'asterisk_events') }} as events
    inner join sources on events.source = sources.source
    where events.business_day in ({{ claimed_days(reach=1) }})
),

work as (
    select * from {{ ref('base_asterisk__agent_work') }}
),

steps as (
    select
        source,
        agent_id,
        case when event in ('ADDMEMBER', 'REMOVEMEMBER') then queue_id end as queue_id,
        case
            when event in ('AGENTLOGIN', 'AGENTLOGOFF') then 'device'
            when event in ('AGENTCALLBACKLOGIN', 'AGENTCALLBACKLOGOFF') then 'callback'
            else 'member'
        end as way,
        event in ('AGENTLOGIN', 'AGENTCALLBACKLOGIN', 'ADDMEMBER') as is_login,
        nullif(login_seconds, 0) as login_seconds,
        unit_id,
        line_number,
        row_hash,
        newest_event_at,
        time_zone,
        business_day,
        event_at
    from events
    where
        agent_id is not null
        and event in (
            'AGENTLOGIN',
            'AGENTLOGOFF',
            'AGENTCALLBACKLOGIN',
            'AGENTCALLBACKLOGOFF',
            'ADDMEMBER',
            'REMOVEMEMBER'
        )
),

-- Within a second the file's order counts; where a file was cut there, off comes before on.
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

ordered as (
    select
        *,
        lead(is_login) over in_way as next_is_login,
        lead(login_seconds) over in_way as next_login_seconds,
        lead(business_day) over in_way as next_day,
        lead(event_at) over in_way as next_at,
        -- Who is logged off left the queues too.
        min(event_at) filter (where way <> 'member' and not is_login) over (
            partition by source, agent_id
            order by event_at desc, line_in_second desc, is_login desc, row_hash desc
            rows between unbounded preceding and 1 preceding
        ) as logged_off_at
    from timed
    window
        in_way as (
            partition by source, agent_id, way, queue_id
            order by event_at, line_in_second, is_login, row_hash
        )
),

restarts as (
    select
        source,
        event_at as restarted_at
    from events
    where event = 'QUEUESTART'
),

-- A login ends with the logoff of its own or the following day, or with the next login by the same
-- way; else it is open. A restart of the exchange ends logins by telephone, which are calls;
-- members and call-back agents persist.
logins as (
    select
        ordered.*,
        ordered.next_at is not null
        and not ordered.next_is_login
        and ordered.next_day <= ordered.business_day + 1 as is_closed,
        ordered.event_at + interval '16 hours' as capped_at,
        case when ordered.way = 'member' then ordered.logged_off_at end as left_at,
        case when ordered.next_is_login then ordered.next_at end as again_at,
        case
            when ordered.way = 'device'
                then (
                    select min(restarts.restarted_at) from restarts
                    where
                        restarts.source = ordered.source
                        and restarts.restarted_at > ordered.event_at
                )
        end as restarted_at
    from ordered
    where ordered.is_login
),

recorded as (
    select
        source,
        agent_id,
        queue_id,
        case
            when is_closed then false
            else
                coalesce(
                    least(left_at, again_at, restarted_at) > least(newest_event_at, capped_at),
                    num_nonnulls(left_at, again_at, restarted_at) = 0
                )
        end as is_provisional,
        business_day,
        event_at as started_at,
        case
            when is_closed then next_at
            else least(left_at, again_at, restarted_at, newest_event_at, capped_at)
        end as ended_at
    from logins
    -- A logoff that says how long the session was is a session by itself: see below.
    where not (is_closed and next_login_seconds is not null)
    union all
    select
        source,
        agent_id,
        queue_id,
        false as is_provisional,
        business_day,
        -- Nothing reaches further back than the day before.
        greatest(
            event_at - login_seconds * interval '1 second',
            (business_day - 1)::timestamp at time zone time_zone
        ) as started_at,
        event_at as ended_at
    from ordered
    where not is_login and login_seconds is not null
),

logged_in as (
    select
        source,
        agent_id,
        range_agg(tstzrange(started_at, ended_at, '[]')) as during
    from recorded
    where started_at <= ended_at
    group by source, agent_id
),

-- Signs of agents of whom no login is recorded: a call that rings, a conversation, a pause. What is
-- only planned (after-call work) or only ends something is none.
signs as (
    select
        work.source,
        work.agent_id,
        work.started_at as sign_at
    from work
    where work.state in ('ring', 'talk')
    union
    select
        source,
        agent_id,
        event_at as sign_at
    from events
    where agent_id is not null and event in ('PAUSE', 'PAUSEALL')
),

unexplained as (
    select
        signs.source,
        signs.agent_id,
        signs.sign_at,
        (signs.sign_at at time zone sources.time_zone)::date as business_day
    from signs
    inner join sources on signs.source = sources.source
    left join logged_in
        on signs.source = logged_in.source and signs.agent_id = logged_in.agent_id
    where coalesce(not logged_in.during @> signs.sign_at, true)
),

-- Any logoff or leaving of a queue ends what was implied before.
bounded as (
    select
        source,
        agent_id,
        business_day,
        sign_at,
        true as is_sign
    from unexplained
    union all
    select
        source,
        agent_id,
        business_day,
        event_at as sign_at,
        false as is_sign
    from steps
    where not is_login
),

followed as (
    select
        *,
        count(*) filter (where not is_sign) over (
            partition by source, agent_id, business_day
            order by sign_at, is_sign
            rows unbounded preceding
        ) as logoffs_before,
        min(sign_at) filter (where not is_sign) over (
            partition by source, agent_id, business_day
            order by sign_at desc, is_sign desc
            rows unbounded preceding
        ) as logged_off_at
    from bounded
),

first_signs as (
    select
        *,
        min(sign_at) over (
            partition by source, agent_id, business_day, logoffs_before
        ) as first_sign_at
    from followed
    where is_sign
),

-- The first sign implies a login of at most 16 hours, the first one after these another.
anchors as (
    select
        source,
        agent_id,
        business_day,
        logged_off_at,
        min(sign_at) as sign_at
    from first_signs
    group by
        source,
        agent_id,
        business_day,
        logged_off_at,
        logoffs_before,
        sign_at >= first_sign_at + interval '16 hours'
),

-- Nobody vouches for the night: what is only implied ends at midnight.
implied as (
    select
        anchors.source,
        anchors.agent_id,
        null::text as queue_id,
        coalesce(
            anchors.logged_off_at
            > least(sources.newest_event_at, anchors.sign_at + interval '16 hours'),
            anchors.logged_off_at is null
        ) as is_provisional,
        anchors.business_day,
        anchors.sign_at as started_at,
        least(
            anchors.logged_off_at,
            sources.newest_event_at,
            anchors.sign_at + interval '16 hours',
            (anchors.business_day + 1)::timestamp at time zone sources.time_zone
        ) as ended_at
    from anchors
    inner join sources on anchors.source = sources.source
),

sessions as (
    select * from recorded
    union all
    select * from implied
),

final as (
    select
        source,
        agent_id,
        queue_id,
        is_provisional,
        business_day,
        started_at,
        ended_at
    from sessions
    where ended_at > started_at
)

select * from final
