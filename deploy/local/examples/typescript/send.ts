// Sends a batch and follows what becomes of it.
//
//   npm install && npm run generate
//   MAILFLEET_ENDPOINT=127.0.0.1:7025 MAILFLEET_KEY=... npm start -- news@example.com ada@example.org ...

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { MailService } from "./generated/mailfleet/v1/mail_pb.js";

const [sender, ...recipients] = process.argv.slice(2);
const { MAILFLEET_ENDPOINT: endpoint, MAILFLEET_KEY: key } = process.env;
if (!sender || recipients.length === 0 || !endpoint || !key) {
  console.error("usage: MAILFLEET_ENDPOINT=… MAILFLEET_KEY=… npm start -- FROM TO…");
  process.exit(2);
}

const authorize: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${key}`);
  return next(request);
};
const transport = createGrpcTransport({ baseUrl: `http://${endpoint}`, interceptors: [authorize] });
const mail = createClient(MailService, transport);

/** Why a call was refused, for programs: a value of ErrorReason (field 1 of google.rpc.ErrorInfo). */
function reason(error: ConnectError): string {
  for (const detail of error.details) {
    if ("value" in detail && detail.type === "google.rpc.ErrorInfo") {
      const reader = new BinaryReader(detail.value);
      const [field] = reader.tag();
      if (field === 1) return reader.string();
    }
  }
  return "";
}

/** Repeats a call while that can help. The same idempotency key makes the repeats harmless. */
async function repeated<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      const status = ConnectError.from(error);
      const passes = [Code.Unavailable, Code.DeadlineExceeded, Code.ResourceExhausted].includes(status.code);
      if (!passes || tries === 5) throw status;
      await sleep(200 * 2 ** tries * (0.5 + Math.random() / 2));
    }
  }
}

try {
  const request = {
    mail: {
      from: { email: sender, name: "The shop" },
      content: { case: "inline" as const, value: { subject: "Hello {{ name }}", text: "Dear {{ name }}, it is here." } },
    },
    recipients: recipients.map((email) => ({ email, variablesJson: JSON.stringify({ name: email.split("@")[0] }) })),
    idempotencyKey: randomUUID(),
  };
  const answer = await repeated(() => mail.sendBatch(request, { timeoutMs: 30_000 }));
  const waiting = new Set<string>();
  answer.results.forEach(({ outcome }, at) => {
    if (outcome.case === "messageId") waiting.add(outcome.value);
    else if (outcome.case === "refused") console.log(`${recipients[at]}: refused: ${outcome.value.description}`);
  });
  // From the beginning of the log: what has happened meanwhile is told as well.
  for await (const { event: watched } of mail.watchEvents({ afterSeq: 0n }, { timeoutMs: 120_000 })) {
    const event = watched?.event?.event;
    if (watched && event && waiting.has(watched.messageId) && event !== "accepted" && event !== "deferred") {
      console.log(`${watched.recipient}: ${event}`);
      waiting.delete(watched.messageId);
    }
    if (waiting.size === 0) break;
  }
} catch (error) {
  const status = ConnectError.from(error);
  console.error(`refused: ${reason(status)}: ${status.rawMessage}`);
  process.exitCode = 1;
}
