-- One row per call and rule of abnormal calls that it breaks.
with calls as (
    select * from {{ ref('fct_calls') }}
    where is_abnormal
),

rules as (
    select * from {{ ref('int_anomaly_rules__in_force') }}
),

final as (
    select
        calls.business_day,
        calls.call_key || ':' || rules.rule as anomaly_key,
        calls.call_key,
        calls.source,
        calls.call_id,
        calls.queue_id,
        calls.queue_name,
        calls.agent_id,
        calls.agent_name,
        calls.team_id,
        calls.team_name,
        calls.region_code,
        calls.region_name,
        calls.channel,
        calls.business_type,
        calls.hotline_id,
        calls.outcome,
        calls.anomalies,
        rules.rule,
        rules.rule_version,
        rules.component,
        rules.comparison,
        rules.threshold,
        rules.reason,
        {{ anomaly_component('calls', 'rules.component') }} as measured,
        calls.arrived_at,
        calls.interval_start_at,
        calls.local_interval,
        calls.local_hour,
        calls.iso_weekday,
        calls.week_start,
        calls.month_start,
        1 as call_anomalies
    from calls
    inner join rules
        on
            calls.source = rules.source
            and calls.business_day = rules.business_day
            and rules.rule = any(string_to_array(calls.anomalies, ', '))
)

select * from final
