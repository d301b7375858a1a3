//! A DNS server over UDP and TCP that answers from a table, as a recursive resolver does, or not at all.

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// So many aliases are followed for whoever asks.
const ALIASES: usize = 8;
/// Tries to have the same port for UDP and for TCP.
const PORTS: usize = 20;

/// What is wrong with the servers of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// They answer that they failed.
    Fails,
    /// They answer that they do not want to.
    Refuses,
    /// They do not answer.
    Silent,
    /// Over UDP they say that the answer is too long; over TCP they give it.
    Long,
    /// Over UDP they say that the answer is too long; over TCP they do not answer.
    LongAndSilent,
    /// They know nothing of the name and point elsewhere, without a word of authority.
    Lame,
    /// What they say is no DNS.
    Garbles,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
struct Entry {
    mx: Vec<(u16, String)>,
    addresses: Vec<IpAddr>,
    texts: Vec<String>,
    pointer: Option<String>,
    alias: Option<String>,
    trouble: Option<Trouble>,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Udp,
    Tcp,
}

/// The names that a server knows; of every other it says that it does not exist.
#[derive(Clone, Debug, Default)]
pub struct Table(HashMap<String, Entry>);

impl Table {
    fn entry(&mut self, name: &str) -> &mut Entry {
        self.0.entry(name.trim_end_matches('.').to_owned()).or_default()
    }

    /// A name that exists, with nothing to it.
    pub fn name(mut self, name: &str) -> Self {
        self.entry(name);
        self
    }

    /// A domain with MX hosts; the host `.` is the null MX.
    pub fn mx(mut self, domain: &str, hosts: &[(u16, &str)]) -> Self {
        let hosts = hosts.iter().map(|(preference, host)| (*preference, (*host).to_owned()));
        self.entry(domain).mx.extend(hosts);
        self
    }

    /// A host with an address.
    pub fn host(mut self, name: &str, address: IpAddr) -> Self {
        self.entry(name).addresses.push(address);
        self
    }

    /// A name with a TXT record, as strings of 255 octets at most.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.entry(name).texts.push(text.to_owned());
        self
    }

    /// A name of the reverse tree, and the host that it points to.
    pub fn pointer(mut self, name: &str, host: &str) -> Self {
        self.entry(name).pointer = Some(host.to_owned());
        self
    }

    /// A name that stands for another.
    pub fn alias(mut self, name: &str, target: &str) -> Self {
        self.entry(name).alias = Some(target.trim_end_matches('.').to_owned());
        self
    }

    /// A name whose servers fail.
    pub fn failing(self, name: &str) -> Self {
        self.troubled(name, Trouble::Fails)
    }

    /// A name whose servers have this trouble.
    pub fn troubled(mut self, name: &str, trouble: Trouble) -> Self {
        self.entry(name).trouble = Some(trouble);
        self
    }

    /// The octets that answer a question; `None`: no answer.
    fn reply(&self, query: &[u8], way: Way) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let name = query.queries.first().map(|question| question.name().to_lowercase().to_ascii()).unwrap_or_default();
        let trouble = self.0.get(name.trim_end_matches('.')).and_then(|entry| entry.trouble);
        let mut answer = self.answer(&query);
        match (trouble, way) {
            (Some(Trouble::Silent), _) | (Some(Trouble::LongAndSilent), Way::Tcp) => return None,
            (Some(Trouble::Garbles), _) => return Some(b"this is not DNS at all".to_vec()),
            (Some(Trouble::Fails), _) => answer.metadata.response_code = ResponseCode::ServFail,
            (Some(Trouble::Refuses), _) => answer.metadata.response_code = ResponseCode::Refused,
            (Some(Trouble::Lame), _) => {
                answer.metadata.authoritative = false;
                answer.metadata.recursion_available = false;
                let elsewhere = RData::NS(rdata::NS(Name::from_ascii("ns.elsewhere.test.").unwrap()));
                answer.add_authority(Record::from_rdata(Name::from_ascii("test.").unwrap(), 60, elsewhere));
            }
            (Some(Trouble::Long | Trouble::LongAndSilent), _) | (None, _) => {}
        }
        if matches!(trouble, Some(Trouble::Fails | Trouble::Refuses | Trouble::Lame)) {
            answer.answers.clear();
        }
        let octets = answer.to_vec().ok()?;
        let too_long = matches!(trouble, Some(Trouble::Long | Trouble::LongAndSilent))
            || octets.len() > usize::from(query.max_payload());
        if way == Way::Udp && too_long {
            answer.answers.clear();
            answer.metadata.truncation = true;
            return answer.to_vec().ok();
        }
        Some(octets)
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
        let mut name = question.name().clone();
        for _ in 0..ALIASES {
            let key = name.to_lowercase().to_ascii();
            let Some(entry) = self.0.get(key.trim_end_matches('.')) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                return answer;
            };
            let Some(target) = &entry.alias else {
                for data in entry.records(question.query_type()) {
                    answer.add_answer(Record::from_rdata(name.clone(), 60, data));
                }
                return answer;
            };
            let target = Name::from_ascii(format!("{target}.")).unwrap();
            answer.add_answer(Record::from_rdata(name, 60, RData::CNAME(rdata::CNAME(target.clone()))));
            name = target;
        }
        answer
    }
}

impl Entry {
    fn records(&self, kind: RecordType) -> Vec<RData> {
        let mx = self
            .mx
            .iter()
            .map(|(preference, host)| RData::MX(rdata::MX::new(*preference, Name::from_ascii(host).unwrap())));
        let addresses = self.addresses.iter().map(|address| match address {
            IpAddr::V4(v4) => RData::A(rdata::A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(rdata::AAAA(*v6)),
        });
        let texts =
            self.texts.iter().map(|text| RData::TXT(rdata::TXT::from_bytes(text.as_bytes().chunks(255).collect())));
        let pointer =
            self.pointer.iter().map(|host| RData::PTR(rdata::PTR(Name::from_ascii(format!("{host}.")).unwrap())));
        mx.chain(addresses).chain(texts).chain(pointer).filter(|data| data.record_type() == kind).collect()
    }
}

/// The table that counts.
#[derive(Clone)]
struct Shared(Arc<RwLock<Arc<Table>>>);

impl Shared {
    fn now(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A server that runs. Ends with its value.
pub struct DnsServer {
    address: SocketAddr,
    table: Shared,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    /// Answers from this table on a free port of loopback.
    pub async fn start(table: Table) -> Self {
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        let table = Shared(Arc::new(RwLock::new(Arc::new(table))));
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(udp, table.clone()));
        let shared = table.clone();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                streams.spawn(questions(stream, shared.clone()));
            }
        });
        Self { address, table, _tasks: tasks }
    }

    /// Answers from this table from now on.
    pub fn publish(&self, table: Table) {
        *self.table.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// Where it listens, as configuration names a resolver.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

/// One port for both.
async fn bind() -> (UdpSocket, TcpListener) {
    for _ in 0..PORTS {
        let udp = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port of loopback is free for both UDP and TCP");
}

async fn datagrams(socket: UdpSocket, table: Shared) {
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(octets) = table.now().reply(&buffer[..length], Way::Udp) {
            // Who asked may have gone.
            let _ = socket.send_to(&octets, from).await;
        }
    }
}

/// Answers what comes over one connection, until it ends.
async fn questions(mut stream: TcpStream, table: Shared) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(octets) = table.now().reply(&query, Way::Tcp) else { continue };
        let Ok(length) = u16::try_from(octets.len()) else { return };
        let framed = [&length.to_be_bytes()[..], &octets].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}
