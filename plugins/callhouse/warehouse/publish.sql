-- Sealing and publishing. A dirty day is built beside the published one, audited, sealed, and only
-- the difference reaches marts.*: no exclusive lock, no half day, permanent row security.

-- A day of a large centre is sorted and grouped in memory; readers, of whom there are many at a
-- time, keep the server's own setting.
alter role callhouse_pipeline set work_mem = '128MB';

set role callhouse_owner;

-- Order-free fingerprint of a mart's rows by day, of its candidate or of what is published;
-- '-infinity' for relations not kept by day. `wanted_days`: null for every day there is.
-- PostgreSQL's own hash of a row takes a third of what the hash of its text took, and says, as
-- publishing does, that 1.50 is 1.5. The columns are named, since a column that came later stands
-- elsewhere in the published table.
create or replace function ops.fingerprint(
    wanted_schema text, wanted_relation text, wanted_days date [] default null
)
returns table (business_day date, row_count bigint, checksum numeric)
language plpgsql stable set search_path = pg_catalog as $$
declare
    mart ops.marts;
begin
    select * into strict mart from ops.marts as m where m.relation = wanted_relation;
    return query execute format(
        $sql$
            select
                %1$s as business_day,
                count(*) as row_count,
                coalesce(sum(hash_record_extended(row(%2$s), 0)), 0) as checksum
            from %3$I.%4$I as t
            %5$s
            %6$s
        $sql$,
        case when mart.is_by_day then 't.business_day' else $d$'-infinity'::date$d$ end,
        (select string_agg(format('t.%I', c), ', ') from unnest(mart.columns) as c),
        wanted_schema, wanted_relation,
        -- Literal days: only then does the planner leave the other partitions alone.
        case
            when mart.is_by_day and wanted_days is not null
                then format('where t.business_day = any(%L::date[])', wanted_days::text)
            else ''
        end,
        case when mart.is_by_day then 'group by t.business_day' else '' end
    );
end
$$;

-- An older version's seals are hashes of text: those of published days are made anew, of the rows
-- that readers see, or the next build of a day would pass for a change of it.
do $$
begin
    if to_regprocedure('ops.fingerprint(text, boolean)') is null then
        return;
    end if;
    update ops.seals as s
    set checksum = found.checksum
    from ops.marts as m
    cross join lateral ops.fingerprint('marts', m.relation) as found
    inner join ops.published_days as p
        on m.lane = p.lane and found.business_day = p.business_day
    where
        m.is_by_day
        and s.build_id = p.build_id
        and s.relation = m.relation
        and s.business_day = p.business_day;
    drop function ops.fingerprint(text, boolean);
end
$$;

-- Transfers by day and source, counted from both sides. Out: conversations that were announced to
-- end by a transfer. In, which knows nothing of transfers: what followed a conversation in its call,
-- a visit to a queue or a conversation outside of queues. An announced transfer that nothing follows
-- has left the records with the end of the call (outside of the centre, or to where its source
-- records nothing), or it is unknown where the call has gone on. Each begins later than what it
-- follows. A day on which a source announces none has no row: some records cannot tell.
create or replace function ops.transfers(
    visits text, connections text, calls text, wanted_days date []
) returns table (
    business_day date,
    source text,
    transfers_out bigint,
    transfers_in bigint,
    transfers_left bigint,
    transfers_unknown bigint
)
language plpgsql stable set search_path = pg_catalog as $$
begin
    return query execute format(
        $sql$
            with legs as (
                select
                    business_day, source, call_id, entered_at as began_at,
                    calls_answered = 1 as is_conversation
                from %1$s
                where business_day = any ($1)
                union all
                select business_day, source, call_id, connected_at, true
                from %2$s
                where business_day = any ($1) and queue_id = 'none'
            ),
            placed as (
                select
                    business_day, source, call_id, began_at,
                    -- Of one second: what was refused led on to the next queue.
                    lag(is_conversation) over (
                        partition by call_id, business_day, source
                        order by began_at, is_conversation
                    ) as has_come_from_one
                from legs
            ),
            ends as (
                select business_day, source, call_id, max(began_at) as last_began_at
                from legs
                group by business_day, source, call_id
            ),
            counted as (
                select business_day, source, 0 as o, 1 as i, 0 as l, 0 as u
                from placed
                where has_come_from_one
                union all
                select
                    business_day, source, 1, 0,
                    (is_last and is_over)::integer, (is_last and not is_over)::integer
                from (
                    select
                        c.business_day, c.source,
                        coalesce(e.last_began_at <= c.connected_at, true) as is_last,
                        -- Reported durations may differ from times by as much (METRICS, ruling 1).
                        coalesce(k.ended_at <= c.ended_at + interval '6 seconds', true) as is_over
                    from %2$s as c
                    left join ends as e using (business_day, source, call_id)
                    left join %3$s as k using (business_day, source, call_id)
                    where c.business_day = any ($1) and c.transfers = 1
                ) as announced
            )
            select business_day, source, sum(o), sum(i), sum(l), sum(u)
            from counted
            group by business_day, source
            having sum(o) > 0
        $sql$,
        visits, connections, calls
    ) using wanted_days;
end
$$;

-- The balances and totals of a build, by day and source.
create or replace function ops.balance(wanted_build bigint) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    mart record;
    key_sum text;
begin
    delete from ops.balances where build_id = wanted_build;
    delete from ops.day_totals where build_id = wanted_build;
    for mart in
        select m.relation, m.counted_against, m.counted_by
        from ops.marts as m
        inner join ops.builds as b on m.lane = b.lane
        where
            b.build_id = wanted_build
            and to_regclass(format('candidate.%I', m.relation)) is not null
            and to_regclass('candidate.' || quote_ident(m.counted_against)) is not null
        order by m.relation
    loop
        select format(
            'count(*) as number, sum(hash_record_extended(row(%s), 0)) as checksum',
            string_agg(format('t.%I', c), ', ')
        ) into key_sum from unnest(mart.counted_by) as c;
        execute format(
            $sql$
                insert into ops.balances (
                    build_id, business_day, source, balance,
                    left_count, right_count, left_checksum, right_checksum
                )
                select
                    %1$s, business_day, source, %2$L,
                    coalesce(l.number, 0), coalesce(r.number, 0),
                    coalesce(l.checksum, 0), coalesce(r.checksum, 0)
                from (
                    select t.business_day, t.source, %4$s from candidate.%3$I as t
                    group by t.business_day, t.source
                ) as l
                full join (
                    select t.business_day, t.source, %4$s from candidate.%2$I as t
                    group by t.business_day, t.source
                ) as r using (business_day, source)
            $sql$,
            wanted_build, mart.relation, mart.counted_against, key_sum
        );
    end loop;
    if to_regclass('candidate.fct_queue_visits') is null then
        return;
    end if;
    if not exists (
        select from ops.builds where build_id = wanted_build and lane = 'facts'
    ) then
        return;
    end if;
    execute format(
        $sql$
            insert into ops.balances (
                build_id, business_day, source, balance, left_count, right_count
            )
            select
                %1$s, business_day, source, 'offered = answered + abandoned + other ways out',
                sum(calls_offered),
                sum(calls_answered) + sum(calls_abandoned) + count(*) filter (
                    where outcome <> 'closed' and calls_answered = 0 and calls_abandoned = 0
                )
            from candidate.fct_queue_visits
            group by business_day, source
        $sql$,
        wanted_build
    );
    execute format(
        $sql$
            insert into ops.balances (
                build_id, business_day, source, balance, left_count, right_count
            )
            select
                %1$s, business_day, source, 'transfers out = transfers in + left + unknown',
                transfers_out, transfers_in + transfers_left + transfers_unknown
            from ops.transfers(
                'candidate.fct_queue_visits', 'candidate.fct_agent_connections',
                'candidate.fct_calls',
                array(select business_day from ops.build_days where build_id = %1$s)
            )
        $sql$,
        wanted_build
    );
    execute format(
        $sql$
            insert into ops.day_totals
            select
                %1$s, business_day, source, sum(calls), sum(offered), sum(answered),
                sum(abandoned), sum(handled)
            from (
                select
                    business_day, source, calls, 0 as offered, 0 as answered, 0 as abandoned,
                    coalesce(talk_seconds, 0) + coalesce(hold_seconds, 0)
                    + coalesce(acw_seconds, 0) as handled
                from candidate.fct_calls
                union all
                select
                    business_day, source, 0, calls_offered, calls_answered, calls_abandoned, 0
                from candidate.fct_queue_visits
            ) as counted
            group by business_day, source
        $sql$,
        wanted_build
    );
end
$$;

create or replace function ops.seal(wanted_build bigint) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    mart record;
begin
    delete from ops.seals where build_id = wanted_build;
    for mart in
        select m.relation, m.is_by_day
        from ops.marts as m
        inner join ops.builds as b on m.lane = b.lane
        where b.build_id = wanted_build
        order by m.relation
    loop
        -- A claimed day without rows is sealed as empty, so that publishing may empty it.
        insert into ops.seals (build_id, relation, business_day, row_count, checksum)
        select
            wanted_build, mart.relation, wanted.business_day,
            coalesce(found.row_count, 0), coalesce(found.checksum, 0)
        from (
            select d.business_day from ops.build_days as d
            where d.build_id = wanted_build and mart.is_by_day
            union all
            select '-infinity'::date where not mart.is_by_day
        ) as wanted
        left join ops.fingerprint('candidate', mart.relation) as found
            on wanted.business_day = found.business_day;
    end loop;
    perform ops.balance(wanted_build);
end
$$;

-- Monthly partition of a published relation, attached without a strong lock on the parent.
create or replace function ops.ensure_month(wanted_relation text, wanted_day date) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    first_day date := date_trunc('month', wanted_day)::date;
    next_month date := (date_trunc('month', wanted_day) + interval '1 month')::date;
    partition_name text := wanted_relation || to_char(wanted_day, '"_"YYYY"_"MM');
begin
    if to_regclass(format('marts.%I', partition_name)) is not null then
        return;
    end if;
    execute format(
        'create table marts.%I (like marts.%I including all)', partition_name, wanted_relation
    );
    execute format('alter table marts.%I enable row level security', partition_name);
    execute format(
        'alter table marts.%I attach partition marts.%I for values from (%L) to (%L)',
        wanted_relation, partition_name, first_day, next_month
    );
end
$$;

-- Mark the days whose follow-ups a build changes; called before its days count as published.
-- A contact looks 168 hours back and ahead. That is 7 business days, and with a clock change 8.
create or replace function ops.mark_followups(wanted_build bigint, days date[]) returns void
language plpgsql set search_path = pg_catalog as $$
begin
    if to_regclass('marts.fct_calls') is null then
        return;
    end if;
    with changed as (
        select s.business_day
        from ops.seals as s
        left join ops.published_days as p
            on s.business_day = p.business_day and p.lane = 'facts'
        left join ops.seals as o
            on
                p.build_id = o.build_id
                and s.relation = o.relation
                and s.business_day = o.business_day
        where
            s.build_id = wanted_build
            and s.relation = 'fct_calls'
            and s.business_day = any(days)
            and (s.row_count, s.checksum) is distinct from (o.row_count, o.checksum)
    ),
    newest as (
        select
            s.source,
            s.time_zone,
            h.newest_arrival_at as before_at,
            (
                select max(c.arrived_at) from marts.fct_calls as c
                where c.source = s.source and c.calls = 1
            ) as after_at
        from ops.sources as s
        left join ops.source_horizons as h on s.source = h.source
    ),
    moved as (
        select source, time_zone, after_at, least(before_at, after_at) as earlier_at
        from newest
        where before_at is distinct from after_at
    ),
    remembered as (
        insert into ops.source_horizons (source, newest_arrival_at)
        select source, after_at from moved
        on conflict (source) do update set newest_arrival_at = excluded.newest_arrival_at
    ),
    touched as (
        select c.business_day + n as business_day
        from changed as c cross join generate_series(-8, 8) as n
        union
        -- Windows that were open at the earlier horizon are over now, or open again.
        select (m.earlier_at at time zone m.time_zone)::date - n as business_day
        from moved as m cross join generate_series(0, 8) as n
    ),
    known as (
        -- Of either lane: a day may have nothing but lines of a carrier.
        select p.business_day from ops.published_days as p
        union
        select unnest(days)
    )
    insert into ops.dirty_marks (business_day, reason, lane)
    select t.business_day, format('build %s published', wanted_build), 'followups'
    from touched as t
    inner join known as k on t.business_day = k.business_day
    order by t.business_day;
end
$$;

-- Whether two builds sealed a day with other rows; a relation that is no longer there counts, too.
create or replace function ops.is_changed(old_build bigint, new_build bigint, wanted_day date)
returns boolean
language sql stable set search_path = pg_catalog as $$
    select exists (
        select s.relation, s.row_count, s.checksum from ops.seals as s
        where s.build_id = new_build and s.business_day = wanted_day
        except
        select s.relation, s.row_count, s.checksum from ops.seals as s
        where s.build_id = old_build and s.business_day = wanted_day
    ) or exists (
        select s.relation, s.row_count, s.checksum from ops.seals as s
        where s.build_id = old_build and s.business_day = wanted_day and s.row_count > 0
        except
        select s.relation, s.row_count, s.checksum from ops.seals as s
        where s.build_id = new_build and s.business_day = wanted_day
    )
$$;

-- Write down which published days a build changes after they had ended, and why; called before its
-- days count as published. A source or a fact that comes to a day for the first time restates
-- nothing: nobody was told another number.
create or replace function ops.mark_restatements(wanted_build bigint, days date[]) returns void
language sql set search_path = pg_catalog as $$
    insert into ops.restatements (business_day, revision, build_id, previous_build_id, reason)
    select
        p.business_day,
        p.revision + 1,
        wanted_build,
        p.build_id,
        coalesce(
            (
                select
                    string_agg(reasons.reason, '; ' order by reasons.first_mark)
                    filter (where reasons.number <= 3)
                    || case
                        when count(*) > 3 then format('; and %s more', count(*) - 3) else ''
                    end
                from (
                    select
                        m.reason,
                        min(m.mark_id) as first_mark,
                        row_number() over (order by min(m.mark_id)) as number
                    from ops.dirty_marks as m
                    where m.build_id = wanted_build and m.business_day = p.business_day
                    group by m.reason
                ) as reasons
            ),
            'built again'
        )
    from ops.published_days as p
    where
        p.lane = 'facts'
        and p.business_day = any(days)
        and exists (
            select from ops.seals as old
            left join ops.seals as new
                on
                    old.relation = new.relation
                    and old.business_day = new.business_day
                    and new.build_id = wanted_build
            where
                old.build_id = p.build_id
                and old.business_day = p.business_day
                and old.row_count > 0
                and (old.row_count, old.checksum)
                is distinct from (new.row_count, new.checksum)
        )
        and p.published_at >= (
            select max((p.business_day + 1)::timestamp at time zone s.time_zone)
            from ops.day_totals as t
            inner join ops.sources as s on t.source = s.source
            where t.build_id = p.build_id and t.business_day = p.business_day
        )
        and (
            exists (
                select t.source, t.calls, t.calls_offered, t.calls_answered, t.calls_abandoned,
                    t.handle_seconds
                from ops.day_totals as t
                where t.build_id = p.build_id and t.business_day = p.business_day
                except
                select t.source, t.calls, t.calls_offered, t.calls_answered, t.calls_abandoned,
                    t.handle_seconds
                from ops.day_totals as t
                where t.build_id = wanted_build and t.business_day = p.business_day
            )
            or not exists (
                select t.source from ops.day_totals as t
                where t.build_id = wanted_build and t.business_day = p.business_day
                except
                select t.source from ops.day_totals as t
                where t.build_id = p.build_id and t.business_day = p.business_day
            )
        )
$$;

-- The days of a relation by day whose published rows are not those that a build has sealed. Where
-- the seals say that nothing has changed, the rows are read all the same: what is published has to
-- be what was audited, whatever has happened to it. That costs a quarter of a comparison.
create or replace function ops.changed_days(wanted_build bigint, wanted_relation text, days date [])
returns date []
language plpgsql stable set search_path = pg_catalog as $$
declare
    changed date[];
    alike date[];
begin
    select
        coalesce(array_agg(s.business_day) filter (where not is_alike), '{}'),
        coalesce(array_agg(s.business_day) filter (where is_alike), '{}')
    into changed, alike
    from (
        select
            new.business_day,
            (new.row_count, new.checksum)
            is not distinct from (old.row_count, old.checksum) as is_alike
        from ops.seals as new
        inner join ops.builds as b on new.build_id = b.build_id
        left join ops.published_days as p
            on new.business_day = p.business_day and b.lane = p.lane
        left join ops.seals as old
            on
                p.build_id = old.build_id
                and new.relation = old.relation
                and new.business_day = old.business_day
        where
            new.build_id = wanted_build
            and new.relation = wanted_relation
            and new.business_day = any(days)
    ) as s;
    return array(
        select unnest(changed)
        union all
        select s.business_day
        from ops.seals as s
        left join ops.fingerprint('marts', wanted_relation, alike) as f
            on s.business_day = f.business_day
        where
            s.build_id = wanted_build
            and s.relation = wanted_relation
            and s.business_day = any(alike)
            and (s.row_count, s.checksum)
            is distinct from (coalesce(f.row_count, 0), coalesce(f.checksum, 0))
        order by 1
    );
end
$$;

-- Publish the sealed days of a build that are not held; one transaction for all relations.
create or replace function ops.publish(wanted_build bigint) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    days date[];
    changed_days date[];
    wanted_lane text;
    mart record;
    mismatch record;
    column_list text;
    same_row text;
    same_key text;
    day_filter text;
    has_rows boolean;
    deleted bigint;
    inserted bigint;
begin
    perform pg_advisory_xact_lock(hashtext('ops.publish'));
    if not exists (
        select 1 from ops.builds where build_id = wanted_build and status = 'audited'
    ) then
        raise exception 'build % is not audited, so it cannot be published', wanted_build;
    end if;
    select b.lane into wanted_lane from ops.builds as b where b.build_id = wanted_build;
    select coalesce(array_agg(d.business_day order by d.business_day), '{}') into days
    from ops.build_days as d
    where d.build_id = wanted_build and not d.is_held;

    for mart in select * from ops.marts where lane = wanted_lane order by relation loop
        deleted := 0;
        changed_days := days;
        if mart.is_by_day then
            perform ops.ensure_month(mart.relation, months.first_day)
            from (select distinct date_trunc('month', d)::date as first_day from unnest(days) as d)
                as months;
            changed_days := ops.changed_days(wanted_build, mart.relation, days);
            -- What readers see is what was sealed: nothing is taken from the candidates.
            if cardinality(changed_days) = 0 then
                insert into ops.publications (build_id, relation, deleted_rows, inserted_rows)
                values (wanted_build, mart.relation, 0, 0);
                continue;
            end if;
        end if;

        -- Candidates are unlogged: after a crash they are empty, and the seal says so.
        select s.business_day, s.row_count, f.row_count as found_count into mismatch
        from ops.seals as s
        left join ops.fingerprint('candidate', mart.relation) as f
            on s.business_day = f.business_day
        where
            s.build_id = wanted_build
            and s.relation = mart.relation
            and (s.row_count, s.checksum)
            is distinct from (coalesce(f.row_count, 0), coalesce(f.checksum, 0))
        limit 1;
        if found then
            raise exception
                'candidate.% changed after its audit: day % was sealed with % rows and has %',
                mart.relation, mismatch.business_day, mismatch.row_count,
                coalesce(mismatch.found_count, 0);
        end if;

        select string_agg(format('%I', c), ', ') into column_list from unnest(mart.columns) as c;
        select format(
            '(%s) is not distinct from (%s)',
            string_agg(format('c.%I', c), ', '), string_agg(format('m.%I', c), ', ')
        ) into same_row from unnest(mart.columns) as c;
        select string_agg(format('c.%1$I = m.%1$I', k), ' and ') into same_key
        from unnest(mart.primary_key) as k;
        -- Literal days: only then does the planner leave the other partitions alone.
        day_filter := case
            when mart.is_by_day then format('= any(%L::date[])', changed_days::text)
        end;

        -- Where nothing is published yet there is nothing to compare with.
        execute format(
            'select exists (select from marts.%I as m %s)',
            mart.relation, coalesce('where m.business_day ' || day_filter, '')
        ) into has_rows;
        if has_rows then
            -- Both sides are read once; a row that changed has a place on either.
            execute format(
                $sql$
                    create temp table changed_rows on commit drop as
                    select m.part, m.place as old_place, c.place as new_place
                    from (
                        select tableoid as part, ctid as place, %2$s from marts.%1$I as m %5$s
                    ) as m
                    full join (
                        select ctid as place, %2$s from candidate.%1$I as c %6$s
                    ) as c on %3$s
                    where m.place is null or c.place is null or not (%4$s)
                $sql$,
                mart.relation, column_list, same_key, same_row,
                coalesce('where m.business_day ' || day_filter, ''),
                coalesce('where c.business_day ' || day_filter, '')
            );
            execute format(
                $sql$
                    delete from marts.%1$I as m using pg_temp.changed_rows as d
                    where m.tableoid = d.part and m.ctid = d.old_place %2$s
                $sql$,
                mart.relation, coalesce('and m.business_day ' || day_filter, '')
            );
            get diagnostics deleted = row_count;
        end if;
        execute format(
            'insert into marts.%1$I (%2$s) select %2$s from candidate.%1$I as c %3$s %4$s',
            mart.relation, column_list,
            case
                when has_rows
                    then 'inner join pg_temp.changed_rows as d on c.ctid = d.new_place'
                else coalesce('where c.business_day ' || day_filter, '')
            end,
            -- The rows of a day lie together: scattered over its month they would cost a later
            -- build of the day as many pages as the month has.
            case
                when mart.is_by_day and cardinality(changed_days) > 1
                    then 'order by c.business_day'
                else ''
            end
        );
        get diagnostics inserted = row_count;
        drop table if exists pg_temp.changed_rows;
        insert into ops.publications (build_id, relation, deleted_rows, inserted_rows)
        values (wanted_build, mart.relation, deleted, inserted);
    end loop;

    if wanted_lane = 'facts' then
        perform ops.mark_followups(wanted_build, days);
    end if;

    if wanted_lane = 'facts' then
        perform ops.mark_restatements(wanted_build, days);
    end if;

    -- A revision is a change that readers can see; building the same day again is none.
    insert into ops.published_days as p (business_day, lane, build_id, revision, published_at)
    select d, wanted_lane, wanted_build, 1, now() from unnest(days) as d
    on conflict (business_day, lane) do update
        set
            build_id = excluded.build_id,
            published_at = excluded.published_at,
            revision = p.revision
            + ops.is_changed(p.build_id, wanted_build, p.business_day)::integer;
    delete from ops.held_days where business_day = any(days) and lane = wanted_lane;
    insert into ops.held_days (business_day, lane, build_id, reason)
    select d.business_day, wanted_lane, wanted_build, coalesce(d.reason, 'audit failed')
    from ops.build_days as d
    where d.build_id = wanted_build and d.is_held
    on conflict (business_day, lane) do update
        set build_id = excluded.build_id, reason = excluded.reason, held_at = now();
    delete from ops.dirty_marks where build_id = wanted_build;
    update ops.builds
    set status = case when cardinality(days) > 0 then 'published' else 'held' end,
        published_at = now()
    where build_id = wanted_build;
end
$$;

reset role;
