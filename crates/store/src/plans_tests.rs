//! No listing and no count of admission looks through a table, or sorts one: what a page costs is what is on it.
#![allow(clippy::unwrap_used)]

use sqlx::Row;

use crate::Store;

const QUERIES: [&str; 14] = [
    "SELECT * FROM microvms WHERE account = 'a' AND seq < 9 ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM microvms WHERE account = 'a' AND seq < 9 AND image_arn = 'i' ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM microvms WHERE account = 'a' AND seq < 9 AND major = 1 AND minor = 0 ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM microvms WHERE account = 'a' AND seq < 9 AND image_arn = 'i' AND major = 1 AND minor = 0 ORDER BY seq DESC LIMIT 3",
    crate::images::LIST_IMAGES,
    "SELECT * FROM image_versions WHERE image = 'i' AND state <> 'DELETED' AND seq < 9 ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM builds WHERE image = 'i' AND major = 1 AND minor = 0 AND seq < 9 ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM network_connectors WHERE account = 'a' AND seq < 9 AND state <> 'DELETED' ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM network_connectors WHERE account = 'a' AND seq < 9 AND state = 's' ORDER BY seq DESC LIMIT 3",
    "SELECT * FROM network_connector_versions WHERE connector = 'c' AND state <> 'DELETED' AND seq < 9 ORDER BY seq DESC LIMIT 3",
    crate::limits::ACCOUNT,
    crate::limits::MICROVMS,
    "SELECT count(*) AS used FROM images WHERE account = 'a' AND state <> 'DELETED'",
    "DELETE FROM client_tokens WHERE created_at < 9",
];

async fn plan(store: &Store, sql: &str) -> String {
    let rows = sqlx::query(&format!("EXPLAIN QUERY PLAN {sql}")).fetch_all(&store.reader).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn every_listing_follows_an_index() {
    let store = Store::in_memory().await.unwrap();
    for sql in QUERIES {
        let plan = plan(&store, sql).await;
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE") && plan.contains("SEARCH"), "{sql}\n  {plan}");
    }
}

#[tokio::test]
async fn the_hosts_memory_is_summed_over_an_index_of_what_runs() {
    let store = Store::in_memory().await.unwrap();
    let plan = plan(&store, crate::limits::HOST).await;
    assert!(plan.contains("microvms_in_memory") && plan.contains("builds_in_memory"), "{plan}");
}
