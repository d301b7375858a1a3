//! Commands (RFC 5321, 4.1.1).

use super::answer::Answer;
use domain::{EnvelopeSender, Mailbox};

/// A command line that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Ehlo(String),
    Helo(String),
    Mail { sender: EnvelopeSender, size: Option<u64>, smtputf8: bool },
    Rcpt(Mailbox),
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    StartTls,
}

const SYNTAX: Answer = Answer::new(501, "5.5.4 syntax error in parameters");
const ADDRESS: Answer = Answer::new(501, "5.1.7 syntax error in the address");
const PARAMETER: Answer = Answer::new(555, "5.5.4 parameter not known");

impl Command {
    /// Reads a line without its CRLF.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Answer> {
        let line = std::str::from_utf8(line).map_err(|_| Answer::new(500, "5.5.2 not UTF-8"))?;
        if line.contains('\0') {
            return Err(Answer::new(500, "5.5.2 syntax error"));
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let is = |known: &str| verb.eq_ignore_ascii_case(known);
        let alone = |command| if rest.trim().is_empty() { Ok(command) } else { Err(SYNTAX) };
        let name = || match rest.trim() {
            "" => Err(SYNTAX),
            name => Ok(name.to_owned()),
        };
        match () {
            () if is("MAIL") => mail(rest),
            () if is("RCPT") => rcpt(rest),
            () if is("DATA") => alone(Self::Data),
            () if is("EHLO") => Ok(Self::Ehlo(name()?)),
            () if is("HELO") => Ok(Self::Helo(name()?)),
            () if is("RSET") => alone(Self::Rset),
            () if is("NOOP") => Ok(Self::Noop),
            () if is("QUIT") => alone(Self::Quit),
            () if is("VRFY") => name().map(|_| Self::Vrfy),
            () if is("STARTTLS") => alone(Self::StartTls),
            () => Err(Answer::new(500, "5.5.1 command not known")),
        }
    }
}

/// What stands between the angle brackets behind `FROM:` or `TO:`, and the parameters.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = rest.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    // A space behind the colon is wrong and common.
    let (address, parameters) = rest.trim_start_matches(' ').strip_prefix('<')?.split_once('>')?;
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((address, parameters))
}

fn mail(rest: &str) -> Result<Command, Answer> {
    let (address, parameters) = path(rest, "FROM:").ok_or(SYNTAX)?;
    let (mut size, mut smtputf8) = (None, false);
    for parameter in parameters.split_ascii_whitespace() {
        let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => size = Some(value.parse().map_err(|_| SYNTAX)?),
            "BODY" if value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME") => {}
            "SMTPUTF8" if value.is_empty() => smtputf8 = true,
            // Who submitted it is of no interest here (RFC 4954, 5).
            "AUTH" => {}
            _ => return Err(PARAMETER),
        }
    }
    let sender = if address.is_empty() { None } else { Some(mailbox(address, smtputf8)?) };
    Ok(Command::Mail { sender: EnvelopeSender(sender), size, smtputf8 })
}

fn rcpt(rest: &str) -> Result<Command, Answer> {
    let (address, parameters) = path(rest, "TO:").ok_or(SYNTAX)?;
    if !parameters.trim().is_empty() {
        return Err(PARAMETER);
    }
    // Whether SMTPUTF8 was asked for is the session's to know.
    Ok(Command::Rcpt(mailbox(address, true)?))
}

fn mailbox(address: &str, smtputf8: bool) -> Result<Mailbox, Answer> {
    let mailbox: Mailbox = address.parse().map_err(|_| ADDRESS)?;
    if mailbox.needs_smtputf8() && !smtputf8 { Err(NEEDS_SMTPUTF8) } else { Ok(mailbox) }
}

/// RFC 6531, 3.5.
pub(crate) const NEEDS_SMTPUTF8: Answer = Answer::new(553, "5.6.7 address needs SMTPUTF8");

#[cfg(test)]
mod tests {
    use super::super::answer::Then;
    use super::*;
    use proptest::prelude::*;

    /// Commands, addresses and what can be wrong with them.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::sample::select(vec![
            "MAIL FROM:",
            "RCPT TO:",
            "rcpt to:",
            "<",
            ">",
            "<>",
            "a@b.test",
            "é@b.test",
            "@",
            " ",
            "\t",
            "SIZE=",
            "99999999999999999999",
            "BODY=8BITMIME",
            "SMTPUTF8",
            "AUTH=<>",
            "=",
            ":",
            "DATA",
            "QUIT",
            "EHLO",
            "\0",
            "\r",
        ]);
        let piece = prop_oneof![
            9 => text.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_gets_a_5yz(line in line()) {
            match Command::parse(&line) {
                Ok(Command::Rcpt(mailbox)) => {
                    let line = String::from_utf8(line).unwrap();
                    prop_assert!(line.contains(&format!("<{}@", mailbox.local())), "another recipient than the line's");
                    prop_assert_eq!(Command::parse(format!("RCPT TO:<{mailbox}>").as_bytes()), Ok(Command::Rcpt(mailbox)));
                }
                Ok(_) => {}
                Err(answer) => prop_assert!((500..600).contains(&answer.code) && answer.then == Then::Continue),
            }
        }
    }

    #[test]
    fn commands_are_read_in_any_case() {
        let sender = EnvelopeSender(Some("a@b.test".parse().unwrap()));
        assert_eq!(
            Command::parse(b"mail from: <a@b.test> size=10 BODY=8bitmime SMTPUTF8"),
            Ok(Command::Mail { sender, size: Some(10), smtputf8: true })
        );
        assert_eq!(Command::parse(b"rcpt TO:<a@b.test>"), Ok(Command::Rcpt("a@b.test".parse().unwrap())));
        assert_eq!(
            Command::parse(b"MAIL FROM:<>"),
            Ok(Command::Mail { sender: EnvelopeSender(None), size: None, smtputf8: false })
        );
        assert_eq!(Command::parse(b"QUIT"), Ok(Command::Quit));
    }

    #[test]
    fn what_is_malformed_gets_its_own_code() {
        let code = |line: &[u8]| Command::parse(line).map_err(|answer| answer.code);
        for (line, expected) in [
            (&b"MAIL FROM:a@b.test"[..], 501),
            (b"MAIL FROM:<a@b.test>x", 501),
            (b"MAIL FROM:<a@b.test> SIZE=x", 501),
            (b"MAIL FROM:<a@b.test> FOO=x", 555),
            (b"MAIL TO:<a@b.test>", 501),
            (b"MAIL", 501),
            (b"RCPT TO:<>", 501),
            (b"RCPT TO:<@relay.test:a@b.test>", 501),
            (b"RCPT TO:<a@b.test> NOTIFY=NEVER", 555),
            (b"DATA now", 501),
            (b"EHLO", 501),
            (b"BDAT 10", 500),
            (b"\xff", 500),
            (b"", 500),
            ("MAIL FROM:<é@b.test>".as_bytes(), 553),
        ] {
            assert_eq!(code(line), Err(expected), "{}", String::from_utf8_lossy(line));
        }
    }
}
