//! DNS as receivers ask it.

use hickory_resolver::{
    TokioResolver,
    proto::rr::{RData, RecordType},
};
use sender::ResolverSetupError;
use std::{net::IpAddr, time::Duration};

/// A question that DNS did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer about {name}: {reason}")]
pub(super) struct NoAnswer {
    name: String,
    reason: String,
}

/// DNS with a limit to the wait.
pub(super) struct Dns {
    resolver: TokioResolver,
    within: Duration,
}

impl Dns {
    /// Asks these servers, or the system's when none are given.
    pub(super) fn new(servers: &[String], within: Duration) -> Result<Self, ResolverSetupError> {
        Ok(Self { resolver: sender::resolver(servers, within)?, within })
    }

    /// The records of a name; none when there are none, or there is no such name.
    pub(super) async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NoAnswer> {
        let failed = |reason: String| NoAnswer { name: name.to_owned(), reason };
        let asked = format!("{}.", name.trim_end_matches('.'));
        let found = tokio::time::timeout(self.within, self.resolver.lookup(asked, kind)).await;
        match found.map_err(|_| failed("not in time".to_owned()))? {
            Ok(found) => {
                let records = found.answers().iter().map(|record| record.data.clone());
                Ok(records.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The texts of a name, the strings of each put together.
    pub(super) async fn txt(&self, name: &str) -> Result<Vec<String>, NoAnswer> {
        let texts = self.records(name, RecordType::TXT).await?.into_iter().filter_map(|data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.collect())
    }
}

/// The name under which DNS keeps the name of an address (RFC 1035, 3.5; RFC 3596, 2.5).
pub(super) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            digits.map(|digit| format!("{digit:x}.")).chain(["ip6.arpa".to_owned()]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_address_is_turned_around() {
        assert_eq!(reverse("192.0.2.1".parse().expect("is one")), "1.2.0.192.in-addr.arpa");
        let v6 = reverse("2001:db8::1".parse().expect("is one"));
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }
}
