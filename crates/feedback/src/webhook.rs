//! Verifies and reads what providers post about the mails that they carried.
