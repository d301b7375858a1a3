//! Postgres: schema, migrations and every statement.
