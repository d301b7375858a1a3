//! Which trace a message belongs to: what of W3C Trace Context (level 1) goes along with mail.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The place in a trace that something came from: 16 octets of trace, 8 of span, and whether it is sampled.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// What is no `traceparent` (W3C Trace Context, 3.2), or names no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no traceparent")]
pub struct TraceContextError;

impl TraceContext {
    /// As it is stored and as it travels, in octets.
    pub const OCTETS: usize = 25;

    /// `None` when either id is zero, which names nothing.
    pub fn new(trace: [u8; 16], span: [u8; 8], sampled: bool) -> Option<Self> {
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled })
    }

    /// The trace.
    pub const fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The span in it.
    pub const fn span(&self) -> [u8; 8] {
        self.span
    }

    /// Whether whoever began it records it.
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The same place, for what is not told unless it fails.
    #[must_use]
    pub const fn unsampled(self) -> Self {
        Self { sampled: false, ..self }
    }

    /// The trace as people and tools write it: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// As it is stored and as it travels.
    pub fn to_octets(&self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        octets[..16].copy_from_slice(&self.trace);
        octets[16..24].copy_from_slice(&self.span);
        octets[24] = u8::from(self.sampled);
        octets
    }

    /// What [`Self::to_octets`] made; `None` for anything else.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; Self::OCTETS] = octets.try_into().ok()?;
        let (trace, rest) = octets.split_first_chunk()?;
        let (span, _) = rest.split_first_chunk()?;
        Self::new(*trace, *span, octets[24] & 1 == 1)
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        for nibble in [octet >> 4, octet & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

fn octets<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    // Upper case is not allowed (3.2.2.2).
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut octets = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = digit(&pair[0])? << 4 | digit(&pair[1])?;
    }
    Some(octets)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    /// Reads a `traceparent`. Of a version above 00, what comes behind the flags is passed over (3.2.4).
    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let bytes = text.as_bytes();
        let field = |from: usize, to: usize| bytes.get(from..to).ok_or(TraceContextError);
        let [version] = octets(field(0, 2)?).ok_or(TraceContextError)?;
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let ends = bytes.len() == 55 || version > 0 && bytes.get(55) == Some(&b'-');
        if version == 0xff || !dashes || !ends {
            return Err(TraceContextError);
        }
        let trace = octets(field(3, 35)?).ok_or(TraceContextError)?;
        let span = octets(field(36, 52)?).ok_or(TraceContextError)?;
        let [flags] = octets(field(53, 55)?).ok_or(TraceContextError)?;
        Self::new(trace, span, flags & 1 == 1).ok_or(TraceContextError)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_octets())
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octets;
        impl de::Visitor<'_> for Octets {
            type Value = TraceContext;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("25 octets of trace context")
            }

            fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> Result<TraceContext, E> {
                TraceContext::from_octets(octets).ok_or_else(|| E::invalid_length(octets.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_back_in_every_form() {
        let context: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        assert_eq!(TraceContext::from_octets(&context.to_octets()), Some(context));
        let later: TraceContext = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02-more".parse().unwrap();
        assert!(!later.is_sampled());
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-1",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceContextError), "{text}");
        }
        assert_eq!(TraceContext::from_octets(&[1; 24]), None);
    }
}
