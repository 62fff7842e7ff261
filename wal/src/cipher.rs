//! Encryption at rest: AES-256-GCM of group bodies, and the wrapping of each segment's data key.
//!
//! Keys and nonces come in as arguments; nothing here draws randomness. Two rules keep a nonce from
//! ever repeating under one key, and each alone would do:
//!
//! - every segment incarnation has a fresh data key, and after a restart no old segment is appended
//!   to;
//! - the nonce is `(epoch, group number)`, and a group number is used again only in a later epoch.
//!
//! A resubmitted write carries the same ciphertext, byte for byte; it is not encrypted again.
//! Without a key file the data key lies unwrapped in the segment header. That protects nothing, and
//! it is still worth having: one code path, and no sector of a live group is ever all zero, which
//! the recovery proof leans on.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use core::fmt;
use zeroize::Zeroize;

use crate::ids::{Epoch, GroupNumber};

/// Bytes of an AES-256 key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a GCM authentication tag (never truncated).
pub const TAG_BYTES: usize = 16;

/// The authentication tag of a group, which the next group repeats.
pub type GroupTag = [u8; TAG_BYTES];

/// A 256-bit key. Wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_BYTES]);

impl SecretKey {
    /// Takes the key's bytes, which must come from a cryptographic source.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(..)")
    }
}

/// Something did not authenticate: wrong key, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAuthentic;

impl fmt::Display for NotAuthentic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the bytes do not authenticate under this key")
    }
}

impl core::error::Error for NotAuthentic {}

/// Encrypts and decrypts the groups of one segment.
#[derive(Clone)]
pub struct SegmentCipher(Aes256Gcm);

impl SegmentCipher {
    /// The cipher of a segment with this data key.
    #[must_use]
    pub fn new(key: &SecretKey) -> Self {
        Self(Aes256Gcm::new(&Key::<Aes256Gcm>::from(key.0)))
    }

    /// Encrypts `body` in place and returns the tag over it and `header`.
    pub fn seal(&self, epoch: Epoch, group: GroupNumber, header: &[u8], body: &mut [u8]) -> GroupTag {
        let nonce = Nonce::from(nonce(epoch, group));
        let tag = self
            .0
            .encrypt_inout_detached(&nonce, header, body.into())
            .expect("a group is far below the 64 GiB that one GCM message may have");
        tag.into()
    }

    /// Decrypts `body` in place. On an error `body` is unchanged.
    ///
    /// # Errors
    /// [`NotAuthentic`] when header, body or tag are not what was sealed for this epoch and group.
    pub fn open(
        &self,
        epoch: Epoch,
        group: GroupNumber,
        header: &[u8],
        body: &mut [u8],
        tag: &GroupTag,
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::from(nonce(epoch, group));
        self.0
            .decrypt_inout_detached(&nonce, header, body.into(), &Tag::from(*tag))
            .map_err(|_| NotAuthentic)
    }
}

impl fmt::Debug for SegmentCipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SegmentCipher(..)")
    }
}

/// `epoch (4, LE) || group number (8, LE)`.
fn nonce(epoch: Epoch, group: GroupNumber) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..4].copy_from_slice(&epoch.0.to_le_bytes());
    nonce[4..].copy_from_slice(&group.0.to_le_bytes());
    nonce
}

const KEY_NAME_TEXT: &[u8] = b"prism wal key name";

/// A data key as it lies in a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKey {
    /// In the clear: no key file is configured.
    Clear([u8; KEY_BYTES]),
    /// Encrypted under the key-encryption key named in the header.
    Wrapped {
        /// Which key-encryption key.
        key_id: [u8; 16],
        /// Random; drawn once per segment incarnation.
        nonce: [u8; NONCE_BYTES],
        /// The encrypted data key.
        ciphertext: [u8; KEY_BYTES],
        /// Tag over the ciphertext and the segment's identity.
        tag: [u8; TAG_BYTES],
    },
}

/// The key that wraps data keys, from the operator's key file.
#[derive(Clone, Debug)]
pub struct KeyEncryptionKey {
    /// Names the key in segment headers, so that the right one is asked for at recovery.
    pub id: [u8; 16],
    /// The key itself.
    pub key: SecretKey,
}

impl KeyEncryptionKey {
    /// A key with the name that follows from it: a tag made with the key over a fixed text, with
    /// the nonce zero, which wrapping never uses (it draws them). The name gives nothing of the key
    /// away.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key.0));
        let tag = cipher
            .encrypt_inout_detached(
                &Nonce::from([0; NONCE_BYTES]),
                KEY_NAME_TEXT,
                (&mut [][..]).into(),
            )
            .expect("no bytes are below the limit of a GCM message");
        Self { id: tag.into(), key }
    }

    /// Wraps a data key. `nonce` must be random; `identity` is what the key belongs to (lane,
    /// segment, incarnation).
    #[must_use]
    pub fn wrap(&self, data_key: &SecretKey, nonce: [u8; NONCE_BYTES], identity: &[u8]) -> StoredKey {
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(self.key.0));
        let mut ciphertext = *data_key.bytes();
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), identity, ciphertext.as_mut_slice().into())
            .expect("32 bytes are below the limit of a GCM message");
        StoredKey::Wrapped {
            key_id: self.id,
            nonce,
            ciphertext,
            tag: tag.into(),
        }
    }
}

/// Why a segment's data key cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The segment is encrypted and no key-encryption key was given.
    KeyNeeded([u8; 16]),
    /// The segment was encrypted under another key-encryption key.
    OtherKey([u8; 16]),
    /// The wrapped key does not authenticate.
    NotAuthentic,
}

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNeeded(id) => write!(
                formatter,
                "the segment is encrypted under key {id:02x?}; none was given"
            ),
            Self::OtherKey(id) => write!(
                formatter,
                "the segment is encrypted under key {id:02x?}, not the one given"
            ),
            Self::NotAuthentic => formatter.write_str("the segment's wrapped key does not authenticate"),
        }
    }
}

impl core::error::Error for KeyError {}

impl StoredKey {
    /// Gets the data key back. `identity` as for [`KeyEncryptionKey::wrap`].
    ///
    /// # Errors
    /// [`KeyError`]: the key is missing, another one, or the stored bytes changed.
    pub fn unwrap_key(&self, key: Option<&KeyEncryptionKey>, identity: &[u8]) -> Result<SecretKey, KeyError> {
        match self {
            Self::Clear(bytes) => Ok(SecretKey(*bytes)),
            Self::Wrapped {
                key_id,
                nonce,
                ciphertext,
                tag,
            } => {
                let key = key.ok_or(KeyError::KeyNeeded(*key_id))?;
                if key.id != *key_id {
                    return Err(KeyError::OtherKey(*key_id));
                }
                let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key.key.0));
                let mut bytes = *ciphertext;
                cipher
                    .decrypt_inout_detached(
                        &Nonce::from(*nonce),
                        identity,
                        bytes.as_mut_slice().into(),
                        &Tag::from(*tag),
                    )
                    .map_err(|_| KeyError::NotAuthentic)?;
                Ok(SecretKey(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_gcm_vector() {
        // Test case 15 of the GCM specification (McGrew and Viega), AES-256, 96-bit IV, no
        // associated data.
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let iv = hex("cafebabefacedbaddecaf888");
        let plain = hex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
        ));
        let epoch = Epoch(u32::from_le_bytes(iv[..4].try_into().unwrap()));
        let group = GroupNumber(u64::from_le_bytes(iv[4..].try_into().unwrap()));
        let cipher = SegmentCipher::new(&SecretKey::new(key.try_into().unwrap()));
        let mut body = plain.clone();
        let tag = cipher.seal(epoch, group, b"", &mut body);
        assert_eq!(tag.to_vec(), hex("b094dac5d93471bdec1a502270e3cc6c"));
        assert_eq!(body[..16].to_vec(), hex("522dc1f099567d07f47f37a32a84427d"));
        cipher.open(epoch, group, b"", &mut body, &tag).unwrap();
        assert_eq!(body, plain);
    }

    #[test]
    fn another_header_group_or_epoch_does_not_authenticate() {
        let cipher = SegmentCipher::new(&SecretKey::new([7; 32]));
        let mut body = b"some records".to_vec();
        let tag = cipher.seal(Epoch(3), GroupNumber(9), b"header", &mut body);
        let sealed = body.clone();
        for (epoch, group, header) in [(4, 9, b"header"), (3, 8, b"header"), (3, 9, b"Header")] {
            let result = cipher.open(Epoch(epoch), GroupNumber(group), header, &mut body, &tag);
            assert_eq!(result, Err(NotAuthentic));
            assert_eq!(body, sealed, "a failed open leaves the bytes alone");
        }
        cipher
            .open(Epoch(3), GroupNumber(9), b"header", &mut body, &tag)
            .unwrap();
        assert_eq!(body, b"some records");
    }

    #[test]
    fn a_wrapped_key_needs_the_same_key_and_identity() {
        let key = KeyEncryptionKey {
            id: [1; 16],
            key: SecretKey::new([2; 32]),
        };
        let data_key = SecretKey::new([3; 32]);
        let stored = key.wrap(&data_key, [4; 12], b"lane 1 segment 2");
        assert_eq!(
            stored.unwrap_key(Some(&key), b"lane 1 segment 2"),
            Ok(data_key.clone())
        );
        assert_eq!(
            stored.unwrap_key(Some(&key), b"lane 1 segment 3"),
            Err(KeyError::NotAuthentic)
        );
        assert_eq!(
            stored.unwrap_key(None, b"lane 1 segment 2"),
            Err(KeyError::KeyNeeded([1; 16]))
        );
        let other = KeyEncryptionKey { id: [9; 16], ..key };
        assert_eq!(
            stored.unwrap_key(Some(&other), b"lane 1 segment 2"),
            Err(KeyError::OtherKey([1; 16]))
        );
        assert_eq!(StoredKey::Clear([3; 32]).unwrap_key(None, b""), Ok(data_key));
    }

    #[test]
    fn a_key_has_the_same_name_every_time_and_another_key_another() {
        let one = KeyEncryptionKey::new(SecretKey::new([1; 32]));
        assert_eq!(one.id, KeyEncryptionKey::new(SecretKey::new([1; 32])).id);
        assert_ne!(one.id, KeyEncryptionKey::new(SecretKey::new([2; 32])).id);
        // Written down in segment headers, so it must stay what it is.
        assert_eq!(one.id.to_vec(), hex("a31b3483fc0f60788331f3dc5db6b581"));
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", SecretKey::new([0xab; 32])), "SecretKey(..)");
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }
}
