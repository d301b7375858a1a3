//! Loads contents and keys, keeps them, and renders one mail.
