//! What a mail passes through on its way: addresses, the chunks on the broker, the form on the wire, and one SMTP
//! transaction on an open connection, both ends of it and the replies' parsing included.

#![allow(clippy::unwrap_used, missing_docs)]

use bus::{Job, Letter, Payload, RenderChunk, SendChunk};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use domain::{BatchId, ContentId, EnvelopeSender, Lane, Mailbox, MessageId, SiteId, TenantId};
use service::clock;
use smtp::{
    TlsContext,
    client::{Attempt, ClientConfig, Connection, Envelope, TlsPolicy},
    wire_form,
};
use std::hint::black_box;
use testkit::sink::{Sink, SinkConfig, SinkStore};

const JOBS: u32 = 100;
/// As many mails of 10 KB as one chunk takes.
const LETTERS: u32 = 25;
const VARIABLES: &[u8] = br#"{"name":"Ada 7","order":"B-7","city":"Turku","street":"Quay 7","item":"Lamp","size":"M","colour":"blue","price":"19.90","date":"2 May","clerk":"Noor"}"#;

fn mime() -> Bytes {
    let head = "From: Bench <shop@bench.test>\r\nMessage-ID: <7@bench.test>\r\nSubject: Ada 7\r\n\r\n";
    let line = "a line of seventy-six characters, as most of them are when they are wrapped.\r\n";
    format!("{head}{}", line.repeat(125)).into()
}

fn job(index: u32) -> Job {
    let now = clock::now();
    let batch = BatchId::new(now);
    let site = SiteId::of_domain("receiver.test");
    Job {
        message: MessageId::of_batch(batch, index),
        release: 1,
        attempt: 0,
        bus_epoch: 1,
        queue: 1,
        tenant: TenantId::new(now),
        campaign: None,
        batch,
        content: ContentId::of(TenantId::new(now), &[b"bench"]),
        recipient: format!("r{index}@receiver.test").parse().unwrap(),
        slot: site.slot(),
        site,
        lane: Lane::Bulk,
        variables: Bytes::from_static(VARIABLES),
        overrides: Bytes::new(),
        expires_at: now,
        alone: false,
        trace: None,
    }
}

fn letter(index: u32) -> Letter {
    let sender = EnvelopeSender(Some("bounce+1@bounces.bench.test".parse().unwrap()));
    Letter {
        job: Job { variables: Bytes::new(), ..job(index) },
        sender,
        mime: Some(mime()),
        smtputf8: false,
        sandbox: false,
    }
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("parse/address", |bench| {
        bench.iter(|| black_box("first.last+news@mail.example.com").parse::<Mailbox>().unwrap());
    });
    criterion.bench_function("parse/address_international", |bench| {
        bench.iter(|| black_box("jörg@büro.example").parse::<Mailbox>().unwrap());
    });
    let mail = mime();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(mail.len() as u64));
    group.bench_function("stuff_dots", |bench| {
        let mut out = Vec::with_capacity(mail.len() + 64);
        bench.iter(|| {
            out.clear();
            wire_form(black_box(&mail), &mut out);
        });
    });
    group.finish();
}

/// A whole chunk an iteration; the throughput is its members'.
fn chunks(criterion: &mut Criterion) {
    let render = RenderChunk { items: (0..JOBS).map(job).collect() };
    let send = SendChunk { items: (0..LETTERS).map(letter).collect() };
    let (render_body, send_body) = (render.encode().unwrap(), send.encode().unwrap());
    let mut group = criterion.benchmark_group("chunk_of_100_jobs");
    group.throughput(Throughput::Elements(JOBS.into()));
    group.bench_function("encode", |bench| bench.iter(|| black_box(&render).encode().unwrap()));
    group.bench_function("decode", |bench| {
        bench.iter(|| RenderChunk::decode(RenderChunk::VERSION, black_box(&render_body)).unwrap());
    });
    group.bench_function("dedup_key", |bench| bench.iter(|| black_box(&render).dedup_key()));
    group.finish();
    let mut group = criterion.benchmark_group("chunk_of_25_letters");
    group.throughput(Throughput::Elements(LETTERS.into()));
    group.bench_function("encode", |bench| bench.iter(|| black_box(&send).encode().unwrap()));
    group.bench_function("decode", |bench| {
        bench.iter(|| SendChunk::decode(SendChunk::VERSION, black_box(&send_body)).unwrap());
    });
    group.finish();
}

fn transaction(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = SinkConfig { store: SinkStore::Discard, ..SinkConfig::default() };
    let (_sink, mut connection) = runtime.block_on(async {
        let sink = Sink::start(config).await.unwrap();
        let client = ClientConfig {
            tls: TlsPolicy::None,
            ..ClientConfig::new("bench.test".parse().unwrap(), TlsContext::new().unwrap())
        };
        let connection = Connection::connect(sink.addr(), "sink.test", &client).await.unwrap();
        (sink, connection)
    });
    let sender = EnvelopeSender(Some("bounce+1@bounces.bench.test".parse().unwrap()));
    let mail = mime();
    let mut number = 0_u64;
    criterion.bench_function("smtp/transaction_both_ends", |bench| {
        bench.iter_batched(
            || {
                number += 1;
                format!("r{number}@receiver.test").parse::<Mailbox>().unwrap()
            },
            |recipient| {
                let envelope = Envelope { sender: &sender, recipient: &recipient, smtputf8: false };
                let attempt = runtime.block_on(connection.send(&envelope, &mail, || Ok(())));
                assert!(matches!(attempt, Attempt::Delivered(_)));
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, parse, chunks, transaction);
criterion_main!(benches);
