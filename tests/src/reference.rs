//! The reference of the API, written from its definition and from the code that keeps its bounds.

use ingest::limits;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto, field_descriptor_proto::Type,
};
use std::{collections::HashMap, fmt::Write};

/// Numbers of fields in the descriptors (descriptor.proto), of which the paths of comments are made.
mod path {
    pub const MESSAGE: i32 = 4;
    pub const ENUM: i32 = 5;
    pub const SERVICE: i32 = 6;
    pub const FIELD: i32 = 2;
    pub const VALUE: i32 = 2;
    pub const METHOD: i32 = 2;
}

/// The package of the API.
const PACKAGE: &str = ".mailfleet.v1.";

/// The page, as Markdown.
///
/// # Errors
/// When the descriptors cannot be read, which this build has written.
pub fn page() -> anyhow::Result<String> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)?;
    let files: Vec<File<'_>> =
        set.file.iter().filter(|file| file.package() == PACKAGE.trim_matches('.')).map(File::new).collect();
    let mut out = String::from(
        "# The API, version 1\n\nWritten by `make reference` from the comments in [`proto/mailfleet/v1`](mailfleet/v1) \
         and from the code that keeps the bounds; `make test` fails when it is stale.\n\nCalls carry `authorization: \
         Bearer KEY`, and may carry `grpc-timeout` and `traceparent`. Errors carry `google.rpc.ErrorInfo` with a \
         reason of [`ErrorReason`](#errorreason) in the domain `mailfleet`, `google.rpc.BadRequest` with the fields at \
         fault, and `google.rpc.RetryInfo` where a repeat may succeed.\n\n## Services\n\n",
    );
    for file in &files {
        for service in &file.proto.service {
            let name = service.name();
            writeln!(out, "- [`{name}`](#{}): {}", name.to_lowercase(), calls(service))?;
        }
    }
    for file in &files {
        for (at, service) in file.proto.service.iter().enumerate() {
            file.service(&mut out, i32::try_from(at)?, service)?;
        }
    }
    out.push_str("\n## Messages\n");
    for file in &files {
        for (at, message) in file.proto.message_type.iter().enumerate() {
            file.message(&mut out, &[path::MESSAGE, i32::try_from(at)?], message)?;
        }
    }
    out.push_str("\n## Enumerations\n");
    for file in &files {
        for (at, one) in file.proto.enum_type.iter().enumerate() {
            file.enumeration(&mut out, i32::try_from(at)?, one)?;
        }
    }
    bounds(&mut out)?;
    Ok(out)
}

fn calls(service: &ServiceDescriptorProto) -> String {
    let link = |method: &MethodDescriptorProto| format!("[{0}](#{1})", method.name(), method.name().to_lowercase());
    service.method.iter().map(link).collect::<Vec<_>>().join(", ")
}

fn bounds(out: &mut String) -> anyhow::Result<()> {
    out.push_str(
        "\n## Bounds\n\nThose that no configuration moves:\n\n| what | most | beyond it |\n| --- | ---: | --- |\n",
    );
    for limits::Fixed { what, most, reason } in limits::fixed() {
        let beyond = match reason {
            Some(reason) => format!("`{}`", reason.as_str_name().trim_start_matches("ERROR_REASON_")),
            None => "the rest is left out".to_owned(),
        };
        writeln!(out, "| {what} | {most} | {beyond} |")?;
    }
    out.push_str(
        "\nThose that the configuration sets; sizes are octets. What each means is told in \
         [`crates/ingest/src/config.rs`](../crates/ingest/src/config.rs) and \
         [`crates/content/src/limits.rs`](../crates/content/src/limits.rs):\n\n| key | default |\n| --- | ---: |\n",
    );
    for limits::Configured { key, default } in limits::configured()? {
        writeln!(out, "| `{key}` | {default} |")?;
    }
    Ok(())
}

/// One file with its comments by their path.
struct File<'a> {
    proto: &'a FileDescriptorProto,
    comments: HashMap<&'a [i32], &'a str>,
}

impl<'a> File<'a> {
    fn new(proto: &'a FileDescriptorProto) -> Self {
        let locations = proto.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.map(|location| (&location.path[..], location.leading_comments()));
        Self { proto, comments: comments.collect() }
    }

    /// A comment in one line a paragraph.
    fn comment(&self, path: &[i32]) -> String {
        let text = self.comments.get(path).copied().unwrap_or_default();
        let paragraphs = text.split("\n\n").flat_map(|part| part.split("\n \n"));
        let joined = paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        joined.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    }

    /// A comment in a cell of a table.
    fn cell(&self, path: &[i32]) -> String {
        self.comment(path).replace("\n\n", "<br>").replace('|', "\\|")
    }

    fn service(&self, out: &mut String, at: i32, service: &ServiceDescriptorProto) -> anyhow::Result<()> {
        writeln!(out, "\n## {}\n\n{}", service.name(), self.comment(&[path::SERVICE, at]))?;
        for (number, method) in (0..).zip(&service.method) {
            let stream = |streams: bool| if streams { "stream " } else { "" };
            writeln!(
                out,
                "\n### {}\n\n{}{} → {}{}\n\n{}",
                method.name(),
                stream(method.client_streaming()),
                link(method.input_type()),
                stream(method.server_streaming()),
                link(method.output_type()),
                self.comment(&[path::SERVICE, at, path::METHOD, number])
            )?;
        }
        Ok(())
    }

    fn message(&self, out: &mut String, path: &[i32], message: &DescriptorProto) -> anyhow::Result<()> {
        // A map's entries are told as the map.
        if message.options.as_ref().is_some_and(|options| options.map_entry()) {
            return Ok(());
        }
        writeln!(out, "\n### {}\n\n{}", message.name(), self.comment(path))?;
        if !message.field.is_empty() {
            out.push_str("\n| field | type | meaning |\n| --- | --- | --- |\n");
        }
        for (number, field) in (0..).zip(&message.field) {
            let place = [path, &[path::FIELD, number]].concat();
            let kind = kind(message, field);
            writeln!(out, "| `{}` | {kind} | {} |", field.name(), self.cell(&place))?;
        }
        Ok(())
    }

    fn enumeration(&self, out: &mut String, at: i32, one: &EnumDescriptorProto) -> anyhow::Result<()> {
        writeln!(out, "\n### {}\n\n{}\n", one.name(), self.comment(&[path::ENUM, at]))?;
        out.push_str("| value | number | meaning |\n| --- | ---: | --- |\n");
        for (number, value) in (0..).zip(&one.value) {
            let text = self.cell(&[path::ENUM, at, path::VALUE, number]);
            let text = text.strip_prefix(value.name()).map_or(&*text, |rest| rest.trim_start_matches([':', ' ']));
            writeln!(out, "| `{}` | {} | {text} |", value.name(), value.number())?;
        }
        Ok(())
    }
}

/// The type of a field, with a link where it is one of ours.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(|options| options.map_entry())
            && field.type_name().rsplit('.').next() == Some(nested.name())
    });
    if let Some(DescriptorProto { field, .. }) = entry
        && let [key, value] = &field[..]
    {
        return format!("map of {} to {}", plain(key), plain(value));
    }
    let is_repeated = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
    let of = if is_repeated {
        "repeated "
    } else if field.proto3_optional() {
        "optional "
    } else {
        ""
    };
    let choice = match field.oneof_index {
        Some(at) if !field.proto3_optional() => usize::try_from(at).ok().and_then(|at| message.oneof_decl.get(at)),
        _ => None,
    };
    let choice = choice.map_or_else(String::new, |choice| format!(", one of `{}`", choice.name()));
    format!("{of}{}{choice}", plain(field))
}

fn plain(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn link(name: &str) -> String {
    match name.strip_prefix(PACKAGE) {
        Some(ours) => format!("[{ours}](#{})", ours.to_lowercase()),
        None => name.trim_start_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_repository_is_what_the_definition_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/README.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page().unwrap(), "proto/README.md is stale; run: make reference");
    }

    #[test]
    fn everything_in_the_reference_is_told() {
        let page = page().unwrap();
        let silent = page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |"));
        assert_eq!(silent.collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(page.contains("### SendBatch\n"));
    }
}
