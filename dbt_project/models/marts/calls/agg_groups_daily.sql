-- One row per day, source, dimension and member, of groups of at least `smallest_group` callers.
-- Smaller groups are one, `small_groups`, together with the next larger ones until it is large
-- enough too: what the shown members lack in the day's total is then no small group either. One
-- dimension at a time, because crossings of two would tell of smaller groups than each alone.
with calls as (
    select * from {{ ref('fct_calls') }}
),

days as (
    select * from {{ ref('agg_calls_daily') }}
),

-- Somebody who calls ten times is one caller; calls without a number are one each. Callers are
-- told apart by a hash and not by sorting, which took three times as long.
callers as (
    select
        calls.business_day,
        calls.source,
        d.dimension,
        d.member,
        calls.caller_token,
        case when calls.caller_token is null then count(*) else 1 end as callers
    from calls
    cross join
        lateral (
            values
            ('all', 'all'),
            ('queue', calls.queue_id),
            ('channel', calls.channel),
            ('region', calls.region_code),
            ('business_type', calls.business_type),
            ('hotline', calls.hotline_id)
        ) as d (dimension, member)
    where calls.calls > 0
    group by calls.business_day, calls.source, d.dimension, d.member, calls.caller_token
),

sizes as (
    select
        business_day,
        source,
        dimension,
        member,
        sum(callers) as callers
    from callers
    group by business_day, source, dimension, member
),

sums as (
    select
        days.business_day,
        days.source,
        d.dimension,
        d.member,
        max(d.member_name) as member_name,
        sum(days.calls) as calls,
        sum(days.phantom_calls) as phantom_calls,
        sum(days.calls_connected) as calls_connected,
        sum(days.calls_abandoned_before_agent) as calls_abandoned_before_agent,
        sum(days.abandoned_in_ivr) as abandoned_in_ivr,
        sum(days.calls_contained) as calls_contained,
        sum(days.calls_after_hours) as calls_after_hours,
        sum(days.calls_transferred) as calls_transferred,
        sum(days.queue_visits) as queue_visits,
        sum(days.calls_offered) as calls_offered,
        sum(days.calls_answered) as calls_answered,
        sum(days.calls_abandoned) as calls_abandoned,
        sum(days.answered_within_target) as answered_within_target,
        sum(days.abandoned_within_target) as abandoned_within_target,
        sum(days.answered_within_15s) as answered_within_15s,
        sum(days.answered_within_20s) as answered_within_20s,
        sum(days.answered_within_30s) as answered_within_30s,
        sum(days.short_abandons) as short_abandons,
        sum(days.answered_waits) as answered_waits,
        sum(days.abandoned_waits) as abandoned_waits,
        sum(days.answered_wait_seconds) as answered_wait_seconds,
        sum(days.abandoned_wait_seconds) as abandoned_wait_seconds
    from days
    cross join
        lateral (
            values
            ('all', 'all', null),
            ('queue', days.queue_id, days.queue_name),
            ('channel', days.channel, null),
            ('region', days.region_code, days.region_name),
            ('business_type', days.business_type, null),
            ('hotline', days.hotline_id, null)
        ) as d (dimension, member, member_name)
    group by days.business_day, days.source, d.dimension, d.member
),

-- `smaller`: callers of all smaller members of the dimension together.
ranked as (
    select
        sums.*,
        coalesce(sizes.callers, 0) as callers,
        min(coalesce(sizes.callers, 0)) over dimensions as smallest,
        sum(coalesce(sizes.callers, 0)) over dimensions as together,
        coalesce(sum(coalesce(sizes.callers, 0)) over (
            partition by sums.business_day, sums.source, sums.dimension
            order by coalesce(sizes.callers, 0), sums.member
            rows between unbounded preceding and 1 preceding
        ), 0) as smaller
    from sums
    left join sizes using (business_day, source, dimension, member)  -- noqa: ST07
    window dimensions as (partition by sums.business_day, sums.source, sums.dimension)
),

merged as (
    select
        *,
        case
            when
                smallest >= {{ var('smallest_group') }}
                or (
                    callers >= {{ var('smallest_group') }}
                    and smaller >= {{ var('smallest_group') }}
                )
                then member
            else 'small_groups'
        end as shown_member,
        together < {{ var('smallest_group') }} as is_withheld
    from ranked
),

shown as (
    select
        business_day,
        source,
        dimension,
        shown_member,
        coalesce(
            max(member_name) filter (where shown_member = member),
            case shown_member
                when 'all' then 'All calls'
                when 'small_groups' then 'Small groups together'
                else shown_member
            end
        ) as member_name,
        sum(callers)::bigint as callers,
        sum(calls)::bigint as calls,
        sum(phantom_calls)::bigint as phantom_calls,
        sum(calls_connected)::bigint as calls_connected,
        sum(calls_abandoned_before_agent)::bigint as calls_abandoned_before_agent,
        sum(abandoned_in_ivr)::bigint as abandoned_in_ivr,
        sum(calls_contained)::bigint as calls_contained,
        sum(calls_after_hours)::bigint as calls_after_hours,
        sum(calls_transferred)::bigint as calls_transferred,
        sum(queue_visits)::bigint as queue_visits,
        sum(calls_offered)::bigint as calls_offered,
        sum(calls_answered)::bigint as calls_answered,
        sum(calls_abandoned)::bigint as calls_abandoned,
        sum(answered_within_target)::bigint as answered_within_target,
        sum(abandoned_within_target)::bigint as abandoned_within_target,
        sum(answered_within_15s)::bigint as answered_within_15s,
        sum(answered_within_20s)::bigint as answered_within_20s,
        sum(answered_within_30s)::bigint as answered_within_30s,
        sum(short_abandons)::bigint as short_abandons,
        sum(answered_waits)::bigint as answered_waits,
        sum(abandoned_waits)::bigint as abandoned_waits,
        sum(answered_wait_seconds) as answered_wait_seconds,
        sum(abandoned_wait_seconds) as abandoned_wait_seconds
    from merged
    where not is_withheld
    group by business_day, source, dimension, shown_member
),

-- A day that is too small as a whole has rows that say so, and no numbers.
members as (
    select distinct
        business_day,
        source,
        dimension,
        shown_member,
        is_withheld
    from merged
),

final as (
    select
        members.business_day,
        members.source,
        members.dimension,
        members.shown_member as member,
        shown.member_name,
        date_trunc('week', members.business_day)::date as week_start,
        date_trunc('month', members.business_day)::date as month_start,
        members.is_withheld,
        shown.callers,
        shown.calls,
        shown.phantom_calls,
        shown.calls_connected,
        shown.calls_abandoned_before_agent,
        shown.abandoned_in_ivr,
        shown.calls_contained,
        shown.calls_after_hours,
        shown.calls_transferred,
        shown.queue_visits,
        shown.calls_offered,
        shown.calls_answered,
        shown.calls_abandoned,
        shown.answered_within_target,
        shown.abandoned_within_target,
        shown.answered_within_15s,
        shown.answered_within_20s,
        shown.answered_within_30s,
        shown.short_abandons,
        shown.answered_waits,
        shown.abandoned_waits,
        shown.answered_wait_seconds,
        shown.abandoned_wait_seconds
    from members
    left join shown using (business_day, source, dimension, shown_member)  -- noqa: ST07
)

select * from final
