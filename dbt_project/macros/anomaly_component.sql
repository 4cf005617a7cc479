{#-
    Written once for what is compared and for what is shown of it. A call that no agent answered has
    no conversation that could be too short.
-#}
{% macro anomaly_component(call, component) %}
        case {{ component }}
            when 'conversation_seconds'
                then {{ call }}.talk_seconds + coalesce({{ call }}.hold_seconds, 0)
            when 'call_seconds' then {{ call }}.call_seconds
            when 'wait_seconds' then {{ call }}.wait_seconds
            when 'hold_seconds' then {{ call }}.hold_seconds
            when 'recorded_hang_ups'
                then (
                    {{ call }}.ended_at is not null
                    and not coalesce('missing:ended_at' = any({{ call }}.data_issues), false)
                )::integer
            when 'shortest_component_seconds'
                then least(
                    {{ call }}.ivr_seconds,
                    {{ call }}.wait_seconds,
                    {{ call }}.ring_seconds,
                    {{ call }}.talk_seconds,
                    {{ call }}.hold_seconds,
                    {{ call }}.acw_seconds,
                    {{ call }}.call_seconds
                )
            when 'transfers_count' then {{ call }}.transfers_count
            when 'seconds_since_previous_call' then {{ call }}.seconds_since_previous_call
        end
{%- endmacro %}
