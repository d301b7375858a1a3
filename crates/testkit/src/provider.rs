//! Stand-ins of providers' HTTP APIs: they take what the provider takes, refuse what it refuses in its own words, and
//! misbehave on command.

mod finished;
mod parts;
mod sigv4;

use serde_json::json;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Longest request that is read.
const MAX_BODY: usize = 52 * 1024 * 1024;

/// Whose API it is.
#[derive(Clone, Debug)]
pub enum Account {
    /// Mailgun, for one sending domain.
    Mailgun {
        /// The domain.
        domain: String,
        /// The key.
        key: String,
    },
    /// SparkPost.
    Sparkpost {
        /// The key.
        key: String,
    },
    /// Amazon SES in a region.
    Ses {
        /// The region.
        region: String,
        /// The access key's id.
        key_id: String,
        /// Its secret.
        secret: String,
    },
    /// SendGrid.
    Sendgrid {
        /// The key.
        key: String,
    },
    /// A server of Postmark.
    Postmark {
        /// Its token.
        token: String,
    },
    /// Resend.
    Resend {
        /// The key.
        key: String,
    },
}

/// What it does to a request that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes it.
    Takes,
    /// Answers this instead: a status and further header lines, each with its end.
    Answers(u16, String),
    /// Takes it, and cuts the connection instead of an answer.
    Cuts,
    /// Takes it, and says nothing.
    Stalls,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its recipient.
    pub recipient: String,
    /// Our id, as the webhooks would repeat it.
    pub mid: String,
    /// The mail; where the provider takes parts, the request with them.
    pub mime: Vec<u8>,
}

struct State {
    account: Account,
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Taken>>,
    requests: Mutex<usize>,
}

/// The stand-in. Ends when it is dropped.
pub struct FakeProvider {
    address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

/// An answer.
struct Answer {
    status: u16,
    /// Further header lines, each with its end.
    headers: String,
    body: String,
}

impl Answer {
    fn new(status: u16, body: impl ToString) -> Self {
        Self { status, headers: String::new(), body: body.to_string() }
    }
}

/// A request.
struct Asked<'a> {
    /// Method, path and version.
    start: &'a str,
    headers: &'a [(String, String)],
    body: &'a [u8],
}

impl Asked<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    fn is_json(&self) -> bool {
        self.header("content-type").split(';').next() == Some("application/json")
    }
}

impl FakeProvider {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(account: Account) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            account,
            mood: Mutex::new(Mood::Takes),
            taken: Mutex::default(),
            requests: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&state);
        serving.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client that goes away ends its session.
                sessions.spawn(async move { session(stream, &state).await.unwrap_or_default() });
            }
        });
        Ok(Self { address, state, _serving: serving })
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on.
    pub fn set(&self, mood: Mood) {
        *lock(&self.state.mood) = mood;
    }

    /// What it took.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.state.taken).clone()
    }

    /// Requests that came whole.
    #[must_use]
    pub fn requests(&self) -> usize {
        *lock(&self.state.requests)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn session(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut client = BufStream::new(stream);
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let start = line.trim_end().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        loop {
            line.clear();
            client.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let asked = |body| Asked { start: &start, headers: &headers, body };
        let length: usize = asked(&[]).header("content-length").parse().map_err(io::Error::other)?;
        if length > MAX_BODY || asked(&[]).header("host").is_empty() {
            return Ok(());
        }
        if asked(&[]).header("expect").eq_ignore_ascii_case("100-continue") {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            client.flush().await?;
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        *lock(&state.requests) += 1;
        let asked = asked(&body);
        let read = match &state.account {
            Account::Mailgun { domain, key } => finished::mailgun(domain, key, &asked),
            Account::Sparkpost { key } => finished::sparkpost(key, &asked),
            Account::Ses { region, key_id, secret } => finished::ses(region, key_id, secret, &asked),
            Account::Sendgrid { key } => parts::sendgrid(key, &asked),
            Account::Postmark { token } => parts::postmark(token, &asked),
            Account::Resend { key } => parts::resend(key, &asked),
        };
        let mood = lock(&state.mood).clone();
        let answer = match (read, mood) {
            (Err(refused), _) => refused,
            (Ok(_), Mood::Answers(status, headers)) => {
                Answer { headers, ..Answer::new(status, json!({"message": "not now"})) }
            }
            (Ok((taken, answer)), mood) => {
                lock(&state.taken).push(taken);
                match mood {
                    Mood::Cuts => return Ok(()),
                    Mood::Stalls => std::future::pending().await,
                    Mood::Takes | Mood::Answers(..) => answer,
                }
            }
        };
        let Answer { status, headers: more, body: answer } = answer;
        let length = answer.len();
        let kind = if answer.starts_with('{') { "application/json" } else { "text/plain" };
        let head =
            format!("HTTP/1.1 {status} so\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{more}\r\n{answer}");
        client.write_all(head.as_bytes()).await?;
        client.flush().await?;
    }
}
