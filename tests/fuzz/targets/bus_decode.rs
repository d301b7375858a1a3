//! Any body that a foreign publisher may have written: it is read or refused, and what was read can be used.
#![no_main]

use bus::{Payload, RenderChunk, SendChunk, cut_jobs, cut_letters};
use bytes::Bytes;
use domain::{ShardCount, Slot};
use libfuzzer_sys::fuzz_target;

fn usable<P: Payload + PartialEq + std::fmt::Debug>(chunk: &P) {
    let body = chunk.encode().expect("what was read can be written");
    assert_eq!(&P::decode(1, &body).expect("and read again"), chunk);
    assert_eq!(chunk.dedup_key().len(), 32);
    for job in chunk.jobs() {
        assert_eq!(Slot::from_code(job.slot.code()), Some(job.slot));
        assert_eq!(job.slot.to_string().parse(), Ok(job.slot));
    }
}

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    if let Ok(chunk) = RenderChunk::decode(1, &body) {
        usable(&chunk);
        let members = chunk.items.len();
        let cut = cut_jobs(chunk.items, ShardCount::default());
        assert_eq!(cut.iter().map(|(_, chunk)| chunk.items.len()).sum::<usize>(), members);
    }
    if let Ok(chunk) = SendChunk::decode(1, &body) {
        usable(&chunk);
        let members = chunk.items.len();
        let cut = cut_letters(chunk.items, ShardCount::default());
        assert_eq!(cut.iter().map(|(_, chunk)| chunk.items.len()).sum::<usize>(), members);
    }
});
