//! Databases as a whole: made from a template and dropped, for tests and private instances.

use crate::StoreError;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

async fn connect(url: &str) -> Result<PgConnection, StoreError> {
    PgConnection::connect(url).await.map_err(|source| StoreError::Connect { source })
}

/// A name that can stand in a statement: lower-case letters, digits and underscores.
fn checked(name: &str) -> Result<&str, StoreError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain && !name.is_empty() && name.len() <= 63 {
        Ok(name)
    } else {
        Err(StoreError::Corrupt { table: "pg_database", column: "datname", id: name.chars().take(64).collect() })
    }
}

/// Makes a database, as a copy of `template` when one is given; `false` when it was there.
///
/// # Errors
/// When the server cannot be reached, or somebody is connected to the template.
pub async fn create_database(url: &str, name: &str, template: Option<&str>) -> Result<bool, StoreError> {
    let mut conn = connect(url).await?;
    let from = match template {
        Some(template) => format!(" template {}", checked(template)?),
        None => String::new(),
    };
    let made = sqlx::query(AssertSqlSafe(format!("create database {}{from}", checked(name)?))).execute(&mut conn).await;
    conn.close().await?;
    match made {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => Ok(false),
        Err(source) => Err(StoreError::Statement { source }),
    }
}

/// Drops a database and ends whoever is connected to it; nothing when it is not there.
///
/// # Errors
/// When the server cannot be reached.
pub async fn drop_database(url: &str, name: &str) -> Result<(), StoreError> {
    let mut conn = connect(url).await?;
    sqlx::query(AssertSqlSafe(format!("drop database if exists {} with (force)", checked(name)?)))
        .execute(&mut conn)
        .await?;
    conn.close().await?;
    Ok(())
}

/// The databases whose name begins with `prefix`.
///
/// # Errors
/// When the server cannot be reached.
pub async fn databases(url: &str, prefix: &str) -> Result<Vec<String>, StoreError> {
    let mut conn = connect(url).await?;
    let names = sqlx::query_scalar("select datname::text from pg_database where starts_with(datname::text, $1)")
        .bind(prefix)
        .fetch_all(&mut conn)
        .await?;
    conn.close().await?;
    Ok(names)
}
