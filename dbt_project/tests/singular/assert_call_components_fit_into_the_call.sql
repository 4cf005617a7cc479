-- One row per call whose parts last longer than the call itself, by more than two seconds.
-- Sources round each part; beyond that their own times contradict each other, which is theirs to
-- answer for and no reason to hold a day back.
{{ config(severity='warn') }}

select
    business_day,
    call_key,
    call_seconds,
    coalesce(ivr_seconds, 0)
    + coalesce(wait_seconds, 0)
    + coalesce(talk_seconds, 0)
    + coalesce(hold_seconds, 0) as component_seconds
from {{ ref('fct_calls') }}
where
    calls = 1
    and coalesce(ivr_seconds, 0)
    + coalesce(wait_seconds, 0)
    + coalesce(talk_seconds, 0)
    + coalesce(hold_seconds, 0) > call_seconds + 2
