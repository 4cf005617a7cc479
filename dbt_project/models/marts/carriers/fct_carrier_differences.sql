-- One row per call that only one side knows: the carrier (we lost it) or we (not delivered by it).
with compared as (
    select * from {{ ref('int_carrier_calls__compared') }}
    where not is_matched
),

-- A caller's own call that is too far away to be the same: a clock is wrong, or the calls are two.
elsewhere as (
    select
        mine.side,
        mine.compared_key,
        (
            array_agg(
                extract(epoch from theirs.started_at - mine.started_at)
                order by
                    abs(extract(epoch from theirs.started_at - mine.started_at)) asc,
                    theirs.compared_key asc
            )
        )[1] as other_seconds
    from compared as mine
    inner join compared as theirs
        on
            mine.hotline_id = theirs.hotline_id
            and mine.caller_token = theirs.caller_token
            and mine.side <> theirs.side
            and theirs.started_at between mine.started_at - interval '2 hours'
            and mine.started_at + interval '2 hours'
    where mine.business_day in ({{ claimed_days() }})
    group by mine.side, mine.compared_key
),

final as (
    select
        compared.business_day,
        compared.side || ':' || compared.compared_key as difference_key,
        compared.side,
        case
            when elsewhere.other_seconds is not null then 'time_differs'
            when compared.side = 'carrier' then 'no_record'
            else 'no_carrier_record'
        end as reason,
        compared.hotline_id,
        compared.carrier_source,
        compared.carrier_call_id,
        compared.source,
        compared.call_id,
        compared.source || ':' || compared.call_id as call_key,
        compared.caller_token,
        compared.region_code,
        compared.trunk,
        compared.answered,
        compared.outcome,
        compared.started_at,
        compared.call_seconds,
        compared.billed_seconds,
        trim_scale(elsewhere.other_seconds) as other_seconds
    from compared
    left join elsewhere
        on
            compared.side = elsewhere.side
            and compared.compared_key = elsewhere.compared_key
    where compared.business_day in ({{ claimed_days() }})
)

select * from final
