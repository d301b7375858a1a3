//! A DNS server over UDP that answers from a table.

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::UdpSocket, task::JoinSet};

/// What is known of a name.
#[derive(Clone, Debug, Default)]
struct Entry {
    mx: Vec<(u16, String)>,
    addresses: Vec<IpAddr>,
    fails: bool,
}

/// The names that a server knows; of every other it says that it does not exist.
#[derive(Clone, Debug, Default)]
pub struct Table(HashMap<String, Entry>);

impl Table {
    /// A domain with MX hosts; the host `.` is the null MX.
    pub fn mx(mut self, domain: &str, hosts: &[(u16, &str)]) -> Self {
        let hosts = hosts.iter().map(|(preference, host)| (*preference, (*host).to_owned()));
        self.0.entry(domain.to_owned()).or_default().mx.extend(hosts);
        self
    }

    /// A host with an address.
    pub fn host(mut self, name: &str, address: IpAddr) -> Self {
        self.0.entry(name.to_owned()).or_default().addresses.push(address);
        self
    }

    /// A name whose servers fail.
    pub fn failing(mut self, name: &str) -> Self {
        self.0.entry(name.to_owned()).or_default().fails = true;
        self
    }

    fn answer(&self, query: &Message) -> Message {
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        let Some(question) = query.queries.first() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        answer.add_query(question.clone());
        let name = question.name().to_lowercase().to_ascii();
        let Some(entry) = self.0.get(name.trim_end_matches('.')) else {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return answer;
        };
        if entry.fails {
            answer.metadata.response_code = ResponseCode::ServFail;
            return answer;
        }
        let records: Vec<RData> = match question.query_type() {
            RecordType::MX => entry
                .mx
                .iter()
                .map(|(preference, host)| RData::MX(rdata::MX::new(*preference, Name::from_ascii(host).unwrap())))
                .collect(),
            RecordType::A => entry
                .addresses
                .iter()
                .filter_map(|address| match address {
                    IpAddr::V4(v4) => Some(RData::A(rdata::A(*v4))),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        for data in records {
            answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        }
        answer
    }
}

/// A server that runs. Ends with its value.
pub struct DnsServer {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl DnsServer {
    /// Answers from this table on a free port of loopback.
    pub async fn start(table: Table) -> Self {
        let socket = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                let Ok(bytes) = table.answer(&query).to_vec() else { continue };
                // Who asked may have gone.
                let _ = socket.send_to(&bytes, from).await;
            }
        });
        Self { address, _task: task }
    }

    /// Where it listens, as configuration names a resolver.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}
