//! A real mail system bounces into the fleet: Postfix takes a mail of ours, cannot deliver it, and says so.

use super::inbound;
use domain::Lane;
use mailfleet_tests::mail;
use proto::v1::MessageState;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use testkit::until;

/// How Postfix is set up: mail for the return paths' domain goes to the fleet, all other to its sink.
const MAIN: &str = "compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
maillog_file = @DIR@/maillog
maillog_file_prefixes = @DIR@
multi_instance_enable = no
syslog_name = bouncing
myhostname = mta.receiver.test
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtp_dns_support_level = disabled
smtp_host_lookup = native
maximal_queue_lifetime = 0
bounce_queue_lifetime = 5m
queue_run_delay = 1s
transport_maps = inline:{ {@BOUNCES@=smtp:[127.0.0.1]:@INBOUND@}, {receiver.test=smtp:[127.0.0.1]:@SINK@} }
";

/// A private Postfix; ended when dropped.
struct Postfix(PathBuf);

impl Postfix {
    /// Starts one.
    fn start(port: u16, main: &str) -> Result<Self, String> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers");
        if !Path::new("/usr/sbin/postfix").exists() {
            return Err("Postfix is not installed; run: tests/bench/peers/install.sh postfix".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("Postfix needs root".to_owned());
        }
        let dir = std::env::temp_dir().join(format!("mailfleet-mta-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&dir);
        for folder in ["etc", "queue", "data"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for open in [&dir, &dir.join("etc"), &dir.join("queue")] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(Command::new("chown").arg("postfix").arg(dir.join("data")).status().unwrap().success());
        for file in ["dynamicmaps.cf", "postfix-files"] {
            let _none = fs::copy(Path::new("/etc/postfix").join(file), dir.join("etc").join(file));
        }
        let fill = |text: &str| text.replace("@DIR@", dir.to_str().unwrap()).replace("@PORT@", &port.to_string());
        let master = fs::read_to_string(peers.join("master.cf")).unwrap();
        fs::write(dir.join("etc/main.cf"), fill(main)).unwrap();
        fs::write(dir.join("etc/master.cf"), fill(&master)).unwrap();
        let postfix = Self(dir);
        let started = postfix.command("start").output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Ok(postfix)
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new("/usr/sbin/postfix");
        command.arg("-c").arg(self.0.join("etc")).arg(what);
        command
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _stopped = self.command("stop").output();
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn what_a_real_postfix_cannot_deliver_comes_back_and_is_understood() {
    let (fleet, at) = inbound::start().await;
    let (port, sink) = (free_port(), fleet.sink.addr().port());
    let (_, some) = inbound::delivered(&fleet, "ann@receiver.test").await;
    let bounces = some.rsplit('@').next().unwrap().to_owned();
    let main = MAIN
        .replace("@BOUNCES@", &bounces)
        .replace("@INBOUND@", &at.port().to_string())
        .replace("@SINK@", &sink.to_string());
    let _postfix = match Postfix::start(port, &main) {
        Ok(postfix) => postfix,
        Err(why) => {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postfix.skipped");
            fs::write(file, format!("a real Postfix that bounces: {why}\n")).unwrap();
            return;
        }
    };
    let mta = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    until("Postfix listens", async || tokio::net::TcpStream::connect(mta).await.is_ok()).await;
    // What the sink says to these recipients, and what becomes of the mails that had been taken before.
    for (recipient, event, class) in [
        ("unknown@receiver.test", "returned", "invalid_recipient"),
        ("full@receiver.test", "returned_soft", "quota_issues"),
        ("reject-data@receiver.test", "returned_block", "policy_related"),
    ] {
        let (id, sender) = inbound::delivered(&fleet, &format!("by-{}", recipient.replace("-", "."))).await;
        let mail = "From: news@example.com\nTo: somebody\nSubject: News\n\nNews\n";
        let taken = inbound::Client::connect(mta).await.bring(&sender, recipient, mail).await;
        assert!(taken.starts_with("250 "), "{recipient}: {taken}");
        until(event, async || !inbound::events(&fleet, id, event).await.is_empty()).await;
        let told = inbound::events(&fleet, id, event).await.remove(0);
        assert_eq!((told.bounce_class.as_str(), told.source.as_str()), (class, "mail"), "{recipient}: {told:?}");
    }
    let gone = fleet.submit(mail().lane(Lane::Transactional).to("by-unknown@receiver.test")).await;
    assert_eq!(fleet.ended(gone).await.state(), MessageState::Suppressed);
    fleet.assert_sound().await;
}
