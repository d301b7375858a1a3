//! Encryption of keys at rest: AES-256-GCM under one master key that is kept in a file, apart from the
//! database that holds what it seals.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Length of the master key in bytes.
const KEY_LEN: usize = 32;
/// The only form there is: this byte, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;
/// Length of the tag in bytes.
const TAG_LEN: usize = 16;
/// Largest key file that is read: raw, or base64 with some white space.
const MAX_KEY_FILE: u64 = 256;

/// Seals and opens. Nonces are random: one master key is good for 2^32 sealings, far more keys than a fleet
/// has.
pub struct Sealer {
    key: LessSafeKey,
    derive: Prk,
}

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or written.
    #[error("cannot access the master key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file does not hold 32 bytes, raw or as base64.
    #[error("the master key file {path} does not hold 32 bytes, raw or as base64")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// It was sealed under another key or for another purpose, or has been changed.
    #[error("cannot open what was sealed: another key, another owner, or it has been changed")]
    Open,
    /// The system gave no random numbers, or the text is too long.
    #[error("cannot seal")]
    Seal,
}

impl Sealer {
    /// The sealer of this master key.
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        let derive = Salt::new(HKDF_SHA256, b"mailfleet").extract(key);
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes is an AES-256 key");
        Self { key: LessSafeKey::new(key), derive }
    }

    /// A key of its own for `purpose`, which derives from the master key (HKDF, RFC 5869): the same for every
    /// process that has it, and of no use to find it.
    pub fn derive(&self, purpose: &str) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        let info = [purpose.as_bytes()];
        let bytes = self.derive.expand(&info, HKDF_SHA256).expect("32 bytes are one hash");
        bytes.fill(&mut key).expect("as many as were asked for");
        key
    }

    /// Reads the master key: 32 raw bytes, or those as base64.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let in_file = |source| SealError::File { path: path.to_owned(), source };
        if fs::metadata(path).map_err(in_file)?.len() > MAX_KEY_FILE {
            return Err(SealError::Key { path: path.to_owned() });
        }
        let bytes = fs::read(path).map_err(in_file)?;
        let raw = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).ok();
        let decoded = || <[u8; KEY_LEN]>::try_from(STANDARD.decode(bytes.trim_ascii()).ok()?).ok();
        let key = raw.or_else(decoded).ok_or_else(|| SealError::Key { path: path.to_owned() })?;
        Ok(Self::new(&key))
    }

    /// Writes a new master key, as base64, to a file that must not exist and that only its owner may read.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn generate_key_file(path: &Path) -> Result<(), SealError> {
        let in_file = |source| SealError::File { path: path.to_owned(), source };
        let mut key = [0; KEY_LEN];
        rand::fill(&mut key).map_err(|_| SealError::Seal)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(in_file)?;
        file.write_all(STANDARD.encode(key).as_bytes()).and_then(|()| file.sync_all()).map_err(in_file)
    }

    /// Seals a text for the owner that `aad` names; only the same name opens it.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn seal(&self, aad: &[u8], text: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Seal)?;
        let mut body = Vec::with_capacity(text.len() + TAG_LEN);
        body.extend_from_slice(text);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_used, Aad::from(aad), &mut body).map_err(|_| SealError::Seal)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what was sealed for the owner that `aad` names.
    ///
    /// # Errors
    /// When it was sealed under another key or for another owner, or is not what was sealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Open)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Open)?;
        if version != VERSION {
            return Err(SealError::Open);
        }
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key.open_in_place(nonce, Aad::from(aad), &mut body).map_err(|_| SealError::Open)?.len();
        body.truncate(length);
        Ok(body)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(<hidden>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(&[7; KEY_LEN])
    }

    #[test]
    fn what_is_sealed_can_be_opened_by_its_owner_only() {
        let sealed = sealer().seal(b"key 1", b"secret").expect("seals");
        assert_eq!(sealer().open(b"key 1", &sealed).expect("opens"), b"secret");
        assert!(sealer().open(b"key 2", &sealed).is_err());
        assert!(Sealer::new(&[8; KEY_LEN]).open(b"key 1", &sealed).is_err());
        assert_ne!(sealed, sealer().seal(b"key 1", b"secret").expect("seals"));
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_noticed() {
        let sealed = sealer().seal(b"", b"secret").expect("seals");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer().open(b"", &changed).is_err(), "byte {index}");
            assert!(sealer().open(b"", &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn derived_keys_depend_on_the_purpose_and_the_master_key_alone() {
        let key = sealer().derive("tokens");
        assert_eq!(key, sealer().derive("tokens"));
        assert_ne!(key, sealer().derive("other"));
        assert_ne!(key, Sealer::new(&[8; KEY_LEN]).derive("tokens"));
        assert_ne!(key, [7; KEY_LEN]);
    }

    #[test]
    fn a_generated_key_file_is_read_back_and_never_overwritten() {
        let path = std::env::temp_dir().join(format!("mailfleet-master-key-{}", std::process::id()));
        let _absent = fs::remove_file(&path);
        Sealer::generate_key_file(&path).expect("writes");
        let sealed = Sealer::from_file(&path).expect("reads").seal(b"a", b"b").expect("seals");
        assert_eq!(Sealer::from_file(&path).expect("reads").open(b"a", &sealed).expect("opens"), b"b");
        assert!(Sealer::generate_key_file(&path).is_err());
        fs::write(&path, b"short").expect("writes");
        assert!(matches!(Sealer::from_file(&path), Err(SealError::Key { .. })));
        fs::remove_file(&path).expect("removes");
    }
}
