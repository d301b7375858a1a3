// Asks the libraries of the providers what they think of requests: check.mjs FILE
//
// The file holds a list of cases; the answer is a list of what each library says, null where there is none.
import { readFileSync } from "node:fs";
import https from "node:https";
import { PassThrough } from "node:stream";
import { EventWebhook } from "@sendgrid/eventwebhook";
import MessageValidator from "sns-validator";
import { Webhook } from "standardwebhooks";

const header = (name) => `x-twilio-email-event-webhook-${name}`;

const libraries = {
  sendgrid({ key, headers }, body) {
    const webhook = new EventWebhook();
    const parsed = webhook.convertPublicKeyToECDSA(key);
    return webhook.verifySignature(parsed, body, headers[header("signature")], headers[header("timestamp")]);
  },
  standard({ key, headers }, body) {
    new Webhook(key).verify(body, headers);
    return true;
  },
  // Its validator fetches the certificate: it gets the one of the case, and each case one of its own.
  sns({ key }, body) {
    https.get = (_url, answer) => {
      const response = Object.assign(new PassThrough(), { statusCode: 200 });
      answer(response);
      response.end(key);
      return { on() {} };
    };
    return new Promise((done) => new MessageValidator().validate(JSON.parse(body), (error) => done(!error)));
  },
};

const says = async (one) => {
  const library = libraries[one.library];
  if (!library) return null;
  try {
    return Boolean(await library(one, Buffer.from(one.body, "base64").toString("utf8")));
  } catch {
    return false;
  }
};

const answers = [];
for (const one of JSON.parse(readFileSync(process.argv[2], "utf8"))) answers.push(await says(one));
console.log(JSON.stringify({ says: answers, made: [] }));
