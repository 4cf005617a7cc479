-- One row per day, source, dimension and member, of groups of at least `smallest_group` callers.
-- Smaller groups are one, `other`, together with the next larger ones until it is large enough too:
-- what the shown members lack in the day's total is then no small group either. One dimension at a
-- time, because crossings of two would tell of smaller groups than each alone.
{%- set counts = [
    'calls', 'phantom_calls', 'calls_connected', 'calls_abandoned_before_agent',
    'abandoned_in_ivr', 'calls_contained', 'calls_after_hours', 'calls_transferred',
    'queue_visits', 'calls_offered', 'calls_answered', 'calls_abandoned',
    'answered_within_target', 'abandoned_within_target', 'answered_within_15s',
    'answered_within_20s', 'answered_within_30s', 'short_abandons', 'answered_waits',
    'abandoned_waits',
] %}
{%- set seconds = [
    'answered_wait_seconds', 'abandoned_wait_seconds',
] %}
with calls as (
    select * from {{ ref('fct_calls') }}
),

days as (
    select * from {{ ref('agg_calls_daily') }}
),

-- Somebody who calls ten times is one caller; calls without a number are one each.
sizes as (
    select
        calls.business_day,
        calls.source,
        d.dimension,
        d.member,
        count(distinct calls.caller_token)
        + count(*) filter (where calls.caller_token is null) as callers
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
    group by calls.business_day, calls.source, d.dimension, d.member
),

sums as (
    select
        days.business_day,
        days.source,
        d.dimension,
        d.member,
        max(d.member_name) as member_name,
    {% for name in counts + seconds %}
        sum({{ name }}) as {{ name }}{{ "," if not loop.last }}
    
    {% endfor %}
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
        coalesce(sum(coalesce(sizes.callers, 0)) over (
            partition by sums.business_day, sums.source, sums.dimension
            order by coalesce(sizes.callers, 0), sums.member
            rows between unbounded preceding and 1 preceding
        ), 0) as smaller
    from sums
    left join
        sizes
        on sums.business_day = sizes.business_day and sums.source = sizes.source and sums.dimension = sizes.dimension and sums.member = sizes.member
window dimensions as (partition by sums.business_day, sums.source, sums.dimension)
),

merged as (
select
    ranked.*,
    ranked.callers < {{ var('smallest_group') }}
    or (
        ranked.smallest < {{ var('smallest_group') }}
        and ranked.smaller < {{ var('smallest_group') }}
    ) as is_other
from ranked
),

shown as (
select
    business_day,
    source,
    dimension,
    case when is_other then 'other' else member end as member,
    case when not is_other then max(member_name) end as member_name,
    sum(callers) as callers,
{% for name in counts + seconds %}
    sum({{ name }}) as {{ name }}{{ "," if not loop.last }}

{% endfor %}
from merged
group by
    business_day, source, dimension, is_other, case when is_other then 'other' else member end
),

-- A day that is too small as a whole has rows that say so, and no numbers.
final as (
select
    business_day,
    source,
    dimension,
    member,
    member_name,
    date_trunc('week', business_day)::date as week_start,
    date_trunc('month', business_day)::date as month_start,
    callers < {{ var('smallest_group') }} as is_withheld,
    {% for name in ['callers'] + counts %}
        case
            when callers >= {{ var('smallest_group') }} then {{ name }}::bigint
        end as {{ name }},
    {% endfor %}
{% for name in seconds %}
    case
        when callers >= {{ var('smallest_group') }} then {{ name }}
    end as {{ name }}{{ "," if not loop.last }}

{% endfor %}
from shown
)

select * from final
