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
    union all
    select
        'states' as what,
        (select count(*) from {{ ref('int_agent_states__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_agent_states') }}) as found
    union all
    select
        'schedules' as what,
        (select count(*) from {{ ref('int_agent_schedules__tiled') }}) as expected,
        (select count(*) from {{ ref('fct_agent_schedules') }}) as found
    union all
    select
        'offers' as what,
        (select count(*) from {{ ref('int_agent_offers__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_agent_offers') }}) as found
    union all
    select
        'steps' as what,
        (select count(*) from {{ ref('int_ivr_steps__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_ivr_steps') }}) as found
    union all
    select
        'events' as what,
        (select count(*) from {{ ref('int_call_events__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_call_events') }}) as found
    union all
    select
        'surveys' as what,
        (select count(*) from {{ ref('int_survey_responses__unioned') }}) as expected,
        (select count(*) from {{ ref('fct_survey_responses') }}) as found
)

select * from counts
where coalesce(expected, 0) <> coalesce(found, 0)
