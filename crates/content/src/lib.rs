//! From template and variables to signed MIME.
