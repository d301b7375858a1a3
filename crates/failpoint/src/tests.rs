use super::*;
use std::time::Duration;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mailfleet-failpoint-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory is there");
        entries.map(|entry| entry.expect("can be read").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_list_is_in_order_and_names_nothing_twice() {
    assert!(NAMES.is_sorted_by(|one, next| one < next));
}

#[test]
fn an_action_is_what_its_file_says() {
    assert_eq!("kill\n".parse(), Ok(Action::Kill));
    assert_eq!("stop".parse(), Ok(Action::Stop));
    assert_eq!("panic".parse(), Ok(Action::Panic));
    assert_eq!("sleep 500ms".parse(), Ok(Action::Sleep(Duration::from_millis(500))));
    assert_eq!("skip 2 kill".parse(), Ok(Action::Skip { times: 2, then: "kill".to_owned() }));
    for text in ["", "die", "kill now", "sleep", "sleep long", "skip", "skip 2", "skip two kill", "skip 2 die"] {
        assert!(text.parse::<Action>().is_err(), "{text}");
    }
}

#[test]
fn an_armed_point_acts_once_after_what_it_skips() {
    let place = Place::new("once");
    hit!("sender.mail.before");
    arm(&place.0);
    hit!("sender.mail.before");
    put(&place.0, "sender.mail.before", "skip 2 panic");
    hit!("sender.mail.before", false);
    hit!("sender.mail.before");
    hit!("sender.mail.before");
    assert_eq!(place.names(), ["sender.mail.before"]);
    std::panic::catch_unwind(|| hit!("sender.mail.before")).expect_err("the third hit panics");
    assert!(place.names().is_empty());
    hit!("sender.mail.before");
}

fn sequence(faults: &Faults) -> Vec<Option<Fault>> {
    (0..10_000).map(|_| faults.next()).collect()
}

#[test]
fn faults_keep_their_rate_and_repeat_with_their_seed() {
    let (one, same, other) = (Faults::new(0.05, 7), Faults::new(0.05, 7), Faults::new(0.05, 8));
    let first = sequence(&one);
    assert_eq!(first, sequence(&same));
    assert_ne!(first, sequence(&other));
    let injected = one.injected().map(|(_, count)| count);
    assert!(injected.iter().all(|count| (100..250).contains(count)), "{injected:?}");
    let all = first.iter().flatten().count() as u64;
    assert_eq!(all, injected.iter().sum::<u64>());
    let apart = sequence(&one.apart("store"));
    assert_ne!(first, apart);
    let together = one.injected().map(|(_, count)| count).iter().sum::<u64>();
    assert_eq!(together, all + apart.iter().flatten().count() as u64);
}

#[test]
fn a_rate_may_have_a_seed_behind_it() {
    let read = |text: &str| sequence(&text.parse().expect("is a rate"));
    assert_eq!(read("0.01"), sequence(&Faults::new(0.01, 1)));
    assert_eq!(read("0.01, 7"), sequence(&Faults::new(0.01, 7)));
    assert!(read("0").iter().all(Option::is_none));
    assert!(read("1").iter().all(Option::is_some));
    for text in ["", "often", "1.5", "-0.1", "0.1,", "0.1,x"] {
        assert!(text.parse::<Faults>().is_err(), "{text}");
    }
}
