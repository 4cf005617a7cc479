-- One row per day, source, queue, channel, region of the caller and business type.
-- Contacts of unknown customers have no follow-up; they count here, so that their share is seen.
with calls as (
    select * from {{ published('fct_calls') }}
    where business_day in ({{ claimed_days() }})
),

followups as (
    select * from {{ ref('fct_call_followups') }}
),

contact_sums as (
    select
        business_day,
        source,
        queue_id,
        channel,
        region_code,
        business_type,
        max(product_line) as product_line,
        max(queue_name) as queue_name,
        max(region_name) as region_name,
        count(*) as contacts,
        count(*) filter (where caller_token is null) as anonymous_contacts
    from calls
    where calls = 1 and channel <> 'callback'
    group by business_day, source, queue_id, channel, region_code, business_type
),

followup_sums as (
    select
        business_day,
        source,
        queue_id,
        channel,
        region_code,
        business_type,
        sum(identified_contacts) as identified_contacts,
        sum(repeat_calls) as repeat_calls,
        sum(immature_contacts_1h) as immature_contacts_1h,
        sum(mature_contacts_1h) as mature_contacts_1h,
        sum(first_contacts_1h) as first_contacts_1h,
        sum(resolved_first_contacts_1h) as resolved_first_contacts_1h,
        sum(resolved_requests_1h) as resolved_requests_1h,
        sum(immature_contacts_24h) as immature_contacts_24h,
        sum(mature_contacts_24h) as mature_contacts_24h,
        sum(first_contacts_24h) as first_contacts_24h,
        sum(resolved_first_contacts_24h) as resolved_first_contacts_24h,
        sum(resolved_requests_24h) as resolved_requests_24h,
        sum(immature_contacts_48h) as immature_contacts_48h,
        sum(mature_contacts_48h) as mature_contacts_48h,
        sum(first_contacts_48h) as first_contacts_48h,
        sum(resolved_first_contacts_48h) as resolved_first_contacts_48h,
        sum(resolved_requests_48h) as resolved_requests_48h,
        sum(immature_contacts_72h) as immature_contacts_72h,
        sum(mature_contacts_72h) as mature_contacts_72h,
        sum(first_contacts_72h) as first_contacts_72h,
        sum(resolved_first_contacts_72h) as resolved_first_contacts_72h,
        sum(resolved_requests_72h) as resolved_requests_72h,
        sum(immature_contacts_7d) as immature_contacts_7d,
        sum(mature_contacts_7d) as mature_contacts_7d,
        sum(first_contacts_7d) as first_contacts_7d,
        sum(resolved_first_contacts_7d) as resolved_first_contacts_7d,
        sum(resolved_requests_7d) as resolved_requests_7d
    from followups
    group by business_day, source, queue_id, channel, region_code, business_type
),

final as (
    select
        contact_sums.business_day,
        contact_sums.source,
        contact_sums.queue_id,
        contact_sums.channel,
        contact_sums.region_code,
        contact_sums.business_type,
        contact_sums.product_line,
        contact_sums.queue_name,
        contact_sums.region_name,
        extract(isodow from contact_sums.business_day)::integer as iso_weekday,
        date_trunc('week', contact_sums.business_day)::date as week_start,
        date_trunc('month', contact_sums.business_day)::date as month_start,
        contact_sums.contacts,
        contact_sums.anonymous_contacts,
        coalesce(followup_sums.identified_contacts, 0) as identified_contacts,
        coalesce(followup_sums.repeat_calls, 0) as repeat_calls,
        coalesce(followup_sums.immature_contacts_1h, 0) as immature_contacts_1h,
        coalesce(followup_sums.mature_contacts_1h, 0) as mature_contacts_1h,
        coalesce(followup_sums.first_contacts_1h, 0) as first_contacts_1h,
        coalesce(followup_sums.resolved_first_contacts_1h, 0) as resolved_first_contacts_1h,
        coalesce(followup_sums.resolved_requests_1h, 0) as resolved_requests_1h,
        coalesce(followup_sums.immature_contacts_24h, 0) as immature_contacts_24h,
        coalesce(followup_sums.mature_contacts_24h, 0) as mature_contacts_24h,
        coalesce(followup_sums.first_contacts_24h, 0) as first_contacts_24h,
        coalesce(followup_sums.resolved_first_contacts_24h, 0) as resolved_first_contacts_24h,
        coalesce(followup_sums.resolved_requests_24h, 0) as resolved_requests_24h,
        coalesce(followup_sums.immature_contacts_48h, 0) as immature_contacts_48h,
        coalesce(followup_sums.mature_contacts_48h, 0) as mature_contacts_48h,
        coalesce(followup_sums.first_contacts_48h, 0) as first_contacts_48h,
        coalesce(followup_sums.resolved_first_contacts_48h, 0) as resolved_first_contacts_48h,
        coalesce(followup_sums.resolved_requests_48h, 0) as resolved_requests_48h,
        coalesce(followup_sums.immature_contacts_72h, 0) as immature_contacts_72h,
        coalesce(followup_sums.mature_contacts_72h, 0) as mature_contacts_72h,
        coalesce(followup_sums.first_contacts_72h, 0) as first_contacts_72h,
        coalesce(followup_sums.resolved_first_contacts_72h, 0) as resolved_first_contacts_72h,
        coalesce(followup_sums.resolved_requests_72h, 0) as resolved_requests_72h,
        coalesce(followup_sums.immature_contacts_7d, 0) as immature_contacts_7d,
        coalesce(followup_sums.mature_contacts_7d, 0) as mature_contacts_7d,
        coalesce(followup_sums.first_contacts_7d, 0) as first_contacts_7d,
        coalesce(followup_sums.resolved_first_contacts_7d, 0) as resolved_first_contacts_7d,
        coalesce(followup_sums.resolved_requests_7d, 0) as resolved_requests_7d
    from contact_sums
    left join followup_sums
        on
            contact_sums.business_day = followup_sums.business_day
            and contact_sums.source = followup_sums.source
            and contact_sums.queue_id = followup_sums.queue_id
            and contact_sums.channel = followup_sums.channel
            and contact_sums.region_code = followup_sums.region_code
            and contact_sums.business_type = followup_sums.business_type
)

select * from final
