-- One row per interval of an agent of an Asterisk feed in one state, cut at local midnights.
-- Only of the claimed days: a login of the day before decides what today is. Talking goes before
-- ringing, ringing before after-call work, that before a pause; the rest of the login is ready.
with sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

sessions as (
    select * from {{ ref('base_asterisk__agent_sessions') }}
),

pauses as (
    select * from {{ ref('base_asterisk__agent_pauses') }}
),

work as (
    select * from {{ ref('base_asterisk__agent_work') }}
),

logged_in as (
    select
        source,
        agent_id,
        range_agg(tstzrange(started_at, ended_at, '[]')) as during
    from sessions
    group by source, agent_id
),

-- A conversation that outlasts the logoff is work all the same; so is its after-call work.
stretches as (
    select
        source,
        agent_id,
        queue_id,
        'session' as kind,
        null::text as reason,
        null::text as call_id,
        true as is_login,
        is_provisional,
        business_day as own_day,
        tstzrange(started_at, ended_at) as during
    from sessions
    union all
    select distinct
        source,
        agent_id,
        queue_id,
        'pause' as kind,
        reason,
        null as call_id,
        false as is_login,
        is_provisional,
        business_day as own_day,
        tstzrange(started_at, ended_at) as during
    from pauses
    union all
    select
        work.source,
        work.agent_id,
        work.queue_id,
        work.state as kind,
        null as reason,
        work.call_id,
        work.state in ('ring', 'talk')
        or coalesce(not logged_in.during @> work.started_at, true) as is_login,
        work.is_provisional,
        work.business_day as own_day,
        tstzrange(work.started_at, work.ended_at) as during
    from work
    left join logged_in
        on work.source = logged_in.source and work.agent_id = logged_in.agent_id
),

-- Rows shape their own day and the ones around it, and no other.
cut as (
    select
        stretches.source,
        stretches.agent_id,
        stretches.queue_id,
        stretches.kind,
        stretches.reason,
        stretches.call_id,
        -- Whether after-call work is outside of every login is known on the day it begins.
        stretches.is_login
        and (
            stretches.kind <> 'acw'
            or (lower(stretches.during) at time zone sources.time_zone)::date
            = stretches.own_day + around.shift
        ) as is_login,
        stretches.is_provisional,
        stretches.own_day + around.shift as business_day,
        stretches.during * tstzrange(
            (stretches.own_day + around.shift)::timestamp at time zone sources.time_zone,
            (stretches.own_day + around.shift + 1)::timestamp at time zone sources.time_zone
        ) as during
    from stretches
    inner join sources on stretches.source = sources.source
    cross join (values (-1), (0), (1)) as around (shift)
),

claimed as (
    select * from cut
    where business_day in ({{ claimed_days() }}) and not isempty(during)
),

-- A member of several queues is paused when paused in each: calls of the others still come.
queues as (
    select
        source,
        agent_id,
        business_day,
        range_agg(during) filter (where kind = 'session')
        - coalesce(range_agg(during) filter (where kind = 'pause'), '{}') as reachable
    from claimed
    where kind in ('session', 'pause') and queue_id is not null
    group by source, agent_id, business_day, queue_id
),

reachable as (
    select
        source,
        agent_id,
        business_day,
        range_agg(reachable) as during
    from queues
    group by source, agent_id, business_day
),

-- Of two stretches of a kind the one that began first counts to its end.
told_apart as (
    select
        *,
        during - tstzrange(
            '-infinity',
            coalesce(
                max(upper(during)) over (
                    partition by source, agent_id, business_day, kind
                    order by
                        lower(during) asc,
                        upper(during) desc,
                        call_id asc,
                        reason asc,
                        queue_id asc
                    rows between unbounded preceding and 1 preceding
                ),
                '-infinity'
            )
        ) as own
    from claimed
    where kind <> 'session'
),

days as (
    select
        claimed.source,
        claimed.agent_id,
        claimed.business_day,
        range_agg(claimed.during) filter (where claimed.is_login) as logged_in,
        coalesce(range_agg(claimed.during) filter (where claimed.kind = 'talk'), '{}') as talk,
        coalesce(range_agg(claimed.during) filter (where claimed.kind = 'ring'), '{}') as ring,
        coalesce(range_agg(claimed.during) filter (where claimed.kind = 'acw'), '{}') as acw,
        coalesce(range_agg(claimed.during) filter (where claimed.kind = 'pause'), '{}') as pause,
        array_agg(upper(claimed.during)) filter (
            where claimed.kind = 'session' and claimed.is_provisional
        ) as open_ends
    from claimed
    group by claimed.source, claimed.agent_id, claimed.business_day
    having bool_or(claimed.is_login)
),

states as (
    select
        days.source,
        days.agent_id,
        told_apart.kind as state,
        told_apart.reason,
        told_apart.call_id,
        told_apart.queue_id,
        told_apart.is_provisional,
        days.business_day,
        upper(told_apart.during) as open_end,
        case told_apart.kind
            when 'talk' then told_apart.own::tstzmultirange
            when 'ring' then told_apart.own::tstzmultirange - days.talk
            when 'acw' then told_apart.own::tstzmultirange - days.talk - days.ring
            when 'pause'
                then
                    told_apart.own::tstzmultirange - days.talk - days.ring - days.acw
                    - coalesce(reachable.during, '{}')
        end * days.logged_in as during
    from told_apart
    inner join days
        on
            told_apart.source = days.source
            and told_apart.agent_id = days.agent_id
            and told_apart.business_day = days.business_day
    left join reachable
        on
            told_apart.source = reachable.source
            and told_apart.agent_id = reachable.agent_id
            and told_apart.business_day = reachable.business_day
    union all
    select
        days.source,
        days.agent_id,
        'ready' as state,
        null as reason,
        null as call_id,
        null as queue_id,
        null as is_provisional,
        days.business_day,
        null as open_end,
        days.logged_in - days.talk - days.ring - days.acw
        - (days.pause - coalesce(reachable.during, '{}')) as during
    from days
    left join reachable
        on
            days.source = reachable.source
            and days.agent_id = reachable.agent_id
            and days.business_day = reachable.business_day
),

intervals as (
    select
        states.*,
        lower(pieces.piece) as started_at,
        upper(pieces.piece) as ended_at
    from states
    cross join lateral unnest(states.during) as pieces (piece)
),

final as (
    select
        intervals.source,
        intervals.agent_id,
        intervals.state,
        intervals.reason,
        intervals.call_id,
        case when intervals.state <> 'pause' then intervals.queue_id end as queue_id,
        case
            when intervals.state = 'ready'
                then coalesce(intervals.ended_at = any(days.open_ends), false)
            else intervals.is_provisional and intervals.ended_at = intervals.open_end
        end as is_provisional,
        intervals.business_day,
        intervals.started_at,
        intervals.ended_at
    from intervals
    inner join days
        on
            intervals.source = days.source
            and intervals.agent_id = days.agent_id
            and intervals.business_day = days.business_day
)

select * from final
