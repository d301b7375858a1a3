//! Ends the Postgres and NATS that tests share, and that go on running between them: what `make test` calls last.

#[tokio::main]
async fn main() -> Result<(), mailfleet_testkit::LaunchError> {
    mailfleet_testkit::shared::stop().await
}
