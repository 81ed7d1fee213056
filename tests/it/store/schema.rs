//! The schema and the statements against it.

use postrider::store::Store;

use crate::support::Database;

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_prepares_against_the_migrated_schema() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let statements = Store::statements();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sql")).unwrap();
    assert_eq!(
        statements.len(),
        files.count(),
        "a file of sql/ is not listed"
    );
    for (name, statement) in statements {
        assert!(statement.starts_with("-- "), "{name} has no header");
        let prepare = format!("PREPARE {name} AS {statement}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_and_every_column_has_a_comment() {
    let database = Database::migrated().await;
    let bare: Vec<(String,)> = sqlx::query_as(
        "SELECT c.relname || coalesce('.' || a.attname, '')
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a
            ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE n.nspname = 'postrider' AND c.relkind IN ('r', 'p', 'v', 'm')
           AND NOT c.relispartition AND c.relname <> 'migrations'
           AND (obj_description(c.oid, 'pg_class') IS NULL
             OR col_description(c.oid, a.attnum) IS NULL)",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    assert_eq!(bare, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_and_at_the_same_time_changes_nothing() {
    let database = Database::empty().await;
    let stores = [1000, 1000, 1000].map(|size| database.store(size));
    let results = tokio::join!(
        stores[0].migrate(),
        stores[1].migrate(),
        stores[2].migrate()
    );
    for result in [results.0, results.1, results.2, stores[0].migrate().await] {
        result.unwrap();
    }
    assert!(!stores[0].partitions_run_short().await.unwrap());
}
