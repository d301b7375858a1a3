use super::*;
use proptest::prelude::*;
use std::num::NonZeroU16;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("in range")
}

fn job(index: u32, domain: &str) -> Job {
    let batch = BatchId::new(at(0));
    let site = SiteId::of_domain(domain);
    Job {
        message: MessageId::of_batch(batch, index),
        release: 3,
        attempt: 1,
        bus_epoch: 2,
        queue: 9,
        tenant: TenantId::new(at(0)),
        campaign: index.is_multiple_of(2).then(|| CampaignId::new(at(0))),
        batch,
        content: ContentId::of(TenantId::new(at(0)), &[b"x"]),
        recipient: format!("p{index}@{domain}").parse().expect("an address"),
        slot: site.slot(),
        site,
        lane: Lane::Bulk,
        variables: Bytes::from_static(br#"{"name":"Ada"}"#),
        overrides: Bytes::new(),
        expires_at: at(3_600),
        alone: false,
        trace: None,
    }
}

fn letter(job: Job, mime: Option<Bytes>) -> Letter {
    Letter { job, sender: EnvelopeSender(None), mime, smtputf8: false, sandbox: false }
}

fn shards() -> ShardCount {
    ShardCount(NonZeroU16::new(8).expect("not zero"))
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn any_mailbox() -> impl Strategy<Value = Mailbox> {
    "[a-zé漢+._-]{1,20}@[a-zü0-9]{1,20}\\.[a-z]{2,6}".prop_filter_map("an address", |text| text.parse().ok())
}

fn id<T: std::str::FromStr>(number: u128) -> T {
    format!("{number:032x}").parse().ok().expect("32 hexadecimal digits")
}

fn any_job() -> impl Strategy<Value = Job> {
    let numbers = (any::<u32>(), any::<u16>(), any::<i64>(), any::<i64>());
    let slots: Vec<Slot> = Slot::all().collect();
    let place = (any::<String>(), prop::sample::select(Lane::ALL.to_vec()), prop::sample::select(slots));
    // Microseconds, over all years that a date can have.
    let times = -8_000_000_000_000_000_000..8_000_000_000_000_000_000_i64;
    let rest = (any_mailbox(), any_bytes(), times, any::<[bool; 2]>());
    (any::<[u128; 5]>(), numbers, place, rest).prop_map(|(ids, numbers, place, rest)| {
        let (release, attempt, bus_epoch, queue) = numbers;
        let (site, lane, slot) = place;
        let (recipient, variables, time, [has_campaign, alone]) = rest;
        Job {
            message: id(ids[0]),
            release,
            attempt,
            bus_epoch,
            queue,
            tenant: id(ids[1]),
            campaign: has_campaign.then(|| id(ids[2])),
            batch: id(ids[3]),
            content: id(ids[4]),
            recipient,
            site: SiteId::from_stored(site),
            lane,
            slot,
            overrides: if alone { variables.clone() } else { Bytes::new() },
            trace: TraceContext::new(ids[3].to_be_bytes(), ids[4].to_be_bytes()[..8].try_into().expect("is 8"), alone),
            variables,
            expires_at: DateTime::from_timestamp_micros(time).expect("in range"),
            alone,
        }
    })
}

fn any_letter() -> impl Strategy<Value = Letter> {
    (any_job(), prop::option::of(any_mailbox()), prop::option::of(any_bytes()), any::<[bool; 2]>()).prop_map(
        |(job, sender, mime, [smtputf8, sandbox])| Letter {
            job,
            sender: EnvelopeSender(sender),
            mime,
            smtputf8,
            sandbox,
        },
    )
}

/// A body after some octets were changed, left out or put in.
fn spoiled(body: &Bytes, changes: &[(prop::sample::Index, u8, u8)]) -> Bytes {
    let mut body = body.to_vec();
    for (at, octet, what) in changes {
        let at = at.index(body.len().max(1)).min(body.len().saturating_sub(1));
        match what % 4 {
            0 if !body.is_empty() => body[at] = *octet,
            1 if !body.is_empty() => {
                body.remove(at);
            }
            2 => body.truncate(at),
            _ => body.insert(at, *octet),
        }
    }
    body.into()
}

fn assert_usable<P: Payload + PartialEq + std::fmt::Debug>(version: u16, body: &Bytes) -> Result<(), TestCaseError> {
    let Ok(chunk) = P::decode(version, body) else { return Ok(()) };
    prop_assert_eq!(&P::decode(P::VERSION, &chunk.encode().expect("encodes")).expect("decodes"), &chunk);
    prop_assert_eq!(chunk.dedup_key().len(), 32);
    for job in chunk.jobs() {
        prop_assert_eq!(Slot::from_code(job.slot.code()), Some(job.slot));
        prop_assert_eq!(job.recipient.as_str().parse(), Ok(job.recipient.clone()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_chunk_is_read_as_it_was_written(
        jobs in prop::collection::vec(any_job(), 1..4), letters in prop::collection::vec(any_letter(), 1..4),
    ) {
        let (jobs, letters) = (RenderChunk { items: jobs }, SendChunk { items: letters });
        let body = jobs.encode().expect("encodes");
        prop_assert_eq!(RenderChunk::decode(1, &body).expect("decodes"), jobs);
        prop_assert!(SendChunk::decode(1, &body).is_err());
        let body = letters.encode().expect("encodes");
        prop_assert_eq!(SendChunk::decode(1, &body).expect("decodes"), letters);
        prop_assert!(RenderChunk::decode(1, &body).is_err());
    }

    #[test]
    fn a_spoiled_body_is_refused_or_can_be_used(
        job in any_job(), letter in any_letter(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        let body = RenderChunk { items: vec![job] }.encode().expect("encodes");
        assert_usable::<RenderChunk>(1, &spoiled(&body, &changes))?;
        let body = SendChunk { items: vec![letter] }.encode().expect("encodes");
        assert_usable::<SendChunk>(1, &spoiled(&body, &changes))?;
    }

    #[test]
    fn a_send_chunk_is_read_as_it_was_written(mimes in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 1..5)) {
        let item = |(index, mime): (usize, Option<Vec<u8>>)| {
            letter(job(u32::try_from(index).expect("few"), "example.org"), mime.map(Bytes::from))
        };
        let chunk = SendChunk { items: mimes.into_iter().enumerate().map(item).collect() };
        let body = chunk.encode().expect("encodes");
        prop_assert_eq!(SendChunk::decode(1, &body).expect("decodes"), chunk);
    }

    #[test]
    fn no_body_makes_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        let _either = (RenderChunk::decode(1, &body), SendChunk::decode(1, &body));
    }

    #[test]
    fn cutting_loses_nothing_and_keeps_every_bound(
        kinds in prop::collection::vec((0_usize..3, 0_usize..120_000, prop::bool::weighted(0.1)), 0..60),
    ) {
        let domains = ["gmail.com", "example.org", "yahoo.com"];
        let letters: Vec<_> = kinds.into_iter().enumerate().map(|(index, (domain, size, alone))| {
            let mut job = job(u32::try_from(index).expect("few"), domains[domain]);
            job.alone = alone;
            letter(job, Some(vec![b'x'; size].into()))
        }).collect();
        let chunks = cut_letters(letters.clone(), shards());
        let mut before: Vec<_> = letters.iter().map(|letter| letter.job.message).collect();
        let mut after: Vec<_> = chunks.iter().flat_map(|(_, chunk)| chunk.jobs()).map(|job| job.message).collect();
        before.sort_unstable();
        after.sort_unstable();
        prop_assert_eq!(before, after);
        for (subject, chunk) in &chunks {
            let bytes: usize = chunk.items.iter().map(Letter::weight).sum();
            prop_assert!(bytes <= MAX_MIME_BYTES || chunk.items.len() == 1);
            prop_assert!(chunk.items.len() <= MAX_LETTERS);
            prop_assert!(chunk.items.len() == 1 || chunk.jobs().all(|job| !job.alone));
            prop_assert!(chunk.jobs().all(|job| (job.lane, job.slot) == (subject.lane, subject.slot)));
            prop_assert_eq!(subject.shard, subject.slot.shard(shards()));
            prop_assert!(chunk.encode().expect("encodes").len() <= MAX_CHUNK_BYTES);
        }
    }
}

#[test]
fn a_render_chunk_is_read_as_it_was_written() {
    let chunk = RenderChunk { items: (0..100).map(|index| job(index, "example.org")).collect() };
    let body = chunk.encode().expect("encodes");
    assert_eq!(RenderChunk::decode(1, &body).expect("decodes"), chunk);
}

#[test]
fn mail_is_read_without_copying_it() {
    let mime = Bytes::from(vec![b'm'; 10_000]);
    let body = SendChunk { items: vec![letter(job(1, "example.org"), Some(mime))] }.encode().expect("encodes");
    let chunk = SendChunk::decode(1, &body).expect("decodes");
    let read = chunk.items[0].mime.as_ref().expect("has mail").as_ptr_range();
    let whole = body.as_ptr_range();
    assert!(whole.contains(&read.start) && read.end <= whole.end);
}

#[test]
fn a_field_that_a_newer_writer_added_is_passed_over() {
    #[derive(Serialize)]
    struct NewerJob {
        #[serde(flatten)]
        job: Job,
        colour: &'static str,
    }
    #[derive(Serialize)]
    struct NewerChunk {
        cut_at: u64,
        items: Vec<NewerJob>,
    }
    let newer = NewerChunk { cut_at: 7, items: vec![NewerJob { job: job(1, "example.org"), colour: "green" }] };
    let body = Bytes::from(rmp_serde::to_vec_named(&newer).expect("encodes"));
    let chunk = RenderChunk::decode(1, &body).expect("decodes");
    assert_eq!(chunk.items[0].recipient.as_str(), "p1@example.org");
}

#[test]
fn a_chunk_without_members_is_refused() {
    let body = RenderChunk { items: Vec::new() }.encode().expect("encodes");
    assert!(matches!(RenderChunk::decode(1, &body), Err(DecodeError::Empty)));
}

#[test]
fn the_same_work_has_the_same_key_and_another_release_another() {
    let chunk = |release| {
        let mut one = job(1, "example.org");
        one.batch = BatchId::from_uuid(one.tenant.as_uuid());
        one.message = MessageId::of_batch(BatchId::from_uuid(one.content.as_uuid()), 1);
        one.release = release;
        one
    };
    let one = chunk(3);
    let again = RenderChunk { items: vec![one.clone()] };
    let later = RenderChunk { items: vec![Job { release: 4, ..one.clone() }] };
    let rendered = SendChunk { items: vec![letter(one.clone(), None)] };
    let key = RenderChunk { items: vec![one] }.dedup_key();
    assert_eq!(key.len(), 32);
    assert_eq!(key, again.dedup_key());
    assert_ne!(key, later.dedup_key());
    assert_ne!(key, rendered.dedup_key());
}

#[test]
fn jobs_are_cut_at_a_hundred_and_by_slot() {
    let mut jobs: Vec<_> = (0..250).map(|index| job(index, "example.org")).collect();
    jobs.push(job(250, "gmail.com"));
    jobs.push(Job { alone: true, ..job(251, "example.org") });
    let sizes: Vec<_> = cut_jobs(jobs, shards()).iter().map(|(_, chunk)| chunk.items.len()).collect();
    assert_eq!(sizes, [100, 100, 50, 1, 1]);
}
