//! A fleet as its operator runs it: `mailfleet up`, every service a process of its own.

use crate::{ALL_SCOPES, Line, bearer, start::SENDING_DOMAIN};
use proto::v1::{
    self, domain_service_client::DomainServiceClient, mail_service_client::MailServiceClient,
    tenant_service_client::TenantServiceClient,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use testkit::{LIMIT, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Channel;

/// Variables that would lead the fleet elsewhere.
const FOREIGN: [&str; 2] = ["DATABASE_URL", "NATS_URL"];

/// What `up` tells other commands, as far as it matters here.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct State {
    /// Whether everything has been ready once.
    pub ready: bool,
    /// Where the API is.
    pub endpoint: String,
    /// The key that administers the fleet.
    pub admin_key_file: PathBuf,
    /// Where the sink keeps what came.
    pub mailbox: PathBuf,
    /// The services and the sink.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Process {
    /// Which one.
    pub name: String,
    /// Its id; `None` while it is being started again.
    pub pid: Option<u32>,
    /// Where it tells its health and metrics.
    pub http: Option<SocketAddr>,
}

/// A fleet of processes. Ends with its value.
pub struct ProcessFleet {
    program: PathBuf,
    folder: crate::home::Folder,
    supervisor: Option<Child>,
}

impl ProcessFleet {
    /// Starts one with these settings, as variables of the environment; returns when it is ready.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let program = tokio::task::spawn_blocking(program).await.unwrap();
        let folder = crate::home::Folder::new();
        let log = std::fs::File::create(folder.path().join("up.log")).unwrap();
        let mut command = Command::new(&program);
        command.arg("up").arg("--dir").arg(folder.path()).envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        for name in FOREIGN {
            command.env_remove(name);
        }
        let supervisor = Some(command.spawn().unwrap());
        let fleet = Self { program, folder, supervisor };
        let ready = eventually(LIMIT * 2, async || fleet.state().filter(|state| state.ready)).await;
        let log = || std::fs::read_to_string(fleet.folder.path().join("up.log")).unwrap_or_default();
        assert!(ready.is_some(), "the fleet did not come up: {}", log());
        fleet
    }

    /// What it says of itself now.
    pub fn state(&self) -> Option<State> {
        let text = std::fs::read(self.folder.path().join("state.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Kills a service, as `kill -9` does, and waits until it has been started again.
    pub async fn kill9(&self, name: &str) {
        let pid = self.pid(name).await;
        signal("-KILL", pid);
        let again = eventually(LIMIT, async || self.find(name).filter(|other| *other != pid)).await;
        assert!(again.is_some(), "{name} is not started again");
    }

    /// Stops a service where it stands, as a machine that is suspended does.
    pub async fn freeze(&self, name: &str) {
        signal("-STOP", self.pid(name).await);
    }

    /// Lets it go on.
    pub async fn thaw(&self, name: &str) {
        signal("-CONT", self.pid(name).await);
    }

    /// The mail service, for the only tenant, who has a domain to send from. Call it once.
    pub async fn mails(&self) -> MailServiceClient<Line> {
        let state = self.state().unwrap();
        let channel = Channel::from_shared(state.endpoint).unwrap().connect_lazy();
        let admin = std::fs::read_to_string(&state.admin_key_file).unwrap();
        let mut tenants = TenantServiceClient::new(bearer(channel.clone(), admin.trim()));
        let tenant = v1::CreateTenantRequest { name: "acme".to_owned() };
        let tenant_id = tenants.create_tenant(tenant).await.unwrap().into_inner().tenant_id;
        let scopes = ALL_SCOPES.map(Into::into).to_vec();
        let key = v1::CreateApiKeyRequest { tenant_id, name: "test".to_owned(), scopes, expires_at: None };
        let key = tenants.create_api_key(key).await.unwrap().into_inner().api_key;
        let domain = v1::CreateDomainRequest { domain: SENDING_DOMAIN.to_owned(), ..Default::default() };
        DomainServiceClient::new(bearer(channel.clone(), &key)).create_domain(domain).await.unwrap();
        MailServiceClient::new(bearer(channel, &key))
    }

    /// Asks a service to end, as a rolling update does; it is started again.
    pub async fn terminate(&self, name: &str) {
        signal("-TERM", self.pid(name).await);
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `[postgres]` or `[nats]` URL of its configuration, which `state.json` does not show.
    pub fn url(&self, section: &str) -> String {
        let config: toml::Table =
            std::fs::read_to_string(self.folder().join("mailfleet.toml")).unwrap().parse().unwrap();
        config[section]["url"].as_str().unwrap().to_owned()
    }

    /// What a service counts: the value of one line of its metrics, such as
    /// `mailfleet_sender_attempts_total{result="in_doubt"}`; 0 without such a line.
    pub async fn metric(&self, service: &str, line: &str) -> f64 {
        let told = eventually(LIMIT, async || {
            let processes = self.state()?.processes;
            let address = processes.into_iter().find(|process| process.name == service)?.http?;
            let mut stream = TcpStream::connect(address).await.ok()?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        });
        let text = told.await.unwrap_or_else(|| panic!("{service} tells no metrics"));
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.state()?.processes.into_iter().find(|process| process.name == name)?.pid
    }

    async fn pid(&self, name: &str) -> u32 {
        let found = eventually(LIMIT, async || self.find(name)).await;
        found.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Ends it as its operator does.
    pub async fn stop(mut self) {
        let mut supervisor = self.supervisor.take().unwrap();
        signal("-TERM", supervisor.id());
        let ended = tokio::task::spawn_blocking(move || supervisor.wait()).await.unwrap();
        assert!(ended.unwrap().success(), "stops cleanly");
    }

    /// Runs an operator's command against it.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--dir").arg(self.folder.path());
        for name in FOREIGN {
            command.env_remove(name);
        }
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }
}

impl Drop for ProcessFleet {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            signal("-TERM", supervisor.id());
            // It stops what it started, its private servers last.
            let _ = supervisor.wait();
        }
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").arg(name).arg(pid.to_string()).status();
    assert!(sent.is_ok(), "cannot send a signal");
}

/// The command, built if need be: beside this program, or beside the folder `deps` that a test's own program is in.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let target = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let program = target.join("mailfleet");
    // A run of the whole workspace has built it beside the tests; a run of this package alone may not have.
    if program.is_file() {
        return program;
    }
    #[expect(clippy::disallowed_methods, reason = "cargo tells a test where it is by this variable alone")]
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "-p", "mailfleet-cli"]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if target.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    let built = build.status().is_ok_and(|status| status.success());
    assert!(built && program.is_file(), "cannot build {}", program.display());
    program
}
