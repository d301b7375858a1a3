//! Questions to DNS, with a limit to the wait.

use crate::ResolverSetupError;
use hickory_resolver::{
    TokioResolver,
    net::NetError,
    proto::rr::{RData, RecordType},
};
use std::{net::IpAddr, time::Duration};

/// A question that DNS did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer about {name}: {reason}")]
pub struct NoAnswer {
    /// What was asked about.
    pub name: String,
    /// Why there is no answer.
    pub reason: Unanswered,
}

/// Why DNS did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nothing came within the time: this says nothing of the name.
    #[error("not in time")]
    TimedOut,
    /// Its servers cannot be reached, refuse, or answer with a failure.
    #[error("{0}")]
    Failed(String),
}

/// DNS with a limit to the wait.
pub struct Dns {
    resolver: TokioResolver,
    within: Duration,
}

impl Dns {
    /// Asks these servers, or the system's when none are given, each time anew: who looks what is published has just
    /// changed it.
    ///
    /// # Errors
    /// When a server is no address, or the system's configuration cannot be used.
    pub fn new(servers: &[String], within: Duration) -> Result<Self, ResolverSetupError> {
        Ok(Self { resolver: crate::resolver(servers, within, 0)?, within })
    }

    /// The records of a name; none when there are none, or there is no such name.
    ///
    /// # Errors
    /// When DNS does not answer.
    pub async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NoAnswer> {
        let failed = |reason| NoAnswer { name: name.to_owned(), reason };
        let asked = format!("{}.", name.trim_end_matches('.'));
        let found = tokio::time::timeout(self.within, self.resolver.lookup(asked, kind)).await;
        match found.map_err(|_| failed(Unanswered::TimedOut))? {
            Ok(found) => {
                let records = found.answers().iter().map(|record| record.data.clone());
                Ok(records.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
            Err(NetError::Timeout) => Err(failed(Unanswered::TimedOut)),
            Err(error) => Err(failed(Unanswered::Failed(error.to_string()))),
        }
    }

    /// The texts of a name, the strings of each put together.
    ///
    /// # Errors
    /// When DNS does not answer.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, NoAnswer> {
        let texts = self.records(name, RecordType::TXT).await?.into_iter().filter_map(|data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.collect())
    }
}

/// The name under which DNS keeps the name of an address (RFC 1035, 3.5; RFC 3596, 2.5).
pub fn reverse(address: IpAddr) -> String {
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

    /// What comes of a question to a server that does this with it.
    async fn asked(answer: impl Fn(&mut [u8]) -> bool + Send + 'static) -> Result<Vec<String>, NoAnswer> {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap().to_string();
        let dns = Dns::new(&[server], Duration::from_millis(200)).unwrap();
        let serve = async {
            let mut packet = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                if answer(&mut packet[..length]) {
                    socket.send_to(&packet[..length], from).await.unwrap();
                }
            }
        };
        tokio::select! {
            found = dns.txt("example.test") => found,
            () = serve => unreachable!("the server does not end"),
        }
    }

    /// Makes an answer of a question, with this code (RFC 1035, 4.1.1).
    fn answered(packet: &mut [u8], code: u8) -> bool {
        packet[2] |= 0x80;
        packet[3] = code;
        true
    }

    #[tokio::test]
    async fn silence_is_told_from_failure_and_neither_is_the_lack_of_a_record() {
        let silent = asked(|_| false).await.unwrap_err();
        assert!(matches!(silent.reason, Unanswered::TimedOut), "{silent}");
        let failing = asked(|packet| answered(packet, 2)).await.unwrap_err();
        assert!(matches!(failing.reason, Unanswered::Failed(_)), "{failing}");
        assert!(asked(|packet| answered(packet, 3)).await.unwrap().is_empty());
    }

    #[test]
    fn the_name_of_an_address_is_turned_around() {
        assert_eq!(reverse("192.0.2.1".parse().expect("is one")), "1.2.0.192.in-addr.arpa");
        let v6 = reverse("2001:db8::1".parse().expect("is one"));
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }
}
