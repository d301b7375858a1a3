//! The plans of the hot statements over a million rows, and the heap-only updates of `moving`.

use crate::desk::{Desk, outcome};
use sqlx::{AssertSqlSafe, PgPool};
use store::{DoubtPolicy, What};

/// Types and arguments under which each statement of the hot path is explained.
const HOT: &[(&str, &str, &str, &str)] = &[
    (
        "release",
        include_str!("../../src/sql/release.sql"),
        "bigint[], bigint[], timestamptz[]",
        "array[1, 2, 3], array[300, 300, 300], array['-infinity', '-infinity', '-infinity']::timestamptz[]",
    ),
    (
        "claim",
        include_str!("../../src/sql/claim.sql"),
        "text, bigint, uuid[], integer[]",
        "'shard.0', 1, array_fill(gen_random_uuid(), array[200]),
         array_fill(1, array[200])",
    ),
    (
        "record",
        include_str!("../../src/sql/record.sql"),
        "uuid[], integer[], bigint[], smallint[], double precision[], text[]",
        "array_fill(gen_random_uuid(), array[200]),
         array_fill(1, array[200]), array_fill(1::bigint, array[200]), array_fill(10::smallint, array[200]),
         array_fill(60::double precision, array[200]), array_fill('{}'::text, array[200])",
    ),
    (
        "record_late",
        include_str!("../../src/sql/record_late.sql"),
        "uuid[], integer[], smallint[], smallint[], bigint[], text[], text[]",
        "array_fill(gen_random_uuid(), array[200]),
         array_fill(1, array[200]), array_fill(2::smallint, array[200]), array_fill(1::smallint, array[200]),
         array_fill(1::bigint, array[200]), array_fill('receiver.test'::text, array[200]),
         array_fill('{}'::text, array[200])",
    ),
    (
        "park",
        include_str!("../../src/sql/park.sql"),
        "uuid[], integer[], double precision[], bigint[], text[]",
        "array_fill(gen_random_uuid(), array[200]),
         array_fill(1, array[200]), array_fill(1::double precision, array[200]), array_fill(null::bigint, array[200]),
         array_fill(null::text, array[200])",
    ),
    ("refuse", include_str!("../../src/sql/refuse.sql"), "uuid[], smallint, text", "array[gen_random_uuid()], 4, '{}'"),
    (
        "suppress",
        include_str!("../../src/sql/suppress.sql"),
        "uuid[], uuid, smallint[]",
        "array_fill(gen_random_uuid(), array[1000]), gen_random_uuid(), '{0, 1}'",
    ),
    (
        "cancel",
        include_str!("../../src/sql/cancel.sql"),
        "uuid[], uuid[]",
        "array[gen_random_uuid()], array_fill(gen_random_uuid(), array[1000])",
    ),
    ("due_queues", include_str!("../../src/sql/due_queues.sql"), "bigint[], timestamptz[]", "'{}', '{}'"),
    ("fold", include_str!("../../src/sql/fold.sql"), "bigint, bigint, bigint", "0, 2000, 0"),
    // Not hot, but they run beside what is.
    (
        "list",
        include_str!("../../src/sql/list.sql"),
        "uuid[], text, text, integer",
        "array_fill(gen_random_uuid(), array[500]), null, null, null",
    ),
    (
        "feedback",
        include_str!("../../src/sql/feedback.sql"),
        "uuid[], smallint[], integer[], timestamptz[], jsonb[]",
        "array_fill(gen_random_uuid(), array[500]), array_fill(11::smallint, array[500]), array_fill(7, array[500]), \
         array_fill(now(), array[500]), array_fill('{}'::jsonb, array[500])",
    ),
    (
        "log_at",
        include_str!("../../src/sql/log_at.sql"),
        "bigint[], uuid",
        "array_fill(5::bigint, array[100]), gen_random_uuid()",
    ),
    (
        "log_after",
        include_str!("../../src/sql/log_after.sql"),
        "bigint, bigint, uuid[]",
        "0, 500, array[gen_random_uuid()]",
    ),
];

/// Tables that no statement of the hot path may walk.
const WATCHED: &[&str] = &["waiting", "moving", "messages", "facts", "message_events", "suppressions"];

#[tokio::test]
async fn no_hot_statement_walks_a_table_of_a_million_rows() {
    let desk = Desk::new().await;
    let pool = desk.pool().await;
    // Explained once while everything is empty: a plan that is kept from then must still be right later.
    explain_all(&pool, "empty").await;
    fill(&pool, &desk).await;
    explain_all(&pool, "fresh").await;
    sqlx::query("vacuum analyze").execute(&pool).await.unwrap();
    explain_all(&pool, "analysed").await;
    churn(&desk).await;
    explain_all(&pool, "churned").await;
}

async fn explain_all(pool: &PgPool, when: &str) {
    for mode in ["force_custom_plan", "force_generic_plan"] {
        for (name, sql, types, arguments) in HOT {
            let mut tx = pool.begin().await.unwrap();
            let script = format!(
                "set local enable_seqscan = off; set local plan_cache_mode = {mode}; prepare hot({types}) as {sql}"
            );
            sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *tx).await.unwrap();
            let explain = AssertSqlSafe(format!("explain execute hot({arguments})"));
            let lines: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut *tx).await.unwrap();
            sqlx::raw_sql("deallocate hot").execute(&mut *tx).await.unwrap();
            tx.rollback().await.unwrap();
            let walks = lines.iter().find(|line| {
                line.contains("Seq Scan on ")
                    && WATCHED.iter().any(|table| {
                        let scanned = line.split("Seq Scan on ").nth(1).unwrap_or_default();
                        scanned.split([' ', '_']).next() == Some(table) || scanned.starts_with(table)
                    })
            });
            assert!(walks.is_none(), "{name}, {when}, {mode}:\n{}", lines.join("\n"));
        }
    }
}

/// A million waiting rows in three queues, with their messages, and facts.
async fn fill(pool: &PgPool, desk: &Desk) {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "insert into mailfleet.queues (tenant_id, lane, slot) select '{tenant}', 1, n from generate_series(1, 3) n;
         create temporary table made as
             select n, mailfleet.first_uuid_of(current_date) as day,
                    (left(mailfleet.first_uuid_of(current_date)::text, 13) || '-7' || substr(md5(n::text), 1, 3)
                     || '-8' || substr(md5(n::text), 4, 3) || '-' || lpad(to_hex(n), 12, '0'))::uuid as id
             from generate_series(1, 1000000) n;
         insert into mailfleet.messages
             (message_id, tenant_id, batch_id, content_id, recipient, variables, expires_at)
             select id, '{tenant}', '{tenant}', '{tenant}', 'r' || n || '@receiver.test', '{{}}', now() + interval '3 days'
             from made;
         insert into mailfleet.waiting
             (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site)
             select 1 + n % 3, now() - n * interval '1 ms', id, '{tenant}', md5(n::text)::uuid, now() + interval '3 days',
                    0, 0, 0, 'receiver.test'
             from made;
         insert into mailfleet.facts (message_id, kind, ordinal, release_no, queue_id, site, at, detail)
             select id, 1, 0, 0, 1 + n % 3, 'receiver.test', now(), '{{}}' from made where n <= 100000;
         drop table made",
        tenant = desk.tenant
    )))
    .execute(&mut *pool.acquire().await.unwrap())
    .await
    .unwrap();
}

/// Thousands of releases, claims, records and folds, so that indexes and heaps hold dead rows.
async fn churn(desk: &Desk) {
    for round in 0..10 {
        let lease = desk.lease(round).await;
        let released = desk.release().await;
        assert_eq!(released.len(), 3_000);
        for chunk in released.chunks(200) {
            let claims: Vec<_> = chunk
                .iter()
                .map(|released| store::Claim { message: released.message, release: released.release })
                .collect();
            assert_eq!(desk.store.claim(&lease, &claims).await.unwrap().len(), chunk.len());
            let outcomes: Vec<_> = chunk.iter().map(|released| outcome(&lease, released, What::Delivered)).collect();
            desk.store.record(&outcomes).await.unwrap();
        }
        desk.store.fold(0, 2_000).await.unwrap();
    }
}

#[tokio::test]
async fn every_update_of_moving_is_heap_only() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let recipients: Vec<String> = (0..2_000).map(|n| format!("r{n}@receiver.test")).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    desk.store.accept(&[desk.call(now, &names, Some(now))], now).await.unwrap();
    let lease = desk.lease(0).await;
    let mut released = Vec::new();
    for _ in 0..2 {
        released.extend(desk.release().await);
    }
    for chunk in released.chunks(200) {
        let claims: Vec<_> = chunk
            .iter()
            .map(|released| store::Claim { message: released.message, release: released.release })
            .collect();
        desk.store.claim(&lease, &claims).await.unwrap();
        // A second update, which is rare: a page has room for one of every row and of some for two.
        let doubts: Vec<_> =
            chunk.iter().step_by(10).map(|released| outcome(&lease, released, What::InDoubt)).collect();
        desk.store.record(&doubts).await.unwrap();
    }
    let stop = DoubtPolicy { resend_transactional: false, resend_bulk: false };
    desk.store.close_doubts(stop, 10_000).await.unwrap();
    let pool = desk.pool().await;
    desk.store.close().await;
    let (updated, hot) = testkit::eventually(testkit::LIMIT, async || {
        let (updated, hot): (i64, i64) =
            sqlx::query_as("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'moving'")
                .fetch_one(&pool)
                .await
                .unwrap();
        (updated >= 2_200).then_some((updated, hot))
    })
    .await
    .expect("the statistics arrive");
    assert_eq!(updated, hot);
}
