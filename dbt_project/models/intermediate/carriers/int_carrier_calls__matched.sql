-- One row per call that the carrier and we both know: pairs one to one, the nearest first.
-- The rule is in docs/decisions/0017.
with recursive carrier_calls as (
    select
        *,
        floor(extract(epoch from started_at) / {{ var('carrier_tolerance_seconds') }})::bigint
            as slot
    from {{ ref('int_carrier_calls__unioned') }}
),

-- Each call stands in its own slot of time and the two beside it: what is within the tolerance of
-- a carrier's call shares a slot with it, so that the joins below compare equals.
calls as (
    select
        contacts.*,
        floor(
            extract(epoch from contacts.arrived_at) / {{ var('carrier_tolerance_seconds') }}
        )::bigint + shift as slot
    from {{ ref('int_carrier_calls__contacts') }} as contacts
    cross join generate_series(-1, 1) as shift
),

-- Who is known on both sides comes first, then the unknown with the unknown, and at last those
-- whose number one side withholds. Joined apart: an `or` would compare everyone with everyone.
neighbours as (
    select
        0 as rank,
        carrier_calls.carrier_call_key,
        calls.call_key,
        carrier_calls.started_at,
        calls.arrived_at,
        carrier_calls.call_seconds as carrier_seconds,
        calls.call_seconds
    from carrier_calls
    inner join calls
        on
            carrier_calls.hotline_id = calls.hotline_id
            and carrier_calls.slot = calls.slot
            and carrier_calls.caller_token = calls.caller_token
    union all
    select
        case when calls.caller_token is null then 1 else 2 end as rank,
        carrier_calls.carrier_call_key,
        calls.call_key,
        carrier_calls.started_at,
        calls.arrived_at,
        carrier_calls.call_seconds as carrier_seconds,
        calls.call_seconds
    from carrier_calls
    inner join calls
        on
            carrier_calls.hotline_id = calls.hotline_id
            and carrier_calls.slot = calls.slot
    where carrier_calls.caller_token is null
    union all
    select
        2 as rank,
        carrier_calls.carrier_call_key,
        calls.call_key,
        carrier_calls.started_at,
        calls.arrived_at,
        carrier_calls.call_seconds as carrier_seconds,
        calls.call_seconds
    from carrier_calls
    inner join calls
        on
            carrier_calls.hotline_id = calls.hotline_id
            and carrier_calls.slot = calls.slot
    where calls.caller_token is null and carrier_calls.caller_token is not null
),

-- Near in time and alike in length: a clock that goes wrong shifts the starts, not the lengths.
candidates as (
    select
        rank,
        carrier_call_key,
        call_key,
        extract(epoch from started_at - arrived_at) as offset_seconds,
        abs(extract(epoch from started_at - arrived_at))
        + coalesce(abs(carrier_seconds - call_seconds), 0) as distance
    from neighbours
    where
        abs(extract(epoch from started_at - arrived_at)) <= {{ var('carrier_tolerance_seconds') }}
),

-- In each round those who are each other's nearest leave together; each round takes the nearest
-- pair of all at least, so that it ends when nobody is left who could be paired.
rounds as (
    select
        rank,
        carrier_call_key,
        call_key,
        offset_seconds,
        distance,
        false as is_pair
    from candidates
    union all
    select
        judged.rank,
        judged.carrier_call_key,
        judged.call_key,
        judged.offset_seconds,
        judged.distance,
        judged.is_pair
    from (
        select
            ranked.*,
            bool_or(ranked.is_pair) over (partition by ranked.carrier_call_key)
            or bool_or(ranked.is_pair) over (partition by ranked.call_key) as is_over
        from (
            select
                rounds.rank,
                rounds.carrier_call_key,
                rounds.call_key,
                rounds.offset_seconds,
                rounds.distance,
                row_number() over (
                    partition by rounds.carrier_call_key
                    order by rounds.rank, rounds.distance, rounds.carrier_call_key, rounds.call_key
                ) = 1
                and row_number() over (
                    partition by rounds.call_key
                    order by rounds.rank, rounds.distance, rounds.carrier_call_key, rounds.call_key
                ) = 1 as is_pair
            from rounds
            where not rounds.is_pair
        ) as ranked
    ) as judged
    where judged.is_pair or not judged.is_over
),

final as (
    select
        carrier_call_key,
        call_key,
        trim_scale(offset_seconds) as offset_seconds
    from rounds
    where is_pair
)

select * from final
