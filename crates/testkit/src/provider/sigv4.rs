//! Whether a request is signed as AWS wants it (Signature Version 4).

use super::Asked;
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac::{HMAC_SHA256, Key, sign},
};

/// Verifies the signature over the header fields that it names.
pub(super) fn verify(service: &str, region: &str, key_id: &str, secret: &str, asked: &Asked<'_>) -> Result<(), String> {
    let given = asked.header("authorization");
    let rest = given.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("no signature of this kind")?;
    let field = |name: &str| {
        let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("no {name}"))
    };
    let (credential, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let time = asked.header("x-amz-date");
    let date = time.split('T').next().unwrap_or_default();
    let scope = format!("{date}/{region}/{service}/aws4_request");
    if credential != format!("{key_id}/{scope}") {
        return Err(format!("the credential is not {key_id}/{scope}"));
    }
    let names: Vec<&str> = signed.split(';').collect();
    if !names.is_sorted() || !["host", "x-amz-date"].iter().all(|name| names.contains(name)) {
        return Err("the signed fields are not in order, or lack host or x-amz-date".to_owned());
    }
    let mut words = asked.start.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut canonical = format!("{method}\n{path}\n\n");
    for name in &names {
        canonical += &format!("{name}:{}\n", asked.header(name));
    }
    canonical += &format!("\n{signed}\n{}", hex::encode(digest(&SHA256, asked.body)));
    let hash = hex::encode(digest(&SHA256, canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let step = |key: &[u8], text: &str| sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let key = step(format!("AWS4{secret}").as_bytes(), date);
    let key = step(&step(&step(&key, region), service), "aws4_request");
    if hex::encode(step(&key, &text)) == signature {
        Ok(())
    } else {
        Err("the request signature we calculated does not match the signature you provided".to_owned())
    }
}
