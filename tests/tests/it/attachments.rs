//! Files on their way from the call to the receiver.

use bus::BusConfig;
use bytes::Bytes;
use dispatcher::DispatcherConfig;
use domain::ContentId;
use mail_auth::DkimResult;
use mail_parser::{MessageParser, MimeHeaders};
use mailfleet_tests::{Fleet, fields, mail, reason};
use proto::v1::{self, MessageState};
use sender::{Deadlines, DeskConfig};
use tonic::Code;

fn file(name: &str, kind: &str, shown_as: &str, data: impl Into<Bytes>) -> v1::Attachment {
    v1::Attachment {
        file_name: name.to_owned(),
        content_type: kind.to_owned(),
        content_id: shown_as.to_owned(),
        data: data.into(),
    }
}

/// Every octet there is, in an order without a pattern that base64 or a line could hide.
fn binary(length: usize) -> Bytes {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn files_arrive_byte_for_byte_signed_and_are_stored_once_for_a_whole_batch() {
    let fleet = Fleet::start().await;
    // One that fits through the broker with its mail, and one that the sender has to render itself.
    for (round, size) in [(0, 10_000), (1, 700_000)] {
        let (pdf, logo) = (binary(size), binary(3_001));
        let post = mail().to_all(crate::addresses(4, &format!("file{round}"), "receiver.test")).with(|mail| {
            mail.attachments = vec![
                file("Rechnung März.pdf", "application/pdf", "", pdf.clone()),
                file("logo.png", "image/png", "logo@example.com", logo.clone()),
            ];
        });
        let (_, ids) = fleet.submit_batch(post).await;
        for id in ids.into_iter().flatten() {
            assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
        }
        for index in 0..4 {
            let copies = fleet.sink.mails_to(&format!("file{round}.{index}@receiver.test"));
            assert_eq!(copies.len(), 1);
            assert_eq!(fleet.zone.verify(&copies[0].body).await, [DkimResult::Pass, DkimResult::Pass]);
            let message = MessageParser::new().parse(&copies[0].body[..]).unwrap();
            let found = |kind: &str| {
                let is = |part: &&mail_parser::MessagePart<'_>| {
                    part.content_type().is_some_and(|own| own.subtype() == Some(kind))
                };
                message.parts.iter().find(is).unwrap()
            };
            assert_eq!(found("pdf").contents(), &pdf[..]);
            assert_eq!(found("pdf").attachment_name(), Some("Rechnung März.pdf"));
            assert_eq!(found("png").contents(), &logo[..]);
            assert_eq!(found("png").content_id(), Some("logo@example.com"));
        }
        let name = ContentId::of(fleet.tenant.parse().unwrap(), &[b"attachment", &pdf]);
        let stored = fleet.store.content(name).await.unwrap().unwrap();
        assert_eq!(stored.body, pdf, "named by what it holds, so it is there once");
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_cannot_go_along_is_refused_by_name_and_nothing_is_stored() {
    let fleet = Fleet::start().await;
    let with = |files: Vec<v1::Attachment>| mail().to("ann@receiver.test").with(|mail| mail.attachments = files);
    for (files, field) in [
        (vec![file("../a", "", "", "x")], "mail.attachments[0].file_name"),
        (vec![file("a\r\nBcc: eve@evil.test", "", "", "x")], "mail.attachments[0].file_name"),
        (vec![file("a", "text/html\r\nBcc: eve@evil.test", "", "x")], "mail.attachments[0].content_type"),
        (vec![file("a", "message/rfc822", "", "x")], "mail.attachments[0].content_type"),
        (vec![file("a", "", "", "")], "mail.attachments[0].data"),
        (vec![file("a", "", "logo>\r\nX: y", "x")], "mail.attachments[0].content_id"),
        (vec![file("a", "", "l", "x"), file("b", "", "l", "x")], "mail.attachments[1].content_id"),
        (vec![file("a", "", "", "x"); 51], "mail.attachments"),
        (vec![file("a", "", "", binary(18 * 1024 * 1024 + 1))], "mail.attachments[0].data"),
    ] {
        let refused = fleet.mails().send_message(with(files).message()).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    let heavy = vec![file("a", "", "", binary(10 << 20)), file("b", "", "", binary(9 << 20))];
    let refused = fleet.mails().send_message(with(heavy).message()).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), fields(&refused)), ("MAIL_TOO_LARGE", vec!["mail.attachments".to_owned()]));
    let raw = with(vec![file("a", "", "", "x")]).with(|mail| {
        mail.content = Some(v1::mail::Content::RawMime(Bytes::from_static(b"From: news@example.com\r\n\r\nx\r\n")));
    });
    let refused = fleet.mails().send_message(raw.message()).await.unwrap_err();
    assert_eq!(fields(&refused), ["mail.attachments"]);
    assert_eq!(fleet.store.audit().await.unwrap().messages, 0);
}

#[tokio::test]
async fn the_largest_mail_that_is_taken_arrives() {
    // Unoptimised, such a mail takes its seconds: what the tests wait for is a tenth of the defaults, and too short.
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.bus.ack_wait = BusConfig::default().ack_wait;
            settings.dispatcher.repair_after = DispatcherConfig::default().repair_after;
            settings.sender.desk = DeskConfig::default();
            settings.sender.deadlines = Deadlines::default();
        })
        .start()
        .await;
    let data = binary(18 * 1024 * 1024);
    let post = mail().to("bob@receiver.test");
    let id = fleet.submit(post.with(|mail| mail.attachments = vec![file("a.bin", "", "", data.clone())])).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    let copy = &fleet.sink.mails_to("bob@receiver.test")[0];
    let message = MessageParser::new().parse(&copy.body[..]).unwrap();
    assert!(message.attachment(0).unwrap().contents() == &data[..]);
    fleet.assert_sound().await;
}
