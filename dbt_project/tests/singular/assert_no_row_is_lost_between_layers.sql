-- One row per pair of counts that should agree and does not: lost calls are the commonest bug.
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
    union all
    select
        'calls by day' as what,
        (select sum(calls) from {{ ref('fct_calls') }}) as expected,
        (select sum(calls) from {{ ref('agg_calls_daily') }}) as found
    union all
    select
        'visits by day' as what,
        (select sum(queue_visits) from {{ ref('fct_queue_visits') }}) as expected,
        (select sum(queue_visits) from {{ ref('agg_calls_daily') }}) as found
    union all
    select
        'visits by interval' as what,
        (select sum(queue_visits) from {{ ref('fct_queue_visits') }}) as expected,
        (select sum(queue_visits) from {{ ref('agg_queue_15min') }}) as found
    union all
    select
        'visits by wait' as what,
        (
            select sum(queue_visits) from {{ ref('fct_queue_visits') }}
            where wait_seconds >= 0
        ) as expected,
        (select sum(queue_visits) from {{ ref('agg_wait_histogram_daily') }}) as found
    union all
    select
        'connections by interval' as what,
        (select sum(agent_connections) from {{ ref('fct_agent_connections') }}) as expected,
        (select sum(agent_connections) from {{ ref('agg_queue_15min') }}) as found
    union all
    select
        'connections by agent' as what,
        (select sum(agent_connections) from {{ ref('fct_agent_connections') }}) as expected,
        (select sum(agent_connections) from {{ ref('agg_agent_daily') }}) as found
)

select * from counts
where coalesce(expected, 0) <> coalesce(found, 0)
