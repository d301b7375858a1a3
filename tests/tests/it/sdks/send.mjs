// Sends one mail through Postmark's own library: send.mjs PLACES, as send.py.
import { ServerClient } from "postmark";

const { url, key } = JSON.parse(process.argv[2]).postmark;
const client = new ServerClient(key, { requestHost: new URL(url).host, useHttps: false });
const mail = {
  From: "Shop <shop@example.com>",
  To: "kim@example.net",
  Subject: "Hello",
  TextBody: "text",
  HtmlBody: "<p>html</p>",
  Metadata: { mid: "01a2089f-f02b-717a-b2a9-35479c6be73a" },
  Headers: [{ Name: "X-A", Value: "b" }],
  Attachments: [{ Name: "a.pdf", Content: "AAEC", ContentType: "application/pdf", ContentID: null }],
};
try {
  const answer = await client.sendEmail(mail);
  console.log("postmark", answer.ErrorCode === 0 ? "taken" : answer.ErrorCode);
} catch (error) {
  console.log("postmark", error.statusCode);
}
