//! `kill -9` of real processes, as their operator runs them.

use crate::addresses;
use mailfleet_tests::{ALL_SCOPES, Line, bearer, mail, processes::ProcessFleet};
use proto::v1::{
    self, domain_service_client::DomainServiceClient, mail_service_client::MailServiceClient,
    recipient_result::Outcome, tenant_service_client::TenantServiceClient,
};
use std::{collections::HashMap, path::PathBuf};
use testkit::{LIMIT, eventually, sink::read_index};
use tonic::transport::Channel;

const LOAD: usize = 300;

/// Leases, repairs and redeliveries at a fifth to a tenth of their defaults.
const SETTINGS: [(&str, &str); 15] = [
    // Other tests keep every core busy at the same time.
    ("MAILFLEET_RENDERER__PRESS__BULK_NICENESS", "0"),
    ("MAILFLEET_SENDER__LEASE__TERM", "2s"),
    ("MAILFLEET_SENDER__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_SENDER__LEASE__MARGIN", "300ms"),
    ("MAILFLEET_SENDER__LEASE__LOOK_EVERY", "100ms"),
    ("MAILFLEET_DISPATCHER__LEASE__TERM", "2s"),
    ("MAILFLEET_DISPATCHER__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_DISPATCHER__LEASE__SAFETY", "300ms"),
    ("MAILFLEET_DISPATCHER__REPAIR_AFTER", "5s"),
    ("MAILFLEET_DISPATCHER__DOUBT_GRACE", "2s"),
    ("MAILFLEET_ANALYTICS__LEASE__TERM", "2s"),
    ("MAILFLEET_ANALYTICS__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_ANALYTICS__LEASE__SAFETY", "300ms"),
    ("MAILFLEET_NATS__ACK_WAIT", "3s"),
    ("MAILFLEET_SENDER__DESK__HOLD", "1s"),
];

/// A fleet of processes with a load in it.
struct Loaded {
    fleet: ProcessFleet,
    mailbox: PathBuf,
    mails: MailServiceClient<Line>,
    batch: v1::SendBatchRequest,
}

impl Loaded {
    async fn start() -> Self {
        let fleet = ProcessFleet::start(&SETTINGS).await;
        let state = fleet.state().unwrap();
        let channel = Channel::from_shared(state.endpoint).unwrap().connect_lazy();
        let admin = bearer(channel.clone(), std::fs::read_to_string(&state.admin_key_file).unwrap().trim());
        let mut tenants = TenantServiceClient::new(admin);
        let tenant = v1::CreateTenantRequest { name: "kill".to_owned() };
        let tenant_id = tenants.create_tenant(tenant).await.unwrap().into_inner().tenant_id;
        let key = v1::CreateApiKeyRequest {
            tenant_id,
            name: "test".to_owned(),
            scopes: ALL_SCOPES.map(Into::into).to_vec(),
            expires_at: None,
        };
        let key = tenants.create_api_key(key).await.unwrap().into_inner().api_key;
        let domain = v1::CreateDomainRequest { domain: "example.com".to_owned(), ..Default::default() };
        DomainServiceClient::new(bearer(channel.clone(), &key)).create_domain(domain).await.unwrap();
        let mut mails = MailServiceClient::new(bearer(channel, &key));
        let batch = mail().to_all(addresses(LOAD, "slow-50ms", "receiver.test")).key("load").batch();
        let answer = mails.send_batch(batch.clone()).await.unwrap().into_inner();
        assert_eq!(answer.accepted as usize, LOAD);
        Self { fleet, mailbox: state.mailbox, mails, batch }
    }

    fn taken(&self) -> usize {
        read_index(&self.mailbox).map_or(0, |lines| lines.len())
    }

    async fn moves(&self) {
        let before = self.taken();
        let more = eventually(LIMIT, async || {
            let taken = self.taken();
            (taken > before + 5 || taken >= LOAD).then_some(())
        });
        more.await.expect("mail moves");
    }

    /// Every mail is delivered, once or once more for each doubt; returns the copies that were too many.
    async fn assert_sound(mut self) -> usize {
        let mut audit = None;
        let rest = eventually(LIMIT, async || {
            let output = self.fleet.command(&["audit", "--json"]).await;
            let found: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            let over = output.status.success() && found["open"] == 0 && found["facts"] == 0;
            audit = Some(found);
            over.then_some(())
        });
        assert!(rest.await.is_some(), "{audit:?}");
        let mut copies: HashMap<String, usize> = HashMap::new();
        for line in read_index(&self.mailbox).unwrap() {
            *copies.entry(line.recipient).or_default() += 1;
        }
        // The repeat after all that still gets the first answer, and sends nothing.
        let again = eventually(LIMIT, async || self.mails.send_batch(self.batch.clone()).await.ok()).await;
        let again = again.expect("the repeat is answered").into_inner();
        assert!(again.replayed);
        let mut surplus = 0;
        for (recipient, result) in self.batch.recipients.iter().zip(&again.results) {
            let Some(Outcome::MessageId(id)) = &result.outcome else { panic!("refused: {result:?}") };
            let request = v1::GetMessageRequest { message_id: id.clone() };
            let seen = self.mails.get_message(request).await.unwrap().into_inner();
            assert_eq!(seen.state(), v1::MessageState::Delivered, "{seen:?}");
            let doubts = seen.timeline.iter().filter(|event| event.event == "in_doubt").count();
            let copies = copies.remove(&recipient.email).unwrap_or(0);
            assert!((1..=1 + doubts).contains(&copies), "{copies} copies with {doubts} doubts: {seen:?}");
            surplus += copies - 1;
        }
        assert!(copies.is_empty(), "{copies:?}");
        self.fleet.stop().await;
        surplus
    }
}

#[tokio::test]
async fn every_service_is_killed_under_load_and_each_mail_still_has_one_ending() {
    let loaded = Loaded::start().await;
    for service in ["sender", "renderer", "dispatcher", "analytics", "ingest", "sender"] {
        loaded.moves().await;
        loaded.fleet.kill9(service).await;
    }
    loaded.assert_sound().await;
}

#[tokio::test]
async fn a_sender_that_was_stopped_past_its_lease_sends_no_more_dots_under_it() {
    let loaded = Loaded::start().await;
    loaded.moves().await;
    loaded.fleet.freeze("sender").await;
    // Its claims are given up for doubts while it sleeps.
    let given_up = eventually(LIMIT, async || {
        let output = loaded.fleet.command(&["audit", "--json"]).await;
        let events = |output: &[u8]| serde_json::from_slice::<serde_json::Value>(output).ok()?["events"].as_u64();
        let (before, now) = (events(&output.stdout)?, loaded.taken() as u64);
        // Accepted and delivered are told; what is beyond them is doubt.
        (before > LOAD as u64 + now).then_some(())
    });
    assert!(given_up.await.is_some(), "nobody doubts what the stopped sender had claimed");
    loaded.fleet.thaw("sender").await;
    let surplus = loaded.assert_sound().await;
    // Only dots that were under way when it was stopped; it has ten connections.
    assert!(surplus <= 10, "{surplus} copies too many");
}
