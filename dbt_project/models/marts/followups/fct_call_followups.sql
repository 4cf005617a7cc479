-- One row per contact of a known customer: its neighbours on the same issue, and what follows.
-- Reads published calls of the week before and after, so it is built after them and apart.
with calls as (
    select * from {{ published('fct_calls') }}
    where business_day in ({{ claimed_days() }})
),

contacts as (
    select * from {{ ref('int_calls__contacts') }}
),

horizons as (
    select * from {{ ref('int_sources__horizons') }}
),

measured as (
    select
        source,
        call_key,
        business_day,
        arrived_at,
        extract(epoch from arrived_at - previous_arrived_at) as seconds_since_previous,
        extract(epoch from next_arrived_at - arrived_at) as seconds_to_next,
        previous_call_key,
        previous_arrived_at,
        next_call_key,
        next_arrived_at
    from contacts
),

-- Neighbours further away than the longest window depend on what else was read: they are none.
neighbours as (
    select
        source,
        call_key,
        business_day,
        arrived_at,
        case when seconds_since_previous <= 168 * 3600 then previous_call_key end
            as previous_call_key,
        case when seconds_since_previous <= 168 * 3600 then previous_arrived_at end
            as previous_arrived_at,
        case when seconds_since_previous <= 168 * 3600 then trim_scale(seconds_since_previous) end
            as seconds_since_previous,
        case when seconds_to_next <= 168 * 3600 then next_call_key end as next_call_key,
        case when seconds_to_next <= 168 * 3600 then next_arrived_at end as next_arrived_at,
        case when seconds_to_next <= 168 * 3600 then trim_scale(seconds_to_next) end
            as seconds_to_next
    from measured
),

described as (
    select
        calls.*,
        neighbours.previous_call_key,
        neighbours.previous_arrived_at,
        neighbours.seconds_since_previous,
        neighbours.next_call_key,
        neighbours.next_arrived_at,
        neighbours.seconds_to_next,
        horizons.newest_arrival_at
    from neighbours
    inner join calls
        on
            neighbours.business_day = calls.business_day
            and neighbours.call_key = calls.call_key
    left join horizons on neighbours.source = horizons.source
),

judged as (
    select
        *,
        (
            (channel in ('ivr', 'bot') and outcome = 'contained')
            or (channel = 'human' and calls_connected = 1)
        ) as is_served,
        -- A window includes its last instant, so it is over when the source has got beyond.
        coalesce(newest_arrival_at > arrived_at + interval '1 hours', false) as is_mature_1h,
        coalesce(newest_arrival_at > arrived_at + interval '24 hours', false) as is_mature_24h,
        coalesce(newest_arrival_at > arrived_at + interval '48 hours', false) as is_mature_48h,
        coalesce(newest_arrival_at > arrived_at + interval '72 hours', false) as is_mature_72h,
        coalesce(newest_arrival_at > arrived_at + interval '168 hours', false) as is_mature_7d,
        coalesce(seconds_since_previous > 1 * 3600, true) as is_first_1h,
        coalesce(seconds_since_previous > 24 * 3600, true) as is_first_24h,
        coalesce(seconds_since_previous > 48 * 3600, true) as is_first_48h,
        coalesce(seconds_since_previous > 72 * 3600, true) as is_first_72h,
        coalesce(seconds_since_previous > 168 * 3600, true) as is_first_7d,
        coalesce(seconds_to_next > 1 * 3600, true) as is_last_1h,
        coalesce(seconds_to_next > 24 * 3600, true) as is_last_24h,
        coalesce(seconds_to_next > 48 * 3600, true) as is_last_48h,
        coalesce(seconds_to_next > 72 * 3600, true) as is_last_72h,
        coalesce(seconds_to_next > 168 * 3600, true) as is_last_7d
    from described
),

final as (
    select
        business_day,
        call_key,
        source,
        call_id,
        caller_token,
        queue_id,
        queue_name,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        region_name,
        channel,
        business_type,
        product_line,
        hotline_id,
        outcome,
        arrived_at,
        iso_weekday,
        week_start,
        month_start,
        previous_call_key,
        previous_arrived_at,
        seconds_since_previous,
        next_call_key,
        next_arrived_at,
        seconds_to_next,
        1 as identified_contacts,
        (previous_call_key is not null)::integer as repeat_calls,
        (not is_mature_1h)::integer as immature_contacts_1h,
        is_mature_1h::integer as mature_contacts_1h,
        (is_mature_1h and is_first_1h)::integer as first_contacts_1h,
        (is_mature_1h and is_first_1h and is_last_1h)::integer as resolved_first_contacts_1h,
        (
            is_mature_1h and is_last_1h and is_served and (is_first_1h or channel <> 'human')
        )::integer as resolved_requests_1h,
        (not is_mature_24h)::integer as immature_contacts_24h,
        is_mature_24h::integer as mature_contacts_24h,
        (is_mature_24h and is_first_24h)::integer as first_contacts_24h,
        (is_mature_24h and is_first_24h and is_last_24h)::integer as resolved_first_contacts_24h,
        (
            is_mature_24h and is_last_24h and is_served and (is_first_24h or channel <> 'human')
        )::integer as resolved_requests_24h,
        (not is_mature_48h)::integer as immature_contacts_48h,
        is_mature_48h::integer as mature_contacts_48h,
        (is_mature_48h and is_first_48h)::integer as first_contacts_48h,
        (is_mature_48h and is_first_48h and is_last_48h)::integer as resolved_first_contacts_48h,
        (
            is_mature_48h and is_last_48h and is_served and (is_first_48h or channel <> 'human')
        )::integer as resolved_requests_48h,
        (not is_mature_72h)::integer as immature_contacts_72h,
        is_mature_72h::integer as mature_contacts_72h,
        (is_mature_72h and is_first_72h)::integer as first_contacts_72h,
        (is_mature_72h and is_first_72h and is_last_72h)::integer as resolved_first_contacts_72h,
        (
            is_mature_72h and is_last_72h and is_served and (is_first_72h or channel <> 'human')
        )::integer as resolved_requests_72h,
        (not is_mature_7d)::integer as immature_contacts_7d,
        is_mature_7d::integer as mature_contacts_7d,
        (is_mature_7d and is_first_7d)::integer as first_contacts_7d,
        (is_mature_7d and is_first_7d and is_last_7d)::integer as resolved_first_contacts_7d,
        (
            is_mature_7d and is_last_7d and is_served and (is_first_7d or channel <> 'human')
        )::integer as resolved_requests_7d
    from judged
)

select * from final
