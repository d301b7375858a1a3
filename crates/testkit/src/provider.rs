//! Stand-ins of providers' HTTP APIs: they take what the provider takes, refuse what it refuses in its own words, and
//! misbehave on command.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
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
    /// The mail.
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

/// An answer: status, and body.
type Answer = (u16, String);

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
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        let length: usize = header("content-length").parse().map_err(io::Error::other)?;
        if length > MAX_BODY || header("host").is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        *lock(&state.requests) += 1;
        let read = match &state.account {
            Account::Mailgun { domain, key } => mailgun(domain, key, &start, &header, &body),
            Account::Sparkpost { key } => sparkpost(key, &start, &header, &body),
        };
        let mood = lock(&state.mood).clone();
        let (status, more, answer) = match (read, mood) {
            (Err((status, body)), _) => (status, String::new(), body),
            (Ok(_), Mood::Answers(status, more)) => (status, more, json!({"message": "not now"}).to_string()),
            (Ok((taken, body)), mood) => {
                lock(&state.taken).push(taken);
                match mood {
                    Mood::Cuts => return Ok(()),
                    Mood::Stalls => std::future::pending().await,
                    Mood::Takes | Mood::Answers(..) => (200, String::new(), body),
                }
            }
        };
        let head = format!("HTTP/1.1 {status} so\r\ncontent-length: {}\r\n{more}\r\n{answer}", answer.len());
        client.write_all(head.as_bytes()).await?;
        client.flush().await?;
    }
}

/// `POST /v3/DOMAIN/messages.mime`: a form with `to`, variables, and the mail as a file.
fn mailgun<'a>(
    domain: &str,
    key: &str,
    start: &str,
    header: &impl Fn(&str) -> &'a str,
    body: &[u8],
) -> Result<(Taken, String), Answer> {
    let wrong = |text: &str| (400, json!({ "message": text }).to_string());
    if header("authorization") != format!("Basic {}", STANDARD.encode(format!("api:{key}"))) {
        return Err((401, "Forbidden".to_owned()));
    }
    if start != format!("POST /v3/{domain}/messages.mime HTTP/1.1") {
        return Err((404, json!({"message": "domain not found"}).to_string()));
    }
    let boundary = header("content-type").strip_prefix("multipart/form-data; boundary=");
    let boundary = boundary.ok_or_else(|| wrong("a form is wanted"))?;
    let (mut to, mut mid, mut mime) = (Vec::new(), None, None);
    let mut rest = body.strip_prefix(format!("--{boundary}").as_bytes()).ok_or_else(|| wrong("no first part"))?;
    let end = format!("\r\n--{boundary}");
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let length = find(part, end.as_bytes()).ok_or_else(|| wrong("a part without end"))?;
        rest = &part[length + end.len()..];
        let split = find(&part[..length], b"\r\n\r\n").ok_or_else(|| wrong("a part without head"))?;
        let (head, data) = (String::from_utf8_lossy(&part[..split]), &part[split + 4..length]);
        let name = head.split("; name=\"").nth(1).and_then(|rest| rest.split('"').next());
        let text = || String::from_utf8_lossy(data).into_owned();
        match name.ok_or_else(|| wrong("a part without name"))? {
            "to" => to.push(text()),
            "v:mid" => mid = Some(text()),
            "message" if head.contains("; filename=\"") => mime = Some(data.to_vec()),
            other => return Err(wrong(&format!("{other} is not known here"))),
        }
    }
    if rest != b"--\r\n" {
        return Err(wrong("the form has no end"));
    }
    match (<[String; 1]>::try_from(to), mid, mime) {
        (Ok([recipient]), Some(mid), Some(mime)) if recipient.contains('@') && mime.len() <= 25 * 1024 * 1024 => {
            let answer = json!({"id": format!("<{mid}@{domain}>"), "message": "Queued. Thank you."});
            Ok((Taken { recipient, mid, mime }, answer.to_string()))
        }
        _ => Err(wrong("to, v:mid and a file message are wanted, each once")),
    }
}

/// `POST /api/v1/transmissions`: JSON with one recipient and the mail as a string.
fn sparkpost<'a>(
    key: &str,
    start: &str,
    header: &impl Fn(&str) -> &'a str,
    body: &[u8],
) -> Result<(Taken, String), Answer> {
    let error = |status: u16, text: &str, code: &str| {
        (status, json!({"errors": [{"message": text, "description": text, "code": code}]}).to_string())
    };
    if header("authorization") != key {
        return Err(error(401, "Unauthorized.", "1000"));
    }
    if start != "POST /api/v1/transmissions HTTP/1.1" {
        return Err(error(404, "Resource not found", "1600"));
    }
    if header("content-type") != "application/json" {
        return Err(error(415, "Unsupported Media Type", "1300"));
    }
    let wrong = |text: &str| error(422, text, "1400");
    let json: Value = serde_json::from_slice(body).map_err(|_| error(400, "Problems parsing request", "1100"))?;
    let (recipients, content) = (&json["recipients"], &json["content"]);
    if recipients.as_array().is_none_or(|all| all.len() != 1) || content.as_object().is_none_or(|all| all.len() != 1) {
        return Err(wrong("one recipient, and content.email_rfc822 alone, are wanted"));
    }
    // Else braces in the mail would be taken for variables.
    if json["options"]["perform_substitutions"] != false {
        return Err(wrong("substitution language syntax error"));
    }
    let one = &recipients[0];
    let (to, mid, mime) = (&one["address"]["email"], &one["metadata"]["mid"], &content["email_rfc822"]);
    let (Some(to), Some(mid), Some(mime)) = (to.as_str(), mid.as_str(), mime.as_str()) else {
        return Err(wrong("required field is missing"));
    };
    let taken = Taken { recipient: to.to_owned(), mid: mid.to_owned(), mime: mime.as_bytes().to_vec() };
    let answer = json!({"results": {"id": mid, "total_accepted_recipients": 1, "total_rejected_recipients": 0}});
    Ok((taken, answer.to_string()))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
