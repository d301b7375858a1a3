//! `keys`: API keys of a tenant, or of the fleet.

use super::{
    args::{KeyScopeArg, KeysCommand},
    moment, span, when,
};
use crate::{
    api,
    exit::{Exit, Failure},
    output::{Output, Table, safe},
    reach::Reach,
};
use proto::v1::{ApiKey, CreateApiKeyRequest, KeyScope, ListApiKeysRequest, RevokeApiKeyRequest, RotateApiKeyRequest};
use serde_json::{Value, json};

pub async fn run(command: KeysCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api().await?.tenants();
    let tenant_id = reach.named_tenant().await?.map_or_else(String::new, |id| id.to_string());
    match command {
        KeysCommand::List => {
            let keys = client.list_api_keys(ListApiKeysRequest { tenant_id }).await?.into_inner().api_keys;
            out.answer(&json!({"api_keys": keys.iter().map(as_json).collect::<Vec<_>>()}), || table(&keys))?;
        }
        KeysCommand::Create { name, scopes, expires } => {
            let now = service::clock::now();
            let expires_at = expires.as_deref().map(|text| moment(text, now)).transpose()?.map(api::stamp);
            let scopes = scopes_of(&tenant_id, &scopes)?.into_iter().map(i32::from).collect();
            let request = CreateApiKeyRequest { tenant_id, name, scopes, expires_at };
            let made = client.create_api_key(request).await?.into_inner();
            out.answer(&json!({"api_key": made.api_key, "api_key_id": made.api_key_id}), || {
                format!("{}\nThis is shown once. End it with: mailfleet keys revoke {}", made.api_key, made.api_key_id)
            })?;
        }
        KeysCommand::Rotate { id, grace } => {
            let grace = span(&grace)?;
            let grace = prost_types::Duration { seconds: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX), nanos: 0 };
            let request = RotateApiKeyRequest { api_key_id: id, grace: Some(grace) };
            let answer = client.rotate_api_key(request).await?.into_inner();
            let until = answer.previous_secret_until.as_ref();
            let value = json!({"api_key": answer.api_key, "previous_secret_until": until.map(api::time)});
            out.answer(&value, || {
                format!("{}\nThis is shown once. The secret before is good until {} UTC.", answer.api_key, when(until))
            })?;
        }
        KeysCommand::Revoke { id } => {
            client.revoke_api_key(RevokeApiKeyRequest { api_key_id: id }).await?;
            out.answer(&json!({"revoked": true}), || "revoked; refused everywhere within seconds".to_owned())?;
        }
    }
    Ok(Exit::Ok)
}

/// What a new key is good for. One of the fleet is good for all.
fn scopes_of(tenant_id: &str, given: &[KeyScopeArg]) -> anyhow::Result<Vec<KeyScope>> {
    match (tenant_id.is_empty(), given.is_empty()) {
        (true, true) => Ok(vec![KeyScope::Admin]),
        (true, false) => {
            let text = "a key with a --scope belongs to a tenant; name it with --tenant, or leave --scope out for a key \
                        that administers the fleet";
            Err(Failure::usage(text))
        }
        (false, true) => Err(Failure::usage("say what the key is good for, with one --scope or several")),
        (false, false) => Ok(given.iter().map(|scope| wire(*scope)).collect()),
    }
}

const fn wire(scope: KeyScopeArg) -> KeyScope {
    match scope {
        KeyScopeArg::Send => KeyScope::Send,
        KeyScopeArg::Read => KeyScope::Read,
        KeyScopeArg::Templates => KeyScope::Templates,
        KeyScopeArg::Domains => KeyScope::Domains,
        KeyScopeArg::Suppressions => KeyScope::Suppressions,
        KeyScopeArg::Endpoints => KeyScope::Endpoints,
    }
}

fn scope_words(key: &ApiKey) -> Vec<String> {
    key.scopes().map(|scope| scope.as_str_name().trim_start_matches("KEY_SCOPE_").to_ascii_lowercase()).collect()
}

fn state(key: &ApiKey) -> String {
    match (&key.revoked_at, &key.expires_at, &key.previous_secret_until) {
        (Some(at), _, _) => format!("revoked {}", when(Some(at))),
        (None, Some(end), _) => format!("until {}", when(Some(end))),
        (None, None, Some(until)) if api::time(until) > service::clock::now() => {
            format!("rotated, the secret before until {}", when(Some(until)))
        }
        (None, None, _) => String::new(),
    }
}

fn table(keys: &[ApiKey]) -> String {
    let mut table = Table::new(5, &["key", "name", "good for", "made", ""]);
    for key in keys {
        let made = when(key.created_at.as_ref());
        table.row(vec![key.api_key_id.clone(), safe(&key.name), scope_words(key).join(", "), made, state(key)]);
    }
    if table.is_empty() { "there is no key".to_owned() } else { table.text() }
}

fn as_json(key: &ApiKey) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(api::time);
    json!({
        "api_key_id": key.api_key_id, "name": key.name, "scopes": scope_words(key), "created_at": time(&key.created_at),
        "expires_at": time(&key.expires_at), "revoked_at": time(&key.revoked_at), "rotated_at": time(&key.rotated_at),
        "previous_secret_until": time(&key.previous_secret_until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_fleet_has_no_scopes_to_choose() {
        assert_eq!(scopes_of("", &[]).expect("is one"), [KeyScope::Admin]);
        assert!(scopes_of("", &[KeyScopeArg::Send]).is_err());
        assert!(scopes_of("a", &[]).is_err());
        assert_eq!(scopes_of("a", &[KeyScopeArg::Send]).expect("is one"), [KeyScope::Send]);
    }
}
