-- One row per queue of a source and period in which neither its attributes nor its targets change.
-- The first period reaches back to 1900: a visit before the first queue list keeps a known queue.
with listed as (
    select * from {{ ref('stg_delimited__queues') }}
),

members as (
    select * from {{ ref('int_members__known') }}
),

sources as (
    select * from {{ ref('int_sources__registered') }}
),

targets as (
    select * from {{ ref('queue_targets') }}
),

unlisted as (
    select
        members.source,
        members.code as queue_id
    from members
    left join listed
        on members.source = listed.source and members.code = listed.queue_id
    where
        members.kind = 'queue'
        and members.code not in ('unknown', 'none')
        and listed.queue_id is null
),

attributes as (
    select
        source,
        queue_id,
        coalesce(queue_name, queue_id) as queue_name,
        coalesce(business_type, 'unknown') as business_type,
        valid_from as listed_from,
        case
            when row_number() over (partition by source, queue_id order by valid_from) = 1
                then date '1900-01-01'
            else valid_from
        end as valid_from,
        lead(valid_from) over (partition by source, queue_id order by valid_from) as valid_to
    from listed
    union all
    select
        source,
        queue_id,
        queue_id as queue_name,
        'unknown' as business_type,
        null as listed_from,
        date '1900-01-01' as valid_from,
        null as valid_to
    from unlisted
    union all
    select
        source,
        'unknown' as queue_id,
        'Unknown queue' as queue_name,
        'unknown' as business_type,
        null as listed_from,
        date '1900-01-01' as valid_from,
        null as valid_to
    from sources
    union all
    select
        source,
        'none' as queue_id,
        'No queue' as queue_name,
        'unknown' as business_type,
        null as listed_from,
        date '1900-01-01' as valid_from,
        null as valid_to
    from sources
),

queues as (
    select distinct
        source,
        queue_id
    from attributes
),

-- A queue's own targets beat those of its source, which beat the general ones.
applicable as (
    select
        queues.source,
        queues.queue_id,
        targets.valid_from,
        targets.target_seconds,
        targets.short_abandon_seconds,
        targets.answer_rate_target,
        targets.service_level_target,
        targets.abandon_rate_target,
        case
            when targets.queue_id <> '*' then 1
            when targets.source <> '*' then 2
            else 3
        end as precedence
    from queues
    inner join targets
        on
            targets.source in (queues.source, '*')
            and targets.queue_id in (queues.queue_id, '*')
),

borders as (
    select
        source,
        queue_id,
        valid_from
    from attributes
    union
    select
        source,
        queue_id,
        valid_from
    from applicable
),

periods as (
    select
        source,
        queue_id,
        valid_from,
        lead(valid_from) over (partition by source, queue_id order by valid_from) as valid_to
    from borders
),

ranked as (
    select
        periods.source,
        periods.queue_id,
        periods.valid_from,
        periods.valid_to,
        applicable.target_seconds,
        applicable.short_abandon_seconds,
        applicable.answer_rate_target,
        applicable.service_level_target,
        applicable.abandon_rate_target,
        row_number() over (
            partition by periods.source, periods.queue_id, periods.valid_from
            order by applicable.precedence asc, applicable.valid_from desc
        ) as choice
    from periods
    left join applicable
        on
            periods.source = applicable.source
            and periods.queue_id = applicable.queue_id
            and periods.valid_from >= applicable.valid_from
),

final as (
    select
        ranked.source,
        ranked.queue_id,
        attributes.queue_name,
        attributes.business_type,
        ranked.target_seconds,
        ranked.short_abandon_seconds,
        ranked.answer_rate_target,
        ranked.service_level_target,
        ranked.abandon_rate_target,
        attributes.listed_from,
        ranked.valid_from,
        ranked.valid_to
    from ranked
    inner join attributes
        on
            ranked.source = attributes.source
            and ranked.queue_id = attributes.queue_id
            and ranked.valid_from >= attributes.valid_from
            and (attributes.valid_to is null or ranked.valid_from < attributes.valid_to)
    where ranked.choice = 1
)

select * from final
