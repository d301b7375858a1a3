//! Arbitrary valid messages for every call.

use super::*;
use prost::Message;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What an answer must never say: that something went wrong which was not the caller's fault.
const OUR_FAULT: [Code; 5] = [Code::Unknown, Code::Internal, Code::DataLoss, Code::Cancelled, Code::Unimplemented];

/// Makes messages; the same seed makes the same ones.
struct Dice(StdRng);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0.random_range(0..most)
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn text(&mut self, words: &[String]) -> String {
        match self.below(12) {
            0 => String::new(),
            1 => "a\0b\u{1}\u{7f}".to_owned(),
            2 => "é\u{202e}😀\u{feff}ß\u{10ffff}".to_owned(),
            3 => "x".repeat(1 << self.below(14)),
            4 => "{{ a|b('%s') }} {% for x in y %} ' -- ; \\ \" <mj-text>".to_owned(),
            5 => "[".repeat(200),
            6 => r#"{"a":{"b":[1e400,-0,null,"\u0000"]}}"#.to_owned(),
            _ => self.of(words).clone(),
        }
    }

    fn value(&mut self, field: &FieldDescriptor, words: &[String], depth: usize) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.below(2) == 1),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::I32(*self.of(&[0, 1, -1, 999_999_999, i32::MAX, i32::MIN]))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::I64(*self.of(&[0, 1, -1, 1_700_000_000, 253_402_300_799, 253_402_300_800, i64::MAX, i64::MIN]))
            }
            Kind::Uint32 | Kind::Fixed32 => Value::U32(*self.of(&[0, 1, 2, 500, 501, u32::MAX])),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(*self.of(&[0, 1, 2, i64::MAX as u64, u64::MAX])),
            Kind::Float => Value::F32(*self.of(&[0.0, f32::NAN, f32::INFINITY])),
            Kind::Double => Value::F64(*self.of(&[0.0, f64::NAN, f64::INFINITY])),
            Kind::String => Value::String(self.text(words)),
            Kind::Bytes => Value::Bytes(self.text(words).into_bytes().into()),
            Kind::Enum(_) => Value::EnumNumber(*self.of(&[0, 1, 2, 3, 99, -1])),
            Kind::Message(message) => Value::Message(self.message(&message, words, depth + 1)),
        }
    }

    fn message(&mut self, descriptor: &MessageDescriptor, words: &[String], depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if depth > 6 || self.below(4) == 0 {
                continue;
            }
            let value = if field.is_map() {
                let entries = (0..self.below(4)).map(|_| {
                    let Kind::Message(entry) = field.kind() else { unreachable!("an entry is a message") };
                    let value = entry.map_entry_value_field();
                    (MapKey::String(self.text(words)), self.value(&value, words, depth))
                });
                Value::Map(entries.collect())
            } else if field.cardinality() == Cardinality::Repeated {
                Value::List((0..self.below(4)).map(|_| self.value(&field, words, depth)).collect())
            } else {
                self.value(&field, words, depth)
            };
            message.set_field(&field, value);
        }
        message
    }

    /// Changes one field, here or further in.
    fn spoil(&mut self, message: &mut DynamicMessage, words: &[String]) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        if fields.is_empty() {
            return;
        }
        let field = self.of(&fields).clone();
        match message.get_field_mut(&field) {
            Value::Message(inner) if self.below(3) > 0 => self.spoil(inner, words),
            Value::List(list) if self.below(3) > 0 => match list.first_mut() {
                Some(Value::Message(inner)) => self.spoil(inner, words),
                _ => list.push(self.value(&field, words, 0)),
            },
            Value::Map(_) => {}
            _ => {
                let other = self.message(&message.descriptor(), words, 0);
                message.set_field(&field, other.get_field(&field).into_owned());
            }
        }
    }
}

/// Ids, names and tokens that lead somewhere, so that not every call ends at its first look.
fn words(own: &Things) -> Vec<String> {
    let mut words: Vec<String> = [
        "a@example.org",
        "news@example.com",
        "example.com",
        "Hello {{ name }}",
        "<p>Hello</p>",
        "<mjml><mj-body/></mjml>",
        r#"{"name":"you"}"#,
        "de-CH",
        "delivered",
        "google",
        "text/plain",
        "a.txt",
        "X-Custom",
        "h0",
        "ada",
    ]
    .map(str::to_owned)
    .into();
    let Things { tenant, key, message, batch, campaign, dead, tokens, .. } = own;
    words.extend([tenant, key, message, batch, campaign, dead].map(Clone::clone));
    words.extend(tokens.values().cloned());
    words.push(format!("{MARK}-welcome"));
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_good_answer_to_whatever_it_is_given() {
    let setting = |name: &str, default: u64| {
        service::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let (cases, seed) = (setting("MAILFLEET_API_CASES", 25), setting("MAILFLEET_API_SEED", 1));
    let house = House::start_with(|config| config.watch.heartbeat = Duration::from_millis(5)).await;
    let own = furnish(&house).await;
    let words = words(&own);
    let rows = isolation::rows(&own);
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let mut answered = std::collections::BTreeSet::new();
    for (name, path, input) in calls() {
        for case in 0..cases {
            // Half are made from nothing; the others are good ones but for a few fields, which get further.
            let message = if case % 2 == 0 {
                let mut message = DynamicMessage::decode(input.clone(), rows[name.as_str()].body.clone()).unwrap();
                for _ in 0..dice.below(4) {
                    dice.spoil(&mut message, &words);
                }
                message
            } else {
                dice.message(&input, &words, 0)
            };
            let is_of_the_fleet = name.starts_with("Tenant") || name.starts_with("Delivery");
            let key = if is_of_the_fleet { &house.admin } else { &house.key };
            match house.call(&path, Some(key), message.encode_to_vec().into()).await {
                Ok(_) => {
                    answered.insert(name.clone());
                }
                Err(status) => {
                    let told = reason(&status);
                    let good = !OUR_FAULT.contains(&status.code()) && !told.is_empty() && told != "INTERNAL";
                    assert!(good, "{name}, seed {seed}: {status:?} to {message:?}");
                }
            }
        }
    }
    assert!(answered.len() > 30, "so few calls get through: {answered:?}");
    house.mail().send_message(send("a@example.org", "")).await.expect("it goes on");
    assert!(house.store.audit().await.unwrap().is_clean());
}
