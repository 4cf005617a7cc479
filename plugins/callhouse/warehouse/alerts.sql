-- Alerts: rules by date, what fires by them, and who is told. Idempotent. `callhouse.alerts` enters
-- rules and sends; what fires is decided here, as of a moment that is handed over.
set role callhouse_owner;

-- ---------------------------------------------------------------- rules
-- A row per version of a rule: a change ends one and begins another.
create table if not exists ops.alert_rules (
    rule_id bigint generated always as identity primary key,
    rule text not null check (rule ~ '^[a-z][a-z0-9_]{1,60}$'),
    valid tstzrange not null,
    metric text not null,
    scope_type text not null
    check (scope_type in ('all', 'pipeline', 'source', 'region', 'team', 'queue', 'agent')),
    scope_id text not null,          -- '*': of queues, teams … each that has no rule of its own
    comparison text not null check (comparison in ('above', 'below')),
    fire_at numeric not null,        -- this value, or one beyond it
    clear_at numeric not null,       -- between both it stays as it is
    for_seconds integer not null check (for_seconds between 0 and 86400),
    severity text not null check (severity in ('info', 'warning', 'critical')),
    owner text not null,             -- a person, or 'scope': whoever leads where it fires
    escalate_to text references sec.people,
    escalate_after_seconds integer check (escalate_after_seconds > 0),
    channels text[] not null,        -- names; their addresses are secrets and are not in here
    quiet_from time,
    quiet_to time,
    quiet_zone text,
    reason text not null check (length(trim(reason)) > 0),
    managed_by text not null check (managed_by in ('command', 'file')),
    entered_by text not null,
    entered_at timestamptz not null default now(),
    ended_by text,
    end_reason text,
    check (not lower_inf(valid) or isempty(valid)),
    check (not isempty(valid) or ended_by is not null), -- taken back before it began
    check (case comparison when 'above' then clear_at < fire_at else clear_at > fire_at end),
    check ((escalate_to is null) = (escalate_after_seconds is null)),
    check (owner <> 'scope' or escalate_to is not null),
    check (num_nulls(quiet_from, quiet_to, quiet_zone) in (0, 3))
);

create or replace function ops.keep_alert_rules() returns trigger
language plpgsql set search_path = pg_catalog as $$
declare
    other text;
begin
    if tg_op = 'DELETE' or tg_op = 'TRUNCATE' then
        raise exception 'rules of alerts are history: end one instead of deleting it';
    end if;
    if tg_op = 'UPDATE' then
        if (
            to_jsonb(new) - '{valid,ended_by,end_reason}'::text[]
            is distinct from to_jsonb(old) - '{valid,ended_by,end_reason}'::text[]
        )
        or not new.valid <@ old.valid
        or (not isempty(new.valid) and lower(new.valid) is distinct from lower(old.valid))
        or old.ended_by is not null
        then
            raise exception 'a version of a rule can only be ended, and only once';
        end if;
        return new;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('alert rules', 0));
    if exists (
        select from ops.alert_rules as r where r.rule = new.rule and r.valid && new.valid
    ) then
        raise exception 'rule % is there already within that time: change it, or end it', new.rule
            using errcode = 'exclusion_violation';
    end if;
    select r.rule into other from ops.alert_rules as r
    where
        (r.metric, r.scope_type, r.scope_id, r.comparison, r.severity)
        = (new.metric, new.scope_type, new.scope_id, new.comparison, new.severity)
        and r.valid && new.valid;
    if found then
        raise exception 'rule % overlaps with rule %, which watches % of % % as % already: every '
            'breach would be told twice', new.rule, other, new.metric, new.scope_type,
            new.scope_id, new.severity
            using errcode = 'exclusion_violation';
    end if;
    return new;
end
$$;
create or replace trigger keep_history before insert or update or delete on ops.alert_rules
for each row execute function ops.keep_alert_rules();
create or replace trigger keep_whole before truncate on ops.alert_rules
for each statement execute function ops.keep_alert_rules();

-- ---------------------------------------------------------------- what fires, and who is told
create table if not exists ops.alerts (
    alert_id bigint generated always as identity primary key,
    rule text not null,
    rule_id bigint not null references ops.alert_rules, -- the version by which it fired
    metric text not null,
    scope_type text not null,
    scope_id text not null,
    scopes text[] not null,          -- `type=id` of itself and of what contained it then
    comparison text not null,
    fire_at numeric not null,
    severity text not null,
    owner text references sec.people, -- null: there was nobody who may see it
    breached_at timestamptz not null, -- since when the value had been beyond the limit
    opened_at timestamptz not null,
    value numeric not null,          -- when it fired
    escalated_at timestamptz,        -- nobody had acknowledged it in time
    escalated_to text references sec.people,
    acknowledged_at timestamptz,
    acknowledged_by text,
    resolved_at timestamptz,
    resolved_value numeric,
    resolution text                  -- cleared, or rule ended
    check (resolution in ('cleared', 'rule ended'))
);
create unique index if not exists alerts_open on ops.alerts (rule, scope_type, scope_id)
where resolved_at is null;

-- Values beyond a limit that have not been there for long enough.
create table if not exists ops.alert_breaches (
    rule text not null,
    scope_type text not null,
    scope_id text not null,
    breached_at timestamptz not null,
    seen_at timestamptz not null,
    primary key (rule, scope_type, scope_id)
);

create table if not exists ops.alert_watch (
    is_only boolean primary key default true check (is_only),
    evaluated_at timestamptz not null
);

-- The outbox: written in the transaction in which something fires, escalates or resolves.
create table if not exists ops.notifications (
    notification_id bigint generated always as identity primary key,
    alert_id bigint not null references ops.alerts,
    kind text not null check (kind in ('fired', 'escalated', 'resolved')),
    person text not null references sec.people,
    channel text not null,
    idempotency_key text not null unique, -- goes out with every attempt
    is_held boolean not null,        -- made within quiet hours
    status text not null default 'waiting'
    check (status in ('waiting', 'sending', 'sent', 'dropped', 'dead')),
    claims integer not null default 0,
    failures integer not null default 0,
    due_at timestamptz not null,
    created_at timestamptz not null,
    claimed_at timestamptz,
    sent_at timestamptz,
    note text                        -- the last failure, or why it was dropped
);
create index if not exists notifications_due on ops.notifications (due_at)
where status in ('waiting', 'sending');
create index if not exists notifications_alert on ops.notifications (alert_id);

create table if not exists ops.dead_letters (
    notification_id bigint not null references ops.notifications,
    died_at timestamptz not null,
    note text not null,
    retried_at timestamptz,          -- a person has had it sent again
    primary key (notification_id, died_at)
);

-- ---------------------------------------------------------------- scopes and people
-- What contains a scope, as `type=id`. plpgsql, because the dimensions are made later.
create or replace function ops.alert_scopes(wanted text, id text) returns text[]
language plpgsql stable as $$
declare
    found_team text;
    found_region text;
begin
    if wanted = 'agent' and to_regclass('marts.dim_agent') is not null then
        select min(team_id), min(region_code) into found_team, found_region
        from marts.dim_agent where agent_id = id and is_current
        -- Two sources may name an agent alike: of whom we cannot tell, nobody else is told.
        having count(distinct team_id) = 1;
    elsif wanted = 'team' and to_regclass('marts.dim_team') is not null then
        select min(region_code) into found_region from marts.dim_team
        where team_id = id and is_current
        having count(distinct region_code) = 1;
    end if;
    return array_remove(
        array[wanted || '=' || id, 'team=' || found_team, 'region=' || found_region], null
    );
end
$$;

-- Whether a person may know of a value of these scopes. Readers of aggregates may not: a few calls
-- are no group. The pipeline is of those who read the ledger.
create or replace function ops.may_be_told(wanted text, of_type text, of_scopes text[])
returns boolean language sql stable as $$
    select exists (
        select from sec.people as p
        left join sec.entitlement as e
            on p.person = e.person
            and e.valid @> statement_timestamp()
            and e.mask_level <> 'aggregate'
        where
            p.person = wanted
            and p.closed_at is null
            and (
                e.scope_type = 'all'
                or e.scope_type || '=' || e.scope_id = any(of_scopes)
                or (of_type = 'pipeline' and p.level = 'engineer')
            )
    )
$$;

-- Whom a rule means: its owner, or who leads exactly that scope (the lead before the manager); where
-- that person may not know of it, or there is none, whom it escalates to.
create or replace function ops.alert_recipient(by_rule ops.alert_rules, of_type text, id text)
returns text language sql stable as $$
    with chosen as (
        select by_rule.owner as person, 1 as preference
        union all
        select e.person, case p.level when 'lead' then 2 else 3 end
        from sec.entitlement as e
        inner join sec.people as p on e.person = p.person
        where
            by_rule.owner = 'scope'
            and (e.scope_type, e.scope_id) = (of_type, id)
            and e.valid @> statement_timestamp()
            and p.level in ('lead', 'manager')
        union all
        select by_rule.escalate_to, 4
    )
    select c.person from chosen as c
    where ops.may_be_told(c.person, of_type, ops.alert_scopes(of_type, id))
    order by c.preference, c.person
    limit 1
$$;

-- By the clock on the wall, so that hours that a change of the clock repeats or skips are right, too.
create or replace function ops.is_quiet(by_rule ops.alert_rules, moment timestamptz)
returns boolean language sql stable as $$
    select by_rule.severity <> 'critical' and coalesce(
        case when by_rule.quiet_from < by_rule.quiet_to
            then w.clock >= by_rule.quiet_from and w.clock < by_rule.quiet_to
            else w.clock >= by_rule.quiet_from or w.clock < by_rule.quiet_to
        end,
        false
    )
    from (select (moment at time zone by_rule.quiet_zone)::time as clock) as w
$$;

-- ---------------------------------------------------------------- evaluation
-- Metrics of the floor as the live lane has them, and those of the pipeline. Null: not known.
create or replace function ops.alert_values(moment timestamptz, wanted text[])
returns table (
    metric text, scope_type text, scope_id text, value numeric, measured_at timestamptz
)
language plpgsql stable as $$
declare
    silent text[];
begin
    if not wanted <@ array[
        'open_incidents', 'unacknowledged_incidents', 'held_days', 'published_age_seconds',
        'lane_silence_seconds'
    ] then
        -- A lane that has stopped leaves callers waiting for ever, or nobody: neither is known.
        silent := array(
            select s.source from live.sources as s
            where coalesce(s.looked_at < moment - interval '1 minute', true)
        );
        return query
        with blind as materialized (
            select distinct b.scope_type, b.scope_id
            from (
                select t.source, t.queue_id, t.team_id, t.agent_id, t.region_code
                from live.day_totals as t
                where t.source = any(silent) and (t.queue_id is null or t.agent_id is null)
                union all
                select a.source, null, a.team_id, a.agent_id, a.region_code
                from live.agent_states as a where a.source = any(silent)
            ) as l
            cross join lateral live.scopes(
                l.source, l.queue_id, l.team_id, l.region_code, l.agent_id
            ) as b
        )
        select
            v.metric, v.scope_type, v.scope_id,
            case when b.scope_type is null or v.metric = 'data_age_seconds' then v.value end,
            v.measured_at
        from live.metric_values as v
        left join blind as b on v.scope_type = b.scope_type and v.scope_id = b.scope_id
        where v.metric = any(wanted);
    end if;
    if wanted && array['open_incidents', 'unacknowledged_incidents'] then
        -- What nobody has looked at for a quarter of an hour is not known.
        return query
        select
            n.metric, 'pipeline', '*',
            case when w.checked_at > moment - interval '15 minutes' then n.value end, moment
        from (
            select
                count(*)::numeric as opened,
                count(*) filter (where i.acknowledged_at is null)::numeric as waiting
            from ops.incidents as i
            where i.resolved_at is null
        ) as c
        cross join lateral (
            values ('open_incidents', c.opened), ('unacknowledged_incidents', c.waiting)
        ) as n (metric, value)
        left join ops.capture_watch as w on true;
    end if;
    if 'held_days' = any(wanted) then
        return query
        select 'held_days', 'pipeline', '*', count(distinct h.business_day)::numeric, moment
        from ops.held_days as h;
    end if;
    if 'published_age_seconds' = any(wanted) then
        return query
        select
            'published_age_seconds', 'pipeline', '*',
            round(extract(epoch from moment - max(p.published_at))), moment
        from ops.published_days as p;
    end if;
    if 'lane_silence_seconds' = any(wanted) then
        -- Of the collector that has been silent for the longest.
        return query
        select
            'lane_silence_seconds', 'pipeline', '*',
            round(extract(epoch from moment - min(h.heartbeat_at))), moment
        from ops.capture_devices as d
        left join ops.last_heartbeats as h on d.device = h.device
        where d.kind = 'collector' and d.device <> 'notifier' and d.retired_at is null;
    end if;
end
$$;

-- Whether a rule watches this scope: by name, or as one of those that have no rule of their own.
create or replace function ops.alert_watches(
    by_rule ops.alert_rules, of_type text, id text, moment timestamptz
) returns boolean
language sql stable as $$
    select by_rule.scope_type = of_type and (
        by_rule.scope_id = id
        or (
            by_rule.scope_id = '*'
            and not exists (
                select from ops.alert_rules as own
                where
                    own.valid @> moment
                    and (own.metric, own.scope_type, own.scope_id, own.comparison, own.severity)
                    = (by_rule.metric, of_type, id, by_rule.comparison, by_rule.severity)
            )
        )
    )
$$;

create or replace function ops.notify_of_alert(
    wanted bigint, of_kind text, to_person text, moment timestamptz
) returns void
language sql as $$
    insert into ops.notifications (
        alert_id, kind, person, channel, idempotency_key, is_held, due_at, created_at
    )
    select
        a.alert_id, of_kind, to_person, c.channel,
        format('alert-%s-%s-%s-%s', a.alert_id, of_kind, to_person, c.channel),
        ops.is_quiet(r, moment), moment, moment
    from ops.alerts as a
    inner join ops.alert_rules as r on a.rule_id = r.rule_id
    cross join lateral unnest(r.channels) as c (channel)
    where a.alert_id = wanted and to_person is not null
    order by c.channel
$$;

create or replace function ops.resolve_alert(
    wanted bigint, at_value numeric, because text, moment timestamptz
) returns void
language sql as $$
    update ops.alerts as a set
        resolved_at = moment, resolved_value = at_value, resolution = because
    where a.alert_id = wanted;

    -- What quiet hours held back is told when they end only if it still fires then.
    update ops.notifications as n set status = 'dropped', note = 'over before quiet hours were'
    where n.alert_id = wanted and n.status = 'waiting' and n.is_held and n.claims = 0;

    select ops.notify_of_alert(wanted, 'resolved', t.person, moment)
    from (
        select distinct n.person from ops.notifications as n
        where n.alert_id = wanted and n.status <> 'dropped'
    ) as t;
$$;

-- Look at every rule once. Returns what happened: `fired`, `escalated`, `resolved`.
create or replace function ops.evaluate_alerts(moment timestamptz)
returns table (event text, alert_id bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    f record;
    since timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('evaluate alerts', 0));
    insert into ops.alert_watch as w (evaluated_at) values (moment)
    on conflict (is_only) do update set evaluated_at = moment;

    for f in
        with rules as materialized (
            select * from ops.alert_rules as r where r.valid @> moment
        ),

        -- A scope that two sources share has two values; the worse one counts.
        measured as materialized (
            select
                v.metric, v.scope_type, v.scope_id,
                min(v.value) filter (where v.measured_at > moment - interval '2 minutes') as lowest,
                max(v.value) filter (where v.measured_at > moment - interval '2 minutes') as highest
            from ops.alert_values(
                moment, array(select distinct r.metric from rules as r)
            ) as v
            group by v.metric, v.scope_type, v.scope_id
        ),

        judged as (
            select
                r.rule_id, r.rule, m.scope_type, m.scope_id, x.value,
                case
                    when x.value is null then 'unknown'
                    when r.comparison = 'above' and x.value >= r.fire_at then 'breach'
                    when r.comparison = 'below' and x.value <= r.fire_at then 'breach'
                    when r.comparison = 'above' and x.value <= r.clear_at then 'clear'
                    when r.comparison = 'below' and x.value >= r.clear_at then 'clear'
                    else 'between'
                end as verdict
            from rules as r
            inner join measured as m
                on
                    r.metric = m.metric
                    and ops.alert_watches(r, m.scope_type, m.scope_id, moment)
            cross join lateral (
                select case r.comparison when 'above' then m.highest else m.lowest end as value
            ) as x
        )

        select
            j.*, a.alert_id,
            -- What was not seen in between may not have lasted.
            case when b.seen_at > moment - interval '1 minute' then b.breached_at end
            as breached_at,
            b.rule is not null as is_known
        from judged as j
        left join ops.alerts as a
            on
                j.rule = a.rule
                and j.scope_type = a.scope_type
                and j.scope_id = a.scope_id
                and a.resolved_at is null
        left join ops.alert_breaches as b
            on j.rule = b.rule and j.scope_type = b.scope_type and j.scope_id = b.scope_id
        where
            (j.verdict = 'breach' and a.alert_id is null)
            or (j.verdict = 'clear' and a.alert_id is not null)
            or (j.verdict <> 'breach' and b.rule is not null)
        order by j.rule, j.scope_type, j.scope_id
    loop
        if f.verdict <> 'breach' then
            delete from ops.alert_breaches as b
            where (b.rule, b.scope_type, b.scope_id) = (f.rule, f.scope_type, f.scope_id);
            if f.verdict = 'clear' and f.alert_id is not null then
                perform ops.resolve_alert(f.alert_id, f.value, 'cleared', moment);
                return query select 'resolved', f.alert_id;
            end if;
            continue;
        end if;
        since := coalesce(f.breached_at, moment);
        if moment - since < (
            select make_interval(secs => r.for_seconds) from ops.alert_rules as r
            where r.rule_id = f.rule_id
        ) then
            insert into ops.alert_breaches as b values
            (f.rule, f.scope_type, f.scope_id, since, moment)
            on conflict (rule, scope_type, scope_id) do update set
                breached_at = excluded.breached_at, seen_at = excluded.seen_at;
            continue;
        end if;
        delete from ops.alert_breaches as b
        where (b.rule, b.scope_type, b.scope_id) = (f.rule, f.scope_type, f.scope_id);
        insert into ops.alerts (
            rule, rule_id, metric, scope_type, scope_id, scopes, comparison, fire_at, severity,
            owner, breached_at, opened_at, value
        )
        select
            r.rule, r.rule_id, r.metric, f.scope_type, f.scope_id,
            ops.alert_scopes(f.scope_type, f.scope_id), r.comparison, r.fire_at, r.severity,
            ops.alert_recipient(r, f.scope_type, f.scope_id), since, moment, f.value
        from ops.alert_rules as r
        where r.rule_id = f.rule_id
        returning ops.alerts.alert_id, ops.alerts.owner into f.alert_id, f.rule;
        perform ops.notify_of_alert(f.alert_id, 'fired', f.rule, moment);
        return query select 'fired', f.alert_id;
    end loop;

    -- Of rules that have ended, or mean something else now.
    delete from ops.alert_breaches as b where b.seen_at < moment - interval '10 minutes';
    for f in
        select a.alert_id from ops.alerts as a
        where
            a.resolved_at is null
            and not exists (
                select from ops.alert_rules as r
                where
                    r.valid @> moment
                    and (r.rule, r.metric, r.comparison) = (a.rule, a.metric, a.comparison)
                    and ops.alert_watches(r, a.scope_type, a.scope_id, moment)
            )
    loop
        perform ops.resolve_alert(f.alert_id, null, 'rule ended', moment);
        return query select 'resolved', f.alert_id;
    end loop;

    for f in
        select a.alert_id, r.escalate_to as person
        from ops.alerts as a
        inner join ops.alert_rules as r on a.rule_id = r.rule_id
        cross join lateral (
            select
                max(n.sent_at) as sent_at,
                coalesce(bool_or(n.is_held and n.status = 'waiting' and n.claims = 0), false)
                as is_held
            from ops.notifications as n where n.alert_id = a.alert_id
        ) as n
        where
            a.resolved_at is null
            and a.acknowledged_at is null
            and a.escalated_at is null
            and r.escalate_to is distinct from a.owner
            and not n.is_held
            and moment - greatest(a.opened_at, n.sent_at)
            >= make_interval(secs => r.escalate_after_seconds)
            and ops.may_be_told(r.escalate_to, a.scope_type, a.scopes)
    loop
        update ops.alerts as a set escalated_at = moment, escalated_to = f.person
        where a.alert_id = f.alert_id;
        perform ops.notify_of_alert(f.alert_id, 'escalated', f.person, moment);
        return query select 'escalated', f.alert_id;
    end loop;
end
$$;

-- ---------------------------------------------------------------- sending
-- The next notification that is due, taken by the caller for `lease`; none: no row. Whoever was
-- killed between this and `settle_notification` leaves it to the next one, with the same key.
create or replace function ops.claim_notification(moment timestamptz, lease interval)
returns setof ops.notifications
language plpgsql as $$
declare
    n ops.notifications;
    because text;
begin
    loop
        select c.* into n
        from ops.notifications as c
        inner join ops.alerts as a on c.alert_id = a.alert_id
        inner join ops.alert_rules as r on a.rule_id = r.rule_id
        where
            (
                (c.status = 'waiting' and c.due_at <= moment)
                or (c.status = 'sending' and c.claimed_at <= moment - lease)
            )
            and not ops.is_quiet(r, moment)
            -- Nobody hears of the end before the beginning.
            and not exists (
                select from ops.notifications as e
                where
                    (e.alert_id, e.person, e.channel) = (c.alert_id, c.person, c.channel)
                    and e.notification_id < c.notification_id
                    and e.status in ('waiting', 'sending')
            )
        order by r.severity = 'critical' desc, c.notification_id
        limit 1
        for update of c skip locked;
        exit when not found;

        select case
            when not ops.may_be_told(n.person, a.scope_type, a.scopes)
                then n.person || ' may not see this any more'
            when n.kind = 'resolved' and not exists (
                select from ops.notifications as e
                where
                    (e.alert_id, e.person, e.channel) = (n.alert_id, n.person, n.channel)
                    and e.kind <> 'resolved'
                    and e.status = 'sent'
            )
                then 'nothing was told there that could be over'
        end
        into because
        from ops.alerts as a where a.alert_id = n.alert_id;
        if because is not null then
            update ops.notifications as u set status = 'dropped', note = because
            where u.notification_id = n.notification_id;
            continue;
        end if;
        return query
        update ops.notifications as u set
            status = 'sending', claims = u.claims + 1, claimed_at = moment
        where u.notification_id = n.notification_id
        returning u.*;
        exit;
    end loop;
end
$$;

-- How the attempt that was claimed as number `by_claim` ended; `failure` null: it was taken. Waits
-- 5 s after the first failure, then four times as long each time; after `most` it is a dead letter.
create or replace function ops.settle_notification(
    wanted bigint, by_claim integer, failure text, most integer, moment timestamptz
) returns text
language plpgsql as $$
declare
    n ops.notifications;
begin
    update ops.notifications as u set
        status = case
            when failure is null then 'sent'
            when u.failures + 1 >= most then 'dead'
            else 'waiting'
        end,
        failures = u.failures + (failure is not null)::integer,
        sent_at = case when failure is null then moment end,
        due_at = case
            when failure is null then u.due_at
            else moment + interval '5 seconds' * 4 ^ u.failures
        end,
        note = failure
    where u.notification_id = wanted and u.claims = by_claim and u.status = 'sending'
    returning u.* into n;
    if n.status = 'dead' then
        insert into ops.dead_letters (notification_id, died_at, note)
        values (wanted, moment, failure);
    end if;
    return n.status; -- null: somebody else has it, whose lease began later
end
$$;

-- ---------------------------------------------------------------- what readers see and do
create or replace function sec.my_scopes() returns text[]
language sql stable security definer set search_path = pg_catalog as $$
    select coalesce(array_agg(scope_type || '=' || scope_id), '{}')
    from sec.mine
    where mask_level <> 'aggregate'
$$;

create or replace view bi.fct_alert_events with (security_barrier) as
select
    a.alert_id,
    a.rule,
    a.metric,
    a.scope_type,
    a.scope_id,
    a.severity,
    case
        when a.resolved_at is not null then 'resolved'
        when a.acknowledged_at is not null then 'acknowledged'
        when a.escalated_at is not null then 'escalated'
        else 'firing'
    end as status,
    a.comparison,
    a.fire_at,
    a.value,
    r.reason,
    a.owner,
    a.breached_at,
    a.opened_at,
    n.notified_at,
    a.escalated_at,
    a.escalated_to,
    a.acknowledged_at,
    a.acknowledged_by,
    a.resolved_at,
    a.resolved_value,
    a.resolution,
    extract(epoch from n.notified_at - a.opened_at)::double precision as notify_seconds,
    extract(epoch from a.acknowledged_at - a.opened_at)::double precision as acknowledge_seconds,
    extract(epoch from a.resolved_at - a.opened_at)::double precision as resolve_seconds,
    coalesce(n.undelivered, 0) as undelivered
from ops.alerts as a
inner join ops.alert_rules as r on a.rule_id = r.rule_id
left join lateral (
    select
        min(s.sent_at) as notified_at,
        count(*) filter (where s.status = 'dead') as undelivered
    from ops.notifications as s
    where s.alert_id = a.alert_id
) as n on true
where
    (select sec.sees_all() or pg_has_role(session_user, 'callhouse_owner', 'member'))
    or a.scopes && (select sec.my_scopes())
    or (a.scope_type = 'pipeline' and (select sec.reads_ledger()));

comment on view bi.fct_alert_events is
'One row per firing of a rule for a scope: what, whose, told, acknowledged, resolved.';

-- A person takes an alert up that they see. The first one counts; says who it was.
create or replace function sec.acknowledge_alert(wanted bigint) returns text
language plpgsql security definer set search_path = pg_catalog as $$
declare
    found_by text;
begin
    -- Row security of the view holds here, too: session_user stays that of the caller.
    perform from bi.fct_alert_events as e where e.alert_id = wanted;
    if not found then
        raise exception 'there is no alert % that % may see', wanted, session_user
            using errcode = 'no_data_found';
    end if;
    update ops.alerts as a set acknowledged_at = clock_timestamp(), acknowledged_by = session_user
    where a.alert_id = wanted and a.acknowledged_at is null and a.resolved_at is null;
    select a.acknowledged_by into found_by from ops.alerts as a where a.alert_id = wanted;
    return found_by; -- null: it was over before anybody took it up
end
$$;

revoke execute on function sec.my_scopes(), sec.acknowledge_alert(bigint) from public;
grant execute on function sec.my_scopes(), sec.acknowledge_alert(bigint) to callhouse_reader;
grant select on bi.fct_alert_events to callhouse_reader;

reset role;
