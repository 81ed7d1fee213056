//! The migrations, in the binary.
//!
//! sqlx's macro would do the same, and with it come a second build of sqlx for
//! the compiler and its parser of every file; `build.rs` lists the files instead.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType};

/// Number, what it does, SQL; in order.
const FILES: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// As sqlx runs them.
pub(super) static MIGRATIONS: LazyLock<Vec<Migration>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(number, what, sql)| {
            Migration::new(
                *number,
                (*what).into(),
                MigrationType::Simple,
                sql.into_sql_str(),
                // In a transaction.
                false,
            )
        })
        .collect()
});
