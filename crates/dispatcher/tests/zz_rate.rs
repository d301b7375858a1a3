#![allow(missing_docs, clippy::print_stderr)]
mod common;
use common::{Call, House, bulk};
use domain::{Closing, Lane};
use mailfleet_dispatcher::DispatcherConfig;
use std::time::Instant;
use testkit::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_raw() {
    let mut house = House::new().await;
    let mut config = house.bus.config().clone();
    config.render_max_bytes = 64 << 20;
    house.bus = bus::Bus::connect(config).await.expect("broker");
    let domains = ["a.org", "b.org", "c.org", "d.org", "gmail.com", "outlook.com", "yahoo.com", "gmx.de"];
    for domain in domains {
        house.accept(Call { domain, ..bulk(2_500) }).await;
    }
    let config = DispatcherConfig { start_window: 4_000, ..DispatcherConfig::default() };
    let began = Instant::now();
    let dispatcher = house.dispatcher("one", config);
    until("released", async || dispatcher.released(Lane::Bulk) > 0).await;
    eprintln!("first after {:?}", began.elapsed());
    let began = Instant::now();
    until("released", async || dispatcher.released(Lane::Bulk) >= 20_000).await;
    eprintln!("20,000 released in {:?}", began.elapsed());
    eprintln!("given back {}", dispatcher.metrics.given_back.get_or_create(&[("lane", "bulk")]).get());
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_consumed() {
    let house = House::new().await;
    let domains = ["a.org", "gmail.com", "yahoo.com"];
    for domain in domains {
        house.accept(Call { domain, ..bulk(7_000) }).await;
    }
    let dispatcher = house.dispatcher("one", DispatcherConfig::default());
    house.wait_for_streams().await;
    let began = Instant::now();
    let mut puller = house.bus.render_jobs(Lane::Bulk);
    let mut seen = 0;
    while seen < 21_000 {
        let delivery = puller.next().await;
        let taken: Vec<_> = delivery.payload.items.iter().map(|job| job.message).collect();
        seen += house.store.refuse(&taken, Closing::Delivered).await.expect("closes");
        delivery.ack().await.expect("acks");
        if seen % 3_000 < 100 {
            eprintln!("{seen} after {:?}", began.elapsed());
        }
    }
    eprintln!("21,000 through in {:?}", began.elapsed());
    dispatcher.stop().await;
}
