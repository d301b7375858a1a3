//! Reads the mails that come back: delivery reports, complaints, automatic replies.
