"""Sends a batch and follows what becomes of it.

    ./generate.sh
    MAILFLEET_ENDPOINT=127.0.0.1:7025 MAILFLEET_KEY=... .venv/bin/python send.py news@example.com ada@example.org ...
"""

import json
import os
import sys
import uuid

import grpc
from grpc_status import rpc_status

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "generated"))

from google.rpc import error_details_pb2  # noqa: E402
from mailfleet.v1 import mail_pb2, mail_pb2_grpc  # noqa: E402

# A repeat with the same key is answered as the first call was, so it does no harm.
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "mailfleet.v1.MailService", "method": "SendBatch"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "10s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)


def reason(error: grpc.RpcError) -> str:
    """Why a call was refused, for programs: a value of ErrorReason."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return ""


def main(sender: str, recipients: list[str]) -> int:
    key = [("authorization", f"Bearer {os.environ['MAILFLEET_KEY']}")]
    options = [("grpc.service_config", RETRIES)]
    with grpc.insecure_channel(os.environ["MAILFLEET_ENDPOINT"], options) as channel:
        mail = mail_pb2_grpc.MailServiceStub(channel)
        request = mail_pb2.SendBatchRequest(
            mail=mail_pb2.Mail(
                **{"from": mail_pb2.Address(email=sender, name="The shop")},
                inline=mail_pb2.InlineContent(subject="Hello {{ name }}", text="Dear {{ name }}, it is here."),
            ),
            recipients=[
                mail_pb2.Recipient(email=email, variables_json=json.dumps({"name": email.split("@")[0]}))
                for email in recipients
            ],
            idempotency_key=str(uuid.uuid4()),
        )
        try:
            answer = mail.SendBatch(request, metadata=key, timeout=30)
        except grpc.RpcError as error:
            print(f"refused: {reason(error)}: {error.details()}", file=sys.stderr)
            return 1
        waiting = set()
        for email, result in zip(recipients, answer.results):
            if result.HasField("message_id"):
                waiting.add(result.message_id)
            else:
                print(f"{email}: refused: {result.refused.description}")
        # From the beginning of the log: what has happened meanwhile is told as well.
        events = mail.WatchEvents(mail_pb2.WatchEventsRequest(after_seq=0), metadata=key, timeout=120)
        for watched in events:
            event = watched.event
            if event.message_id in waiting and event.event.event not in ("accepted", "deferred"):
                print(f"{event.recipient}: {event.event.event}")
                waiting.discard(event.message_id)
            if not waiting:
                break
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
