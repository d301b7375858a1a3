//! Callers that submit mail without a pause, through every ingest, and repeat what they got no answer to.

use super::{
    config::{DOMAIN, LIMITED, SENDING_DOMAIN},
    dice::Dice,
    ledger::{Answer, Ban, Banned, Call, Ledger},
    now_us, told,
};
use crate::{ALL_SCOPES, Line, bearer};
use domain::MessageId;
use proto::v1::{
    self, domain_service_client::DomainServiceClient, mail::Content, mail_service_client::MailServiceClient,
    recipient_result::Outcome, suppression_service_client::SuppressionServiceClient,
    tenant_service_client::TenantServiceClient,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use tonic::{Code, Status, transport::Channel};

/// In every subject.
pub const SUBJECT_MARK: &str = "zqxsubject";
/// In every body.
pub const BODY_MARK: &str = "zqxbody";
/// In every recipient's local part.
pub const LOCAL_MARK: &str = "zqxlocal";

/// Sites whose receivers do nothing worse than refuse, and at which mail must flow again soon after each fault.
pub const CLEAN: [&str; 6] =
    ["clean0.zqx.test", "clean1.zqx.test", "clean2.zqx.test", "clean3.zqx.test", "clean4.zqx.test", "clean5.zqx.test"];
/// Sites whose receivers drop connections.
const ROUGH: [&str; 3] = ["rough0.zqx.test", "rough1.zqx.test", "rough2.zqx.test"];

/// What receivers at clean sites do, in so many of a hundred cases.
const CLEAN_MIX: [(u64, &str); 7] = [
    (68, "ok"),
    (12, "slow-50ms"),
    (5, "greylist"),
    (6, "tempfail-once"),
    (5, "unknown"),
    (2, "full"),
    (2, "reject-data"),
];
/// What receivers at rough sites do.
const ROUGH_MIX: [(u64, &str); 6] = [
    (35, "ok"),
    (15, "drop-before-dot-once"),
    (15, "cut-body-once"),
    (15, "drop-after-dot-once"),
    (10, "busy-once"),
    (10, "slow-500ms"),
];

/// Between two rounds of calls.
const ROUND: Duration = Duration::from_millis(500);
/// Calls under way at the same time; while there are so many, no more are made.
const MOST_CALLS: usize = 40;
/// Longest wait for one answer.
const CALL_LIMIT: Duration = Duration::from_secs(6);

/// The callers, and what they know.
pub struct Load {
    channels: Vec<Channel>,
    key: String,
    ledger: Mutex<Ledger>,
    /// Becomes true when calls without an answer are not repeated any more.
    give_up: watch::Sender<bool>,
}

impl Load {
    /// Moves in: a tenant, its key, its domain.
    pub async fn prepare(endpoints: &[String], admin: &str) -> anyhow::Result<Arc<Self>> {
        let channels: Vec<Channel> = endpoints
            .iter()
            .map(|endpoint| {
                let endpoint = Channel::from_shared(endpoint.clone())?;
                anyhow::Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy())
            })
            .collect::<anyhow::Result<_>>()?;
        let mut tenants = TenantServiceClient::new(bearer(channels[0].clone(), admin));
        let tenant = v1::CreateTenantRequest { name: "chaos".to_owned() };
        let tenant_id = tenants.create_tenant(tenant).await?.into_inner().tenant_id;
        let key = v1::CreateApiKeyRequest {
            tenant_id,
            name: "chaos".to_owned(),
            scopes: ALL_SCOPES.map(Into::into).to_vec(),
            expires_at: None,
        };
        let key = tenants.create_api_key(key).await?.into_inner().api_key;
        let domain = v1::CreateDomainRequest { domain: SENDING_DOMAIN.to_owned(), ..Default::default() };
        DomainServiceClient::new(bearer(channels[0].clone(), &key)).create_domain(domain).await?;
        Ok(Arc::new(Self { channels, key, ledger: Mutex::default(), give_up: watch::Sender::new(false) }))
    }

    /// What is known so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats nothing any more.
    pub fn give_up(&self) {
        self.give_up.send_replace(true);
    }

    /// Submits until `stop`, then waits until every call has its answer, or [`Self::give_up`] was called.
    pub async fn run(self: Arc<Self>, seed: u64, mut stop: watch::Receiver<bool>) {
        let mut dice = Dice::new(seed, "load");
        let mut tasks = JoinSet::new();
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                () = told(&mut stop) => break,
            }
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= MOST_CALLS {
                continue;
            }
            let batch = Plan::batch(&mut dice, &mut number);
            tasks.spawn(Arc::clone(&self).go(batch, Dice::new(seed, &format!("call {number}"))));
            for _ in 0..2 {
                let single = Plan::single(&mut dice, &mut number);
                tasks.spawn(Arc::clone(&self).go(single, Dice::new(seed, &format!("call {number}"))));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Submits one mail to each of these domains; the recipients.
    pub async fn probe(&self, domains: &[&str]) -> Vec<String> {
        let mut number = 0;
        let recipients: Vec<String> = domains.iter().map(|domain| recipient("first", domain, &mut number)).collect();
        let plan = Plan {
            key: "probe".to_owned(),
            single: true,
            recipients: recipients.clone(),
            suppress: None,
            cancel: None,
        };
        self.submit(&plan, &mut Dice::new(0, "probe")).await;
        recipients
    }

    fn line(&self, turn: usize) -> Line {
        bearer(self.channels[turn % self.channels.len()].clone(), &self.key)
    }

    /// Makes a call, and what belongs to it.
    async fn go(self: Arc<Self>, plan: Plan, mut dice: Dice) {
        let suppress = async {
            if let Some((at, wait)) = plan.suppress {
                tokio::time::sleep(wait).await;
                self.ban(Banned::Recipient(plan.recipients[at].clone())).await;
            }
        };
        let submit = async {
            self.submit(&plan, &mut dice).await;
            let accepted = match self.ledger().calls[&plan.key].answer.clone() {
                Answer::Ok { batch, .. } => Some(batch),
                _ => None,
            };
            if let (Some(wait), Some(batch)) = (plan.cancel, accepted) {
                tokio::time::sleep(wait).await;
                self.ban(Banned::Batch(batch)).await;
            }
        };
        tokio::join!(suppress, submit);
    }

    async fn submit(&self, plan: &Plan, dice: &mut Dice) {
        let recipients = plan.recipients.clone();
        let call = Call { recipients, invoked: now_us(), ..Call::default() };
        self.ledger().calls.insert(plan.key.clone(), call);
        let mut turn = dice.between(0, 2) as usize;
        let answer = loop {
            match self.once(plan, turn).await {
                Ok(answer) => break answer,
                Err(status) if is_refusal(&status) => break Answer::Refused(format!("{:?}", status.code())),
                Err(_) => {}
            }
            if let Some(call) = self.ledger().calls.get_mut(&plan.key) {
                call.unknown += 1;
            }
            if *self.give_up.borrow() {
                return;
            }
            turn += 1;
            tokio::time::sleep(Duration::from_millis(dice.between(100, 600))).await;
        };
        if let Some(call) = self.ledger().calls.get_mut(&plan.key) {
            (call.answer, call.answered) = (answer.clone(), now_us());
        }
        // A caller that lost the answer on his own side.
        if dice.percent(5)
            && let Ok(again) = self.once(plan, turn + 1).await
            && again != answer
            && let Some(call) = self.ledger().calls.get_mut(&plan.key)
        {
            call.contradictions += 1;
        }
    }

    async fn once(&self, plan: &Plan, turn: usize) -> Result<Answer, Status> {
        let mut mails = MailServiceClient::new(self.line(turn));
        let (mail, recipients, idempotency_key) = (Some(plan.mail()), plan.addressed(), plan.key.clone());
        if plan.single {
            let request = v1::SendMessageRequest { mail, recipients, idempotency_key };
            let sent = within(mails.send_message(request)).await?;
            let ids = sent.message_ids.iter().map(|id| simple(id)).collect();
            return Ok(Answer::Ok { batch: sent.batch_id, ids });
        }
        let request = v1::SendBatchRequest { mail, recipients, idempotency_key };
        let sent = within(mails.send_batch(request)).await?;
        let ids = sent.results.iter().map(|result| match &result.outcome {
            Some(Outcome::MessageId(id)) => simple(id),
            _ => None,
        });
        Ok(Answer::Ok { ids: ids.collect(), batch: sent.batch_id })
    }

    /// Forbids something, and repeats it until it is answered.
    async fn ban(&self, of: Banned) {
        for turn in 0.. {
            match self.ban_once(&of, turn).await {
                Ok(()) => {
                    self.ledger().bans.push(Ban { of, committed: now_us() });
                    return;
                }
                Err(status) if is_refusal(&status) || *self.give_up.borrow() => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn ban_once(&self, of: &Banned, turn: usize) -> Result<(), Status> {
        match of {
            Banned::Recipient(recipient) => {
                let request = v1::AddSuppressionRequest {
                    emails: vec![recipient.clone()],
                    reason: String::new(),
                    ..Default::default()
                };
                let mut list = SuppressionServiceClient::new(self.line(turn));
                within(list.add_suppression(request)).await.map(drop)
            }
            Banned::Batch(batch) => {
                let request = v1::CancelBatchRequest { batch_id: batch.clone() };
                let mut mails = MailServiceClient::new(self.line(turn));
                within(mails.cancel_batch(request)).await.map(drop)
            }
        }
    }
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Whether an error says that nothing was done and nothing will be.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

/// A message's id as the sink sees it.
fn simple(id: &str) -> Option<String> {
    id.parse::<MessageId>().ok().map(|id| id.as_uuid().simple().to_string())
}

/// A call to be made.
struct Plan {
    key: String,
    single: bool,
    recipients: Vec<String>,
    /// Which recipient is suppressed, and how long after the call was begun.
    suppress: Option<(usize, Duration)>,
    /// How long after the answer the call is cancelled.
    cancel: Option<Duration>,
}

impl Plan {
    /// One person waits for it.
    fn single(dice: &mut Dice, number: &mut u64) -> Self {
        // In turn, so that each site has one soon.
        let domain = CLEAN[(*number % CLEAN.len() as u64) as usize];
        let recipients = vec![recipient("ok", domain, number)];
        let suppress = dice.percent(3).then(|| (0, Duration::from_millis(dice.between(0, 200))));
        Self { key: format!("single-{number}"), single: true, recipients, suppress, cancel: None }
    }

    /// Many get it.
    fn batch(dice: &mut Dice, number: &mut u64) -> Self {
        let size = dice.between(5, 26) as usize;
        let recipients: Vec<String> = (0..size)
            .map(|_| {
                let (behaviour, domain) = match dice.between(0, 100) {
                    0..65 => (drawn(dice, &CLEAN_MIX), *dice.pick(&CLEAN)),
                    65..80 => (drawn(dice, &ROUGH_MIX), *dice.pick(&ROUGH)),
                    _ => ("ok", LIMITED),
                };
                recipient(behaviour, domain, number)
            })
            .collect();
        let suppress = dice
            .percent(40)
            .then(|| (dice.between(0, size as u64) as usize, Duration::from_millis(dice.between(0, 3_000))));
        let cancel = dice.percent(10).then(|| Duration::from_millis(dice.between(0, 2_000)));
        Self { key: format!("batch-{number}"), single: false, recipients, suppress, cancel }
    }

    fn mail(&self) -> v1::Mail {
        let inline = v1::InlineContent {
            subject: format!("Hello {{{{ name }}}} {SUBJECT_MARK}"),
            html: format!("<p>Hello <b>{{{{ name }}}}</b>, this is for you: {BODY_MARK}.</p>"),
            text: String::new(),
        };
        let mut mail = v1::Mail {
            from: Some(v1::Address { email: format!("news@{SENDING_DOMAIN}"), name: "News".to_owned() }),
            content: Some(Content::Inline(inline)),
            ..v1::Mail::default()
        };
        mail.set_lane(if self.single { v1::Lane::Transactional } else { v1::Lane::Bulk });
        mail
    }

    fn addressed(&self) -> Vec<v1::Recipient> {
        self.recipients.iter().map(|email| crate::mail::recipient(email)).collect()
    }
}

fn recipient(behaviour: &str, domain: &str, number: &mut u64) -> String {
    debug_assert!(domain.ends_with(DOMAIN));
    *number += 1;
    format!("{behaviour}.{LOCAL_MARK}{number}@{domain}")
}

fn drawn(dice: &mut Dice, mix: &[(u64, &'static str)]) -> &'static str {
    let mut at = dice.between(0, mix.iter().map(|(weight, _)| weight).sum());
    for (weight, word) in mix {
        if at < *weight {
            return word;
        }
        at -= weight;
    }
    "ok"
}
