"""Asks the libraries of the providers what they think of requests: check.py FILE

The file holds a list of cases; the answer is a list of what each library says, and requests that the libraries made.
"""
import base64
import hashlib
import hmac
import json
import sys
from datetime import datetime, timedelta, timezone

import standardwebhooks
import svix
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from sendgrid.helpers.eventwebhook import EventWebhook


def sendgrid(case, headers, body):
    signature = headers["x-twilio-email-event-webhook-signature"]
    timestamp = headers["x-twilio-email-event-webhook-timestamp"]
    webhook = EventWebhook(case["key"])
    return webhook.verify_signature(body.decode(), signature, timestamp)


def mailgun(case, headers, body):
    given = json.loads(body)["signature"]
    mac = hmac.new(case["key"].encode(), (given["timestamp"] + given["token"]).encode(), hashlib.sha256)
    return hmac.compare_digest(mac.hexdigest(), given["signature"])


def canonical(envelope):
    if envelope["Type"] == "Notification":
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    else:
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    return "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope).encode()


def digest(envelope):
    return {"1": hashes.SHA1(), "2": hashes.SHA256()}[envelope["SignatureVersion"]]


def sns(case, headers, body):
    envelope = json.loads(body)
    key = x509.load_pem_x509_certificate(case["key"].encode()).public_key()
    key.verify(base64.b64decode(envelope["Signature"]), canonical(envelope), padding.PKCS1v15(), digest(envelope))
    return True


def standard(case, headers, body):
    standardwebhooks.Webhook(case["key"]).verify(body, headers)
    return True


def resend(case, headers, body):
    svix.Webhook(case["key"]).verify(body, headers)
    return True


def ed25519(case, headers, body):
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(case["key"].removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signatures = [s for s in headers["webhook-signature"].split(" ") if s.startswith("v1a,")]
    key.verify(base64.b64decode(signatures[0].removeprefix("v1a,")), signed)
    return True


LIBRARIES = {f.__name__: f for f in (sendgrid, mailgun, sns, standard, resend, ed25519)}


def says(case):
    try:
        return bool(LIBRARIES[case["library"]](case, case["headers"], base64.b64decode(case["body"])))
    except Exception:
        return False


def made():
    """Requests that were signed here, both versions of SNS among them."""
    now = datetime.now(timezone.utc)
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    body = '{"type":"email.delivered","data":{}}'
    for library, prefix in ((standardwebhooks, "webhook"), (svix, "svix")):
        signature = library.Webhook(secret).sign("msg_1", now, body)
        yield {
            "library": "standard",
            "key": secret,
            "headers": {
                f"{prefix}-id": "msg_1",
                f"{prefix}-timestamp": str(int(now.timestamp())),
                f"{prefix}-signature": signature,
            },
            "body": base64.b64encode(body.encode()).decode(),
        }
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    for version in ("1", "2"):
        envelope = {
            "Type": "Notification",
            "MessageId": "11111111-2222-3333-4444-555555555555",
            "TopicArn": "arn:aws:sns:eu-west-1:111122223333:ses-events",
            "Message": "größe 😀\nsecond line",
            "Timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "SignatureVersion": version,
            "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-example.pem",
        }
        signature = key.sign(canonical(envelope), padding.PKCS1v15(), digest(envelope))
        envelope["Signature"] = base64.b64encode(signature).decode()
        yield {
            "library": "sns",
            "key": certificate.public_bytes(serialization.Encoding.PEM).decode(),
            "headers": {
                "x-amz-sns-message-type": envelope["Type"],
                "x-amz-sns-message-id": envelope["MessageId"],
                "x-amz-sns-topic-arn": envelope["TopicArn"],
            },
            "body": base64.b64encode(json.dumps(envelope).encode()).decode(),
        }


with open(sys.argv[1]) as file:
    cases = json.load(file)
print(json.dumps({"says": [says(case) for case in cases], "made": list(made())}))
