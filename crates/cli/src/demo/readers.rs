//! What the demo's recipients do with their mails, so that the loop closes: some look, some follow a link, a few want no
//! more, and from a few their systems answer. All of it goes to this machine's own feedback service.

use mail_parser::MessageParser;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Mails that somebody looks at.
const MOST: usize = 200;
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What people read with.
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub opened: i64,
    pub clicked: i64,
    pub unsubscribed: i64,
    pub bounced: i64,
    pub complained: i64,
}

/// What a mail holds that one can act upon.
struct Seen {
    image: Option<String>,
    link: Option<String>,
    leave: Option<String>,
    header: String,
    to: String,
}

/// Goes through mails of the sink. What does not work out is not counted: the figures tell.
pub async fn act(mails: &[PathBuf], inbound: SocketAddr, reports: &str) -> Done {
    let mut done = Done::default();
    for (number, path) in mails.iter().take(MOST).enumerate() {
        let Some(seen) = std::fs::read(path).ok().and_then(|mail| see(&mail)) else { continue };
        if number % 10 < 6 {
            done.opened += count(ask("GET", seen.image.as_deref(), "").await);
        }
        if number % 4 == 1 {
            done.clicked += count(ask("GET", seen.link.as_deref(), "").await);
        }
        if number % 50 == 7 {
            done.unsubscribed += count(ask("POST", seen.leave.as_deref(), "List-Unsubscribe=One-Click").await);
        }
        if number % 60 == 31 {
            done.bounced += count(bring(inbound, reports, &bounce(&seen)).await);
        }
        if number % 100 == 44 {
            done.complained += count(bring(inbound, reports, &complaint(&seen)).await);
        }
    }
    done
}

fn count(is_done: bool) -> i64 {
    i64::from(is_done)
}

fn see(mail: &[u8]) -> Option<Seen> {
    let parsed = MessageParser::default().parse(mail)?;
    let html = parsed.body_html(0)?;
    let link = |way: &str| {
        let addresses = html.split('"').filter(|part| part.starts_with("http://127.0.0.1:"));
        addresses.into_iter().find(|part| part.contains(&format!("/{way}/"))).map(str::to_owned)
    };
    let end = mail.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(Seen {
        image: link("o"),
        link: link("c"),
        leave: link("u"),
        header: String::from_utf8_lossy(&mail[..end]).into_owned(),
        to: parsed.to()?.first()?.address()?.to_owned(),
    })
}

fn report(kind: &str, part: &str, fields: &str, header: &str) -> String {
    format!(
        "From: MAILER-DAEMON@receiver.test\r\nSubject: report\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={kind}; boundary=part\r\n\r\n--part\r\nContent-Type: text/plain\r\n\r\n\
         A report.\r\n\r\n--part\r\nContent-Type: message/{part}\r\n\r\n{fields}\r\n--part\r\n\
         Content-Type: text/rfc822-headers\r\n\r\n{header}\r\n\r\n--part--\r\n"
    )
}

fn bounce(seen: &Seen) -> String {
    let fields = format!(
        "Reporting-MTA: dns; mx.receiver.test\r\n\r\nFinal-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        seen.to
    );
    report("delivery-status", "delivery-status", &fields, &seen.header)
}

fn complaint(seen: &Seen) -> String {
    let fields =
        format!("Feedback-Type: abuse\r\nUser-Agent: demo/1\r\nVersion: 1\r\nOriginal-Rcpt-To: {}\r\n", seen.to);
    report("feedback-report", "feedback-report", &fields, &seen.header)
}

/// Asks for an address of this machine; whether it was answered well.
async fn ask(method: &str, url: Option<&str>, body: &str) -> bool {
    let asking = async {
        let (host, path) = url?.strip_prefix("http://")?.split_once('/')?;
        let address: SocketAddr = host.parse().ok()?;
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await.ok()?;
        [b"HTTP/1.1 2".as_slice(), b"HTTP/1.1 3"].iter().any(|good| answer.starts_with(good)).then_some(())
    };
    matches!(timeout(LIMIT, asking).await, Ok(Some(())))
}

/// Brings a mail over SMTP; whether it was taken.
async fn bring(to: SocketAddr, recipient: &str, mail: &str) -> bool {
    let bringing = async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        let mail = mail.replace("\r\n.", "\r\n..");
        for (words, good) in [
            (String::new(), "220"),
            ("EHLO receiver.test\r\n".to_owned(), "250"),
            ("MAIL FROM:<>\r\n".to_owned(), "250"),
            (format!("RCPT TO:<{recipient}>\r\n"), "250"),
            ("DATA\r\n".to_owned(), "354"),
            (format!("{mail}\r\n.\r\n"), "250"),
        ] {
            stream.write_all(words.as_bytes()).await.ok()?;
            let mut answer = vec![0; 4_096];
            let length = stream.read(&mut answer).await.ok()?;
            answer[..length].starts_with(good.as_bytes()).then_some(())?;
        }
        Some(())
    };
    matches!(timeout(LIMIT, bringing).await, Ok(Some(())))
}
