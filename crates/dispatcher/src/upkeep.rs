//! What time does to a database: expiry, old keys, the next days' partitions.

use crate::tenure::Tenure;
use store::StoreError;

/// Queues swept by one statement.
const QUEUES_AT_ONCE: usize = 100;
/// Most idempotency keys removed by one statement.
const KEYS_AT_ONCE: u32 = 10_000;

/// Closes what outlived its time to live in queues that release little or nothing.
pub(crate) async fn expire(tenure: &Tenure<'_>) {
    let mut pace = tenure.pace("the expiry sweep", tenure.config.expire_interval, None);
    while pace.turn().await {
        pace.after(expire_all(tenure).await);
    }
}

async fn expire_all(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    let mut closed = 0_u64;
    for queues in tenure.store.all_queues().await?.chunks(QUEUES_AT_ONCE) {
        while !tenure.is_stopping() {
            let found = tenure.store.expire(queues, tenure.config.expire_batch).await?;
            closed += found as u64;
            tenure.metrics.expired.inc_by(found as u64);
            if found < tenure.config.expire_batch as usize {
                break;
            }
        }
    }
    if closed > 0 {
        tracing::info!(messages = closed, "closed messages whose time to live was over");
    }
    Ok(())
}

/// Forgets idempotency keys whose time is over.
pub(crate) async fn idempotency(tenure: &Tenure<'_>) {
    let what = "the removal of old idempotency keys";
    let mut pace = tenure.pace(what, tenure.config.idempotency_interval, None);
    while pace.turn().await {
        pace.after(forget_all(tenure).await);
    }
}

async fn forget_all(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    while !tenure.is_stopping() {
        let removed = tenure.store.forget_idempotency(tenure.store.now().await?, KEYS_AT_ONCE).await?;
        if removed < u64::from(KEYS_AT_ONCE) {
            break;
        }
    }
    Ok(())
}

/// Makes partitions ahead of time and watches the default ones, which should stay empty; forgets old changes of pace
/// and posts of providers.
pub(crate) async fn partitions(tenure: &Tenure<'_>) {
    let mut pace = tenure.pace("the upkeep of partitions", tenure.config.partition_interval, None);
    while pace.turn().await {
        pace.after(keep_partitions(tenure).await);
    }
}

async fn keep_partitions(tenure: &Tenure<'_>) -> Result<(), StoreError> {
    tenure.store.forget_tempo_changes(tenure.config.tempo_history).await?;
    tenure.store.forget_posts().await?;
    let (made, strayed) = tenure.store.keep_partitions(tenure.config.partition_days).await?;
    tenure.metrics.strayed.set(strayed);
    if made > 0 {
        tracing::info!(partitions = made, "made partitions");
    }
    if strayed > 0 {
        tracing::warn!(rows = strayed, "rows lie in the default partitions; were partitions made too late?");
    }
    Ok(())
}
