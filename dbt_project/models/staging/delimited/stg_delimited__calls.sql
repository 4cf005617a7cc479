-- One row per call of a delimited feed.
-- Grouped by business_day too: only then do filters on days reach the partitions.
with legs as (
    select * from {{ source('staging', 'delimited_legs') }}
),

calls as (
    select
        source,
        call_id,
        (array_agg(caller_token order by leg_number) filter (where caller_token is not null))[1]
            as caller_token,
        (array_agg(caller_region_code order by leg_number) filter (
            where caller_region_code is not null
        ))[1] as caller_region_code,
        (array_agg(caller_carrier order by leg_number) filter (
            where caller_carrier is not null
        ))[1] as caller_carrier,
        (array_agg(hotline_id order by leg_number) filter (where hotline_id is not null))[1]
            as hotline_id,
        (array_agg(channel order by leg_number desc) filter (where channel is not null))[1]
            as channel,
        (array_agg(business_type order by leg_number) filter (where business_type is not null))[1]
            as business_type,
        (array_agg(priority order by leg_number) filter (where priority is not null))[1]
            as priority,
        (array_agg(hangup_party order by leg_number desc) filter (
            where hangup_party is not null
        ))[1] as hangup_party,
        case
            when bool_or(outcome = 'answered') then 'answered'
            else coalesce(
                (array_agg(outcome order by leg_number desc) filter (
                    where outcome <> 'phantom'
                ))[1],
                'phantom'
            )
        end as outcome,
        (array_agg(abandon_stage order by leg_number desc))[1] as abandon_stage,
        sum(ivr_seconds) as ivr_seconds,
        string_to_array(
            string_agg(array_to_string(data_issues, e'\x1f'), e'\x1f' order by leg_number), e'\x1f'
        ) as data_issues,
        business_day,
        min(arrived_at) as arrived_at,
        coalesce(
            max(ended_at),
            greatest(max(released_at), max(answered_at), max(queue_left_at), max(ivr_left_at))
        ) as ended_at
    from legs
    where superseded_by is null
    group by call_id, source, business_day
),

final as (
    select * from calls
)

select * from final
