//! Prints the table of transitions as the protocol model reads it:
//! `cargo run -p mailfleet-tests --bin transitions > tests/model/transitions.pml`. A test compares the two.

use domain::{Actor, Closing, Place, TRANSITIONS, Transition, fact::FactKind};
use std::{
    fmt::{Debug, Write},
    io,
};

fn main() -> io::Result<()> {
    io::Write::write_all(&mut io::stdout(), model().as_bytes())
}

fn model() -> String {
    let mut text = String::from(
        "/* The ways of a message, from `domain::TRANSITIONS`. Generated; write it anew with\n \
         * cargo run -p mailfleet-tests --bin transitions > tests/model/transitions.pml */\n",
    );
    let places = [Place::Nowhere, Place::Waiting, Place::Released, Place::Sending, Place::InDoubt];
    let places = places.into_iter().chain(Closing::ALL.map(Place::Closed));
    define(&mut text, "places; from the first ending on, the message is closed", places.map(place), |index| index);
    let _ = writeln!(text, "#define CLOSED(place) ((place) >= {})", place(Place::Closed(Closing::ALL[0])));
    define(&mut text, "actors", in_order(|way| actor(way.by)), |index| index);
    define(&mut text, "statements", in_order(|way| statement(way.statement)), |index| index);
    define(
        &mut text,
        "facts, a set",
        FactKind::ALL.into_iter().filter(|kind| !kind.is_feedback()).map(fact),
        |index| 1 << index,
    );

    text.push_str(
        "\n#define WAY(from, to, by, statement, facts) \\\n    \
         (((((from) * 16 + (to)) * 8 + (by)) * 16 + (statement)) * 64 + (facts))\n\n",
    );
    let ways: Vec<(String, String)> = TRANSITIONS.iter().flat_map(ways).collect();
    let _ = writeln!(text, "#define WAYS {}", ways.len());
    text.push_str("#define WAY_TABLE \\\n");
    for (way, name) in &ways {
        let _ = writeln!(text, "    {{ {way}, \"{name}\" }}, \\");
    }
    // The last line goes on, too.
    text.push('\n');
    text
}

/// A way for each row of facts that a transition may write, with the name that the report gives it.
fn ways(way: &Transition) -> impl Iterator<Item = (String, String)> {
    let Transition { from, to, by, statement: word, facts, only_known: _ } = *way;
    let mut rows: Vec<&[FactKind]> = facts.to_vec();
    // A known delivery and a plain one may look the same from outside.
    rows.retain(|row| {
        !TRANSITIONS.iter().take_while(|earlier| *earlier != way).any(|earlier| is_same(earlier, way, row))
    });
    rows.into_iter().map(move |row| {
        let set = if row.is_empty() {
            "0".to_owned()
        } else {
            row.iter().map(|kind| fact(*kind)).collect::<Vec<_>>().join(" + ")
        };
        let told = if row.is_empty() {
            "nothing".to_owned()
        } else {
            row.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let code = format!("WAY({}, {}, {}, {}, {set})", place(from), place(to), actor(by), statement(word));
        let name = format!("{} to {} by {}: {word}, writes {told}", plain(place(from)), plain(place(to)), plain(by));
        (code, name)
    })
}

fn is_same(one: &Transition, other: &Transition, row: &[FactKind]) -> bool {
    (one.from, one.to, one.by, one.statement) == (other.from, other.to, other.by, other.statement)
        && one.facts.contains(&row)
}

/// What `of` makes of each way, once, in the order of the table.
fn in_order(of: impl Fn(&Transition) -> String) -> Vec<String> {
    let mut seen = Vec::new();
    for one in TRANSITIONS.iter().map(of) {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

fn define(text: &mut String, what: &str, names: impl IntoIterator<Item = String>, value: impl Fn(usize) -> usize) {
    let _ = writeln!(text, "\n/* {what} */");
    for (index, name) in names.into_iter().enumerate() {
        let _ = writeln!(text, "#define {name} {}", value(index));
    }
}

fn place(place: Place) -> String {
    match place {
        Place::Closed(closing) => constant(closing),
        other => constant(other),
    }
}

fn actor(by: Actor) -> String {
    format!("BY_{}", constant(by))
}

fn statement(word: &str) -> String {
    format!("DO_{}", word.to_uppercase())
}

fn fact(kind: FactKind) -> String {
    format!("TELLS_{}", constant(kind))
}

/// `InDoubt` as `IN_DOUBT`.
fn constant(name: impl Debug) -> String {
    let mut constant = String::new();
    for (index, letter) in format!("{name:?}").char_indices() {
        if index > 0 && letter.is_uppercase() {
            constant.push('_');
        }
        constant.push(letter.to_ascii_uppercase());
    }
    constant
}

/// `IN_DOUBT` as `in doubt`.
fn plain(name: impl Debug) -> String {
    format!("{name:?}").trim_matches('"').replace('_', " ").to_lowercase()
}
