//! Turns chunks of references into chunks of finished MIME.
