-- What dbt makes of staged legs, reduced to the columns that the suites read. Not the rules of the
-- models: those have their own tests. Here both sides of each comparison have to agree.
drop table if exists
candidate.fct_calls, candidate.fct_queue_visits, candidate.fct_agent_connections,
candidate.agg_calls_daily, candidate.agg_queue_15min, candidate.agg_wait_histogram_daily,
candidate.agg_agent_daily,
candidate.fct_agent_states, candidate.agg_agent_15min, candidate.fct_agent_offers,
candidate.fct_ivr_steps, candidate.fct_call_events, candidate.fct_survey_responses,
candidate.fct_channel_requests, candidate.fct_agent_schedules, candidate.bridge_call_anomaly,
candidate.agg_agent_adherence_daily;

create unlogged table candidate.fct_agent_states as
select
    s.business_day,
    s.source,
    s.agent_id,
    s.started_at,
    s.ended_at,
    (row_number() over (
        partition by s.source, s.business_day, s.agent_id order by s.started_at
    ) = 1)::integer as agent_days,
    extract(epoch from s.ended_at - s.started_at) as login_seconds,
    0::numeric as provisional_login_seconds,
    0::numeric as ready_seconds,
    0::numeric as pause_seconds,
    0::numeric as state_ring_seconds,
    0::numeric as state_dial_seconds,
    0::numeric as state_consult_seconds,
    extract(epoch from s.ended_at - s.started_at) as state_talk_seconds,
    0::numeric as state_hold_seconds,
    0::numeric as state_acw_seconds
from staging.delimited_agent_states as s
inner join ops.claimed_days as d on s.business_day = d.business_day
where s.superseded_by is null;

create unlogged table candidate.fct_agent_schedules as
select
    p.business_day,
    p.source,
    p.agent_id,
    p.starts_at,
    p.ends_at,
    extract(epoch from p.ends_at - p.starts_at) as planned_seconds,
    extract(epoch from p.ends_at - p.starts_at) as planned_work_seconds,
    extract(epoch from p.ends_at - p.starts_at) as planned_paid_seconds
from staging.delimited_schedules as p
inner join ops.claimed_days as d on p.business_day = d.business_day
where p.superseded_by is null;

-- Agents are logged in only while they talk: the rest of the plan is an absence.
create unlogged table candidate.agg_agent_adherence_daily as
select
    p.business_day,
    p.source,
    p.agent_id,
    p.planned_seconds as scheduled_seconds,
    p.planned_work_seconds as scheduled_work_seconds,
    p.planned_paid_seconds as paid_seconds,
    l.seconds as worked_seconds,
    p.planned_work_seconds - l.seconds as absent_seconds,
    0::numeric as paused_seconds,
    0::numeric as worked_break_seconds,
    0::numeric as outside_seconds,
    p.planned_work_seconds - l.seconds as exception_seconds
from candidate.fct_agent_schedules as p
inner join (
    select business_day, source, agent_id, sum(login_seconds) as seconds
    from candidate.fct_agent_states
    group by business_day, source, agent_id
) as l using (business_day, source, agent_id);

create unlogged table candidate.agg_agent_15min as
select * from candidate.fct_agent_states;

create unlogged table candidate.fct_agent_offers as
select
    o.business_day,
    o.source || ':' || o.call_id || ':1' as offer_key,
    o.source,
    o.call_id,
    o.ring_seconds,
    1 as offers,
    (o.outcome = 'answered')::integer as offers_answered,
    0 as offers_unanswered,
    0 as offers_rejected,
    0 as offers_cancelled,
    0 as offers_failed
from staging.delimited_offers as o
inner join ops.claimed_days as d on o.business_day = d.business_day
where o.superseded_by is null;

create unlogged table candidate.fct_ivr_steps as
select
    i.business_day,
    i.source,
    i.call_id,
    i.channel,
    i.step_seconds,
    1 as self_service_requests,
    (i.outcome = 'contained')::integer as self_service_contained,
    0 as self_service_abandoned
from staging.delimited_ivr_steps as i
inner join ops.claimed_days as d on i.business_day = d.business_day
where i.superseded_by is null;

create unlogged table candidate.fct_call_events as
select
    l.business_day,
    l.source,
    l.call_id,
    1 as event_number,
    l.arrived_at as event_at
from staging.delimited_legs as l
inner join ops.claimed_days as d on l.business_day = d.business_day
where l.superseded_by is null;

create unlogged table candidate.fct_survey_responses as
select
    v.business_day,
    v.source || ':' || v.survey_id as survey_key,
    v.source,
    v.call_id,
    v.survey_type,
    v.score,
    v.offered_at,
    v.answered_at,
    (v.score is not null)::integer as survey_responses,
    (v.score is not null)::integer as csat_responses,
    coalesce(v.score >= 4, false)::integer as csat_satisfied,
    0 as nps_responses,
    0 as nps_promoters,
    0 as nps_detractors,
    0 as ces_responses
from staging.delimited_surveys as v
inner join ops.claimed_days as d on v.business_day = d.business_day
where v.superseded_by is null;

create unlogged table candidate.fct_calls as
select
    l.business_day,
    l.source || ':' || l.call_id as call_key,
    l.source,
    l.call_id,
    'none' as queue_id,
    null::text[] as data_issues,
    min(l.arrived_at) as arrived_at,
    max(l.ended_at) as ended_at,
    count(*) filter (where l.outcome = 'answered')::integer as agent_connections_count,
    (not bool_and(l.outcome = 'phantom'))::integer as calls,
    bool_or(l.outcome = 'answered')::integer as calls_connected,
    bool_or(l.outcome = 'abandoned')::integer as calls_abandoned_before_agent,
    bool_or(l.abandon_stage = 'ivr')::integer as abandoned_in_ivr,
    bool_or(l.outcome = 'contained')::integer as calls_contained,
    coalesce(min(l.talk_seconds) < 10, false)::integer as abnormal_calls,
    sum(l.ivr_seconds) as ivr_seconds,
    sum(l.wait_seconds) as wait_seconds,
    sum(l.talk_seconds) as talk_seconds,
    sum(l.hold_seconds) as hold_seconds
from staging.delimited_legs as l
inner join ops.claimed_days as d on l.business_day = d.business_day
where l.superseded_by is null
group by l.business_day, l.source, l.call_id;

create unlogged table candidate.bridge_call_anomaly as
select
    business_day,
    source,
    call_id,
    'too_short' as rule,
    1 as call_anomalies
from candidate.fct_calls
where abnormal_calls = 1;

create unlogged table candidate.fct_queue_visits as
select
    l.business_day,
    l.source || ':' || l.call_id || ':' || l.leg_number as visit_key,
    l.source,
    l.call_id,
    l.queue_id,
    l.outcome,
    l.arrived_at as entered_at,
    l.wait_seconds,
    l.ring_seconds,
    extract(hour from l.arrived_at at time zone 'Asia/Shanghai')::integer as local_hour,
    1 as queue_visits,
    (l.outcome <> 'closed')::integer as calls_offered,
    (l.outcome = 'answered')::integer as calls_answered,
    (l.outcome = 'abandoned')::integer as calls_abandoned,
    (l.outcome = 'answered' and l.wait_seconds <= 20)::integer as answered_within_target,
    (l.outcome = 'abandoned' and l.wait_seconds <= 20)::integer as abandoned_within_target,
    (l.outcome = 'answered' and l.wait_seconds <= 15)::integer as answered_within_15s,
    (l.outcome = 'abandoned' and l.wait_seconds <= 5)::integer as short_abandons,
    case when l.outcome = 'answered' then l.wait_seconds end as answered_wait_seconds,
    case when l.outcome = 'abandoned' then l.wait_seconds end as abandoned_wait_seconds
from staging.delimited_legs as l
inner join ops.claimed_days as d on l.business_day = d.business_day
where
    l.superseded_by is null
    and l.queue_id is not null
    and l.outcome not in ('contained', 'phantom')
    and coalesce(l.abandon_stage, '') not in ('ivr', 'bot');

create unlogged table candidate.fct_agent_connections as
select
    l.business_day,
    l.source || ':' || l.call_id || ':' || l.leg_number as connection_key,
    l.source,
    l.call_id,
    coalesce(l.queue_id, 'none') as queue_id,
    coalesce(l.agent_id, 'unknown') as agent_id,
    l.arrived_at as connected_at,
    l.ended_at,
    l.ring_seconds,
    l.talk_seconds,
    l.hold_seconds,
    l.acw_seconds,
    1 as agent_connections,
    (l.talk_seconds > 0)::integer as connections_handled,
    (l.hold_seconds > 0)::integer as connections_held,
    0 as transfers,
    0 as transfers_blind,
    0 as transfers_attended,
    0 as transfers_consult
from staging.delimited_legs as l
inner join ops.claimed_days as d on l.business_day = d.business_day
where l.superseded_by is null and l.outcome = 'answered';

create unlogged table candidate.agg_calls_daily as
select
    business_day,
    source,
    queue_id,
    sum(calls) as calls,
    sum(calls_abandoned_before_agent) as calls_abandoned_before_agent,
    sum(abandoned_in_ivr) as abandoned_in_ivr,
    sum(calls_contained) as calls_contained,
    0::bigint as queue_visits,
    0::bigint as calls_offered,
    0::bigint as calls_answered,
    0::bigint as calls_abandoned,
    0::bigint as answered_within_target
from candidate.fct_calls
group by business_day, source, queue_id
union all
select
    business_day,
    source,
    queue_id,
    0,
    0,
    0,
    0,
    sum(queue_visits),
    sum(calls_offered),
    sum(calls_answered),
    sum(calls_abandoned),
    sum(answered_within_target)
from candidate.fct_queue_visits
group by business_day, source, queue_id;

create unlogged table candidate.agg_wait_histogram_daily as
select
    business_day,
    source,
    queue_id,
    sum(queue_visits) as queue_visits,
    sum(calls_answered) as calls_answered,
    sum(calls_abandoned) as calls_abandoned
from candidate.fct_queue_visits
where wait_seconds is not null
group by business_day, source, queue_id;

create unlogged table candidate.agg_queue_15min as
select *
from (
    select
        business_day,
        source,
        queue_id,
        sum(queue_visits) as queue_visits,
        sum(calls_offered) as calls_offered,
        sum(calls_answered) as calls_answered,
        sum(calls_abandoned) as calls_abandoned,
        sum(answered_within_target) as answered_within_target,
        sum(abandoned_within_target) as abandoned_within_target,
        sum(answered_within_15s) as answered_within_15s,
        sum(short_abandons) as short_abandons,
        sum(answered_wait_seconds) as answered_wait_seconds,
        sum(abandoned_wait_seconds) as abandoned_wait_seconds
    from candidate.fct_queue_visits
    group by business_day, source, queue_id
) as v
full join (
    select
        business_day,
        source,
        queue_id,
        sum(agent_connections) as agent_connections,
        sum(connections_handled) as connections_handled,
        sum(talk_seconds) as talk_seconds
    from candidate.fct_agent_connections
    group by business_day, source, queue_id
) as c using (business_day, source, queue_id);

create unlogged table candidate.agg_agent_daily as
select *
from (
    select
        business_day,
        source,
        agent_id,
        sum(agent_connections) as agent_connections,
        sum(connections_handled) as connections_handled,
        sum(transfers) as transfers,
        sum(talk_seconds) as talk_seconds,
        sum(hold_seconds) as hold_seconds,
        sum(acw_seconds) as acw_seconds
    from candidate.fct_agent_connections
    group by business_day, source, agent_id
) as connections
full join (
    select
        business_day,
        source,
        agent_id,
        sum(agent_days) as agent_days,
        sum(login_seconds) as login_seconds,
        sum(ready_seconds) as ready_seconds,
        sum(pause_seconds) as pause_seconds,
        sum(state_ring_seconds) as state_ring_seconds,
        sum(state_dial_seconds) as state_dial_seconds,
        sum(state_consult_seconds) as state_consult_seconds,
        sum(state_talk_seconds) as state_talk_seconds,
        sum(state_hold_seconds) as state_hold_seconds,
        sum(state_acw_seconds) as state_acw_seconds
    from candidate.fct_agent_states
    group by business_day, source, agent_id
) as states using (business_day, source, agent_id);

create unlogged table candidate.fct_channel_requests as
select business_day, source, call_id, 'ivr' as channel, calls_contained as channel_requests_served
from candidate.fct_calls
where calls = 1
union all
select
    business_day, source, call_id, 'human' as channel,
    (agent_connections_count > 0)::integer as channel_requests_served
from candidate.fct_calls
where calls = 1 and agent_connections_count > 0;
