-- One row per pair of counts that should agree and does not: lost calls are the commonest bug.
-- That aggregates agree with their facts is audited by day (expectations/marts).
with counts as (
    select
        'calls' as what,
        (select count(*) from {{ ref('int_calls__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_calls') }}) as found
    union all
    select
        'visits' as what,
        (select count(*) from {{ ref('int_queue_visits__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_queue_visits') }}) as found
    union all
    select
        'connections' as what,
        (select count(*) from {{ ref('int_agent_connections__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_agent_connections') }}) as found
)

select * from counts
where coalesce(expected, 0) <> coalesce(found, 0)
