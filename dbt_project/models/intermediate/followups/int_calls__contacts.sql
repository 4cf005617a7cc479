-- One row per contact of a known customer, of the claimed days and those that they look at.
-- A contact is a call that the customer made: no phantom record and no call-back of an agent.
-- 168 hours are 7 business days, and with a clock change 8.
with calls as (
    select * from {{ published('fct_calls') }}
    where business_day in ({{ claimed_days(reach=8) }})
),

final as (
    select
        source,
        call_key,
        caller_token,
        business_type,
        business_day,
        arrived_at,
        lag(call_key) over issue as previous_call_key,
        lag(arrived_at) over issue as previous_arrived_at,
        lead(call_key) over issue as next_call_key,
        lead(arrived_at) over issue as next_arrived_at
    from calls
    where calls = 1 and channel <> 'callback' and caller_token is not null
    window issue as (
        partition by source, caller_token, business_type
        order by arrived_at asc, call_key asc
    )
)

select * from final
