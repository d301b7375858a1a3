//! Any text as a subject: what is taken is written back the same, letter by letter.
#![no_main]

use bus::{EventSubject, Prefix, RenderSubject, SendSubject, WorkSubject};
use libfuzzer_sys::fuzz_target;

fn check<S: WorkSubject + PartialEq>(prefix: &Prefix, text: &str) {
    if let Ok(subject) = S::parse(prefix, text) {
        assert_eq!(subject.subject(prefix), text);
        assert!(S::parse(prefix, &format!("{text}.x")).is_err());
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let prefixes = [Some(Prefix::default()), text.split('.').next().and_then(|token| token.parse().ok())];
    for prefix in prefixes.into_iter().flatten() {
        check::<RenderSubject>(&prefix, text);
        check::<SendSubject>(&prefix, text);
        if let Ok(event) = EventSubject::parse(&prefix, text) {
            assert_eq!(event.subject(&prefix), text);
            assert!(!event.kind().contains(['.', '*', '>', ' ']));
        }
    }
});
