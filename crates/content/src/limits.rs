//! What a content may cost.

use serde::{Deserialize, Serialize};

/// Bounds on what authors, callers and recipients' variables can make a rendering do.
///
/// Fuel is the one that holds a hostile template: minijinja charges one for an instruction and one for 64
/// octets of data that the template makes or looks at, so it bounds time and memory together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Octets of one part of a template as written (subject, HTML, text, MJML). Default 512 KiB.
    pub max_source_bytes: usize,
    /// How deep elements may nest in HTML and MJML. Default 100: MJML, which is walked recursively, then
    /// stays far inside a thread's stack; mails nest tables 20 to 40 deep.
    pub max_element_depth: usize,
    /// Octets of one recipient's variables as JSON. Default 64 KiB.
    pub max_variables_bytes: usize,
    /// Fuel for one part of one rendering. Default 100,000: 6.4 MB of data, or 100,000 instructions, far
    /// under a second; a newsletter of 100 KB takes about 3,000.
    pub fuel: u64,
    /// How deep template constructs and recursive loops may nest while rendering. Default 64, at most 500.
    pub max_recursion: usize,
    /// Octets of one rendered part. Default 2 MiB.
    pub max_part_bytes: usize,
    /// Octets of the finished mail, and of raw MIME given. Default 25 MiB, which most receivers take.
    pub max_message_bytes: usize,
    /// Characters of a rendered subject. Default 998.
    pub max_subject_chars: usize,
    /// Custom headers of one mail. Default 50.
    pub max_headers: usize,
    /// Octets of one custom header's value. Default 4,096.
    pub max_header_bytes: usize,
    /// Addresses in each of Reply-To, To and Cc. Default 50.
    pub max_header_addresses: usize,
    /// How deep templates may include and extend one another. Default 8.
    pub max_include_depth: usize,
    /// Includes and layouts that one part of a template may take in, those within them as well. Default 100.
    pub max_includes: usize,
    /// Octets of all parts of one template version, in all its languages, as written. Default 4 MiB.
    pub max_version_bytes: usize,
    /// Translations of one template version. Default 50; each is a content of its own.
    pub max_translations: usize,
    /// Variables that one template version may declare, those of what it includes as well. Default 200.
    pub max_variables: usize,
    /// Files of one mail. Default 50.
    pub max_attachments: usize,
    /// Octets of one file, before they are encoded. Default 18 MiB, which make 24.6 MiB of mail.
    pub max_attachment_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_source_bytes: 512 * 1024,
            max_element_depth: 100,
            max_variables_bytes: 64 * 1024,
            fuel: 100_000,
            max_recursion: 64,
            max_part_bytes: 2 * 1024 * 1024,
            max_message_bytes: 25 * 1024 * 1024,
            max_subject_chars: 998,
            max_headers: 50,
            max_header_bytes: 4_096,
            max_header_addresses: 50,
            max_include_depth: 8,
            max_includes: 100,
            max_version_bytes: 4 * 1024 * 1024,
            max_translations: 50,
            max_variables: 200,
            max_attachments: 50,
            max_attachment_bytes: 18 * 1024 * 1024,
        }
    }
}
