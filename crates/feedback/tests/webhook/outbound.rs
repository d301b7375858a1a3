//! Our own posts.

use crate::support::{Request, ago, now};
use chrono::DateTime;
use mailfleet_feedback::webhook::{
    KeyError, SigningKey, Untimely, VerifyingKey, Window,
    outbound::{MAX_KEYS, SignError, Signer, VerifyError, verify},
};

const SHARED: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SEED: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PUBLIC: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
const BODY: &[u8] = b"{\"type\":\"email.delivered\",\"data\":{}}";

fn signer(keys: &[&str]) -> Signer {
    Signer::new(keys.iter().map(|key| key.parse().unwrap()).collect()).unwrap()
}

fn keys(keys: &[&str]) -> Vec<VerifyingKey> {
    keys.iter().map(|key| key.parse().unwrap()).collect()
}

fn check(keys: &[VerifyingKey], request: &Request) -> Result<(), VerifyError> {
    verify(keys, &request.headers, &request.body, Window::STANDARD, now()).map(drop)
}

#[test]
fn the_vectors_are_signed_as_they_stand_and_verified() {
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let hmac = "v1,kfK1ut7+hu9TkgiV3s8ZZGIacSGZVSUaxK+IkcbBEYs=";
    let ed25519 = "v1a,W1i3iAPRWxZ/kIbTFdAwPPAM/p2wvO8vx67ceBApcoOotaB9Jx3BMGJYZuXz6TlK0GJFVOHDE+ZhZo7HS7WiCw==";
    let signed = signer(&[SHARED, SEED]).sign("msg_test01", at, BODY).unwrap();
    let both = format!("{hmac} {ed25519}");
    assert_eq!(
        signed.fields(),
        [("webhook-id", "msg_test01"), ("webhook-timestamp", "1700000000"), ("webhook-signature", &both)]
    );
    let request = Request::new(&signed.fields(), BODY);
    for key in [SHARED, PUBLIC] {
        let checked = verify(&keys(&[key]), &request.headers, BODY, Window::STANDARD, at).unwrap();
        assert_eq!((checked.id.as_str(), checked.at), ("msg_test01", at));
    }
}

#[test]
fn keys_are_written_and_read_again_and_never_shown() {
    let key: SigningKey = SEED.parse().unwrap();
    assert_eq!(key.to_receiver_text(), PUBLIC);
    // The seed with its public half, as other libraries keep it.
    let text = key.to_secret_text();
    assert!(text.starts_with("whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8D"), "{text}");
    assert_eq!(text.parse::<SigningKey>().unwrap().to_receiver_text(), PUBLIC);
    let shared: SigningKey = SHARED.parse().unwrap();
    assert_eq!((shared.to_secret_text().as_str(), shared.to_receiver_text().as_str()), (SHARED, SHARED));
    for made in [SigningKey::generate_hmac(), SigningKey::generate_ed25519()] {
        let again: SigningKey = made.to_secret_text().parse().unwrap();
        assert_eq!(again.to_receiver_text(), made.to_receiver_text());
        assert_eq!(format!("{made:?}"), "SigningKey(<hidden>)");
        let verifying: VerifyingKey = made.to_receiver_text().parse().unwrap();
        assert_eq!(format!("{verifying:?}"), "VerifyingKey(<hidden>)");
    }
    let halves_of_two = text.replace("AAEC", "AAED");
    for (text, error) in [
        (halves_of_two.as_str(), KeyError::Ed25519),
        ("whsk_AAAA", KeyError::Length { expected: "32 or 64" }),
        ("whpk_AAAA", KeyError::Prefix { expected: "whsec_ or whsk_" }),
        ("", KeyError::Prefix { expected: "whsec_ or whsk_" }),
        ("whsec_ AAAA", KeyError::Base64),
    ] {
        assert_eq!(text.parse::<SigningKey>().unwrap_err(), error);
    }
    assert_eq!(
        format!("whsec_{}", "A".repeat(400)).parse::<VerifyingKey>().unwrap_err().to_string(),
        "must have at most 64 octets behind its prefix"
    );
}

#[test]
fn a_receiver_with_the_old_or_the_new_key_takes_what_both_signed() {
    let (old, new) = (SigningKey::generate_hmac(), SigningKey::generate_ed25519());
    let receivers = [keys(&[&old.to_receiver_text()]), keys(&[&new.to_receiver_text()])];
    let signed = Signer::new(vec![old, new]).unwrap().sign("msg_1", now(), BODY).unwrap();
    let request = Request::new(&signed.fields(), BODY);
    for receiver in &receivers {
        check(receiver, &request).unwrap();
    }
    let stranger = keys(&[&SigningKey::generate_ed25519().to_receiver_text(), SHARED]);
    assert_eq!(check(&stranger, &request), Err(VerifyError::Signature));
}

#[test]
fn whatever_is_changed_is_noticed() {
    for key in [SHARED, SEED] {
        let signer = signer(&[key]);
        let receiver = keys(&[if key == SEED { PUBLIC } else { SHARED }]);
        let good = Request::new(&signer.sign("msg_1", now(), BODY).unwrap().fields(), BODY);
        check(&receiver, &good).unwrap();
        let signature = good.headers["webhook-signature"].to_str().unwrap().to_owned();
        let unknown = format!("v9,AAAA {signature} x");
        check(&receiver, &good.clone().with("webhook-signature", &unknown)).unwrap();
        let many = format!("{}{signature}", "v1,AAAA ".repeat(16));
        let swapped = signature.replacen("v1a,", "v1,", 1).replacen("v1,", if key == SEED { "v1," } else { "v1a," }, 1);
        for forged in [
            good.clone().altered("delivered", "bounced"),
            good.clone().with("webhook-id", "msg_2"),
            good.clone().with("webhook-timestamp", &(now().timestamp() - 1).to_string()),
            good.clone().with("webhook-signature", &swapped),
            good.clone().with("webhook-signature", &signature[..signature.len() - 4]),
            good.clone().with("webhook-signature", &many),
        ] {
            assert_eq!(check(&receiver, &forged), Err(VerifyError::Signature));
        }
        let missing = good.clone().without("webhook-signature");
        assert_eq!(check(&receiver, &missing), Err(VerifyError::Missing("webhook-signature")));
        assert_eq!(check(&receiver, &good.clone().twice("webhook-id")), Err(VerifyError::Ambiguous("webhook-id")));
        let old = Request::new(&signer.sign("msg_1", ago(301), BODY).unwrap().fields(), BODY);
        let stale = Untimely::Stale(Window::STANDARD.past);
        assert_eq!(check(&receiver, &old), Err(VerifyError::Untimely(stale)));
    }
}

#[test]
fn an_id_that_could_be_read_as_another_is_not_signed() {
    let signer = signer(&[SHARED]);
    for id in ["", "msg.1", "msg 1", "msg\n1", "ä", &"m".repeat(129)] {
        assert_eq!(signer.sign(id, now(), BODY), Err(SignError::Id), "{id}");
    }
    let before = DateTime::from_timestamp(-1, 0).unwrap();
    assert_eq!(signer.sign("msg_1", before, BODY), Err(SignError::Time));
    assert_eq!(Signer::new(Vec::new()).unwrap_err(), SignError::Keys);
    let many = (0..=MAX_KEYS).map(|_| SigningKey::generate_hmac()).collect();
    assert_eq!(Signer::new(many).unwrap_err(), SignError::Keys);
}
