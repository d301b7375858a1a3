"""Sends one mail through each provider's own library: send.py PLACES

PLACES is JSON: where each provider is, and the key there. Tells a line for each: its name, and `taken` or the status.
"""
import json
import sys

import boto3
import mailgun.client
import resend
import resend.exceptions
import sendgrid
import sendgrid.helpers.mail as parts
import sparkpost
import sparkpost.exceptions
from botocore.config import Config
from botocore.exceptions import ClientError

TO, MID = "kim@example.net", "01a2089f-f02b-717a-b2a9-35479c6be73a"
MIME = f"From: Shop <shop@example.com>\r\nTo: {TO}\r\nSubject: Gr\u00fc\u00dfe\r\n\r\nHello {{{{ you }}}}\r\n"


def by_sendgrid(url, key):
    mail = parts.Mail("shop@example.com", TO, "Hello", "text", "<p>html</p>")
    mail.add_custom_arg(parts.CustomArg("mid", MID))
    mail.add_header(parts.Header("List-Unsubscribe", "<https://click.example.com/u/1>"))
    mail.add_attachment(parts.Attachment("AAEC", "a.pdf", "application/pdf", "attachment"))
    client = sendgrid.SendGridAPIClient(key, host=url)
    try:
        answer = client.send(mail)
    except Exception as error:
        return error.status_code
    assert answer.headers["X-Message-Id"]
    return "taken"


def by_ses(url, key):
    client = boto3.client(
        "sesv2", region_name="eu-central-1", endpoint_url=url, aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key=key, config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        answer = client.send_email(
            Destination={"ToAddresses": [TO]}, Content={"Raw": {"Data": MIME.encode()}},
            EmailTags=[{"Name": "mid", "Value": MID}], ConfigurationSetName="events",
        )
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    assert answer["MessageId"]
    return "taken"


def by_resend(url, key):
    resend.api_url, resend.api_key = url, key
    mail = {
        "from": "Shop <shop@example.com>", "to": [TO], "subject": "Hello", "html": "<p>html</p>", "text": "text",
        "headers": {"X-A": "b"}, "tags": [{"name": "mid", "value": MID}],
        "attachments": [{"filename": "a.pdf", "content": "AAEC"}],
    }
    try:
        answer = resend.Emails.send(mail, {"idempotency_key": MID})
    except resend.exceptions.ResendError as error:
        return int(error.code)
    assert answer["id"]
    return "taken"


def by_sparkpost(url, key):
    client = sparkpost.SparkPost(key, url.removeprefix("http://"))
    # The library knows https alone.
    client.transmissions.base_uri = client.transmissions.base_uri.replace("https://", "http://")
    try:
        answer = client.transmissions.send(
            recipients=[{"address": {"email": TO}, "metadata": {"mid": MID}}], email_rfc822=MIME,
            perform_substitutions=False,
        )
    except sparkpost.exceptions.SparkPostAPIException as error:
        return error.status
    assert answer["total_accepted_recipients"] == 1
    return "taken"


def by_mailgun(url, key):
    client = mailgun.client.Client(auth=("api", key), api_url=url)
    answer = client.mimemessage.create(
        data={"to": TO, "v:mid": MID}, files={"message": ("message.eml", MIME.encode())}, domain="mg.example.com",
    )
    return "taken" if answer.status_code == 200 else answer.status_code


for name, place in json.loads(sys.argv[1]).items():
    send = globals().get(f"by_{name}")
    if send:
        print(name, send(place["url"], place["key"]))
