//! Variables as JSON text: looked through once, without making a tree of it, and passed on as it came.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::{cell::Cell, fmt};

/// Most octets of one recipient's variables.
pub const MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting, the object itself included.
pub const MAX_DEPTH: usize = 32;

/// Why a text is no object of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariablesFault {
    /// Over the limit of octets.
    TooLong,
    /// Not JSON, or JSON with something that no text or number can hold.
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// Nested too deep.
    TooDeep,
    /// A text holds U+0000.
    Nul,
}

impl VariablesFault {
    /// The problem and the fix.
    pub const fn description(self) -> &'static str {
        match self {
            Self::TooLong => "are too long; give at most 65536 octets",
            Self::NotJson => "are not valid JSON; give a JSON object",
            Self::NotAnObject => "are not a JSON object; give {\"name\": value, ...}",
            Self::TooDeep => "are nested too deep; give at most 32 levels",
            Self::Nul => "hold the character U+0000; leave it out",
        }
    }
}

/// Looks through a JSON object; an empty text stands for an empty one.
///
/// # Errors
/// The first fault found.
pub fn json_object(text: &str) -> Result<(), VariablesFault> {
    if text.len() > MAX_BYTES {
        return Err(VariablesFault::TooLong);
    }
    let trimmed = text.trim_ascii_start();
    if trimmed.is_empty() || text == "{}" {
        return if text.is_empty() || text == "{}" { Ok(()) } else { Err(VariablesFault::NotJson) };
    }
    let found = Cell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let looked = Look { depth: MAX_DEPTH, found: &found }.deserialize(&mut json).and_then(|()| json.end());
    match (looked, found.get()) {
        (Err(_), Some(fault)) => Err(fault),
        (Err(_), None) => Err(VariablesFault::NotJson),
        (Ok(()), _) if !trimmed.starts_with('{') => Err(VariablesFault::NotAnObject),
        (Ok(()), _) => Ok(()),
    }
}

/// Visits every value of a text; decodes all texts, so that a lone surrogate is found, and keeps nothing.
struct Look<'a> {
    depth: usize,
    found: &'a Cell<Option<VariablesFault>>,
}

impl Look<'_> {
    fn fail<E: Error>(&self, fault: VariablesFault) -> E {
        self.found.set(Some(fault));
        E::custom("refused")
    }

    fn deeper<E: Error>(&self) -> Result<Look<'_>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Look { depth, found: self.found }),
            None => Err(self.fail(VariablesFault::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(self.fail(VariablesFault::Nul)) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        loop {
            if items.next_element_seed(self.deeper()?)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(Look { depth: 0, found: self.found })?.is_some() {
            entries.next_value_seed(self.deeper()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_taken_and_nothing_else() {
        for good in ["", "{}", " {\"a\": [1, 2.5, null, true, \"x\"]} ", r#"{"emoji":"\ud83d\ude00"}"#] {
            assert_eq!(json_object(good), Ok(()), "{good}");
        }
        for bad in ["[]", "1", "null", "\"{}\""] {
            assert_eq!(json_object(bad), Err(VariablesFault::NotAnObject), "{bad}");
        }
        for bad in
            ["{", "{} {}", "{'a':1}", "{\"a\":NaN}", "{\"a\":1e999}", "  ", r#"{"a":"\ud800"}"#, "{\"a\":\"\n\"}"]
        {
            assert_eq!(json_object(bad), Err(VariablesFault::NotJson), "{bad}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(json_object(&deep(MAX_DEPTH - 1)), Ok(()));
        assert_eq!(json_object(&deep(MAX_DEPTH + 1)), Err(VariablesFault::TooDeep));
        assert_eq!(json_object(&deep(20_000)), Err(VariablesFault::TooDeep));
        assert_eq!(json_object(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES))), Err(VariablesFault::TooLong));
        assert_eq!(json_object(r#"{"a":"\u0000"}"#), Err(VariablesFault::Nul));
        assert_eq!(json_object(r#"{"\u0000":1}"#), Err(VariablesFault::Nul));
    }
}
