//! Device images by content hash: what a program loads is sent at most once per session.
//!
//! The registry is independent of any session, so that the daemon can share one between workers later. All methods may be called from
//! any lane's thread; the one lock is held for look-ups and for appending a chunk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// BLAKE3 hash of an image's bytes.
pub type ImageHash = [u8; 32];

/// Most images of a registry, complete or not: many small ones take memory, too.
const MAX_IMAGES: usize = 1 << 16;

/// Why an image was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("image of {len} bytes exceeds the limit of {limit} bytes")]
    TooLarge { len: u64, limit: u64 },
    #[error("more than {MAX_IMAGES} images")]
    TooMany,
    #[error("chunk at {offset} does not continue the image ({have} bytes so far)")]
    OutOfOrder { offset: u64, have: u64 },
    #[error("image is incomplete: {have} of {len} bytes")]
    Incomplete { have: u64, len: u64 },
    #[error("image content does not match its hash")]
    HashMismatch,
    #[error("no image with this hash was sent")]
    Unknown,
}

#[derive(Default)]
struct State {
    images: HashMap<ImageHash, Arc<[u8]>>,
    partial: HashMap<ImageHash, Vec<u8>>,
    /// Bytes of all images and partial images.
    held: u64,
}

impl State {
    fn is_full(&self) -> bool {
        self.images.len() + self.partial.len() >= MAX_IMAGES
    }
}

/// The store of images.
pub struct Registry {
    state: Mutex<State>,
    max_image: u64,
    max_total: u64,
}

/// What a registry holds and has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryUse {
    pub images: u64,
    pub bytes: u64,
}

impl Registry {
    /// `max_image`: bytes of one image, `max_total`: bytes of all together.
    pub fn new(max_image: u64, max_total: u64) -> Self {
        Self { state: Mutex::default(), max_image, max_total }
    }

    /// The image, if it is here.
    pub fn get(&self, hash: &ImageHash) -> Option<Arc<[u8]>> {
        self.lock().images.get(hash).cloned()
    }

    /// Appends bytes to an image that is being sent. Chunks come in order; offset 0 starts again.
    ///
    /// # Errors
    /// A chunk out of order, or more bytes than the limits allow.
    pub fn chunk(&self, hash: &ImageHash, offset: u64, bytes: &[u8]) -> Result<(), RegistryError> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.images.contains_key(hash) {
            // Two threads send the same image: the second one's bytes are not needed.
            return Ok(());
        }
        if offset == 0
            && let Some(old) = state.partial.remove(hash)
        {
            // With its capacity: memory that is not counted must not stay.
            state.held -= old.len() as u64;
        }
        if !state.partial.contains_key(hash) && state.is_full() {
            return Err(RegistryError::TooMany);
        }
        let partial = state.partial.entry(*hash).or_default();
        let have = partial.len() as u64;
        let error = if offset != have {
            Some(RegistryError::OutOfOrder { offset, have })
        } else if have + bytes.len() as u64 > self.max_image {
            Some(RegistryError::TooLarge { len: have + bytes.len() as u64, limit: self.max_image })
        } else if state.held + bytes.len() as u64 > self.max_total {
            Some(RegistryError::TooLarge { len: state.held + bytes.len() as u64, limit: self.max_total })
        } else {
            None
        };
        if let Some(error) = error {
            state.held -= have;
            state.partial.remove(hash);
            return Err(error);
        }
        partial.extend_from_slice(bytes);
        state.held += bytes.len() as u64;
        Ok(())
    }

    /// Enters an image whose chunks have all been sent.
    ///
    /// # Errors
    /// Bytes are missing or do not have this hash.
    pub fn commit(&self, hash: &ImageHash, len: u64) -> Result<(), RegistryError> {
        let bytes = {
            let mut state = self.lock();
            if state.images.contains_key(hash) {
                return Ok(());
            }
            state.partial.remove(hash).ok_or(RegistryError::Unknown)?
        };
        let have = bytes.len() as u64;
        // Hashing a large image takes a while: other lanes go on meanwhile.
        let error = if have != len {
            Some(RegistryError::Incomplete { have, len })
        } else if blake3::hash(&bytes).as_bytes() != hash {
            Some(RegistryError::HashMismatch)
        } else {
            None
        };
        let mut state = self.lock();
        if let Some(error) = error {
            state.held -= have;
            return Err(error);
        }
        if state.images.insert(*hash, bytes.into()).is_some() {
            state.held -= have;
        }
        // Another lane may have begun to send it again meanwhile.
        if let Some(other) = state.partial.remove(hash) {
            state.held -= other.len() as u64;
        }
        Ok(())
    }

    /// Enters an image that was made here; returns its hash.
    ///
    /// # Errors
    /// More bytes than the limits allow.
    pub fn insert(&self, bytes: Vec<u8>) -> Result<ImageHash, RegistryError> {
        let len = bytes.len() as u64;
        if len > self.max_image {
            return Err(RegistryError::TooLarge { len, limit: self.max_image });
        }
        let hash = *blake3::hash(&bytes).as_bytes();
        let mut state = self.lock();
        if state.held + len > self.max_total {
            return Err(RegistryError::TooLarge { len: state.held + len, limit: self.max_total });
        }
        if !state.images.contains_key(&hash) && state.is_full() {
            return Err(RegistryError::TooMany);
        }
        if state.images.insert(hash, bytes.into()).is_none() {
            state.held += len;
        }
        Ok(hash)
    }

    /// Number and bytes of the committed images.
    pub fn usage(&self) -> RegistryUse {
        let state = self.lock();
        RegistryUse {
            images: state.images.len() as u64,
            bytes: state.images.values().map(|image| image.len() as u64).sum(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> ImageHash {
        *blake3::hash(bytes).as_bytes()
    }

    #[test]
    fn an_image_arrives_in_chunks() {
        let registry = Registry::new(100, 1000);
        let image: Vec<u8> = (0..50).collect();
        let id = hash(&image);
        registry.chunk(&id, 0, &image[..20]).unwrap();
        assert_eq!(registry.get(&id), None);
        registry.chunk(&id, 20, &image[20..]).unwrap();
        registry.commit(&id, 50).unwrap();
        assert_eq!(registry.get(&id).as_deref(), Some(&image[..]));
        assert_eq!(registry.usage(), RegistryUse { images: 1, bytes: 50 });
        registry.commit(&id, 50).unwrap();
    }

    #[test]
    fn wrong_content_is_refused_and_forgotten() {
        let registry = Registry::new(100, 1000);
        let id = hash(b"expected");
        registry.chunk(&id, 0, b"received").unwrap();
        assert_eq!(registry.commit(&id, 8), Err(RegistryError::HashMismatch));
        assert_eq!(registry.commit(&id, 8), Err(RegistryError::Unknown));
        registry.chunk(&id, 0, b"exp").unwrap();
        assert_eq!(registry.commit(&id, 8), Err(RegistryError::Incomplete { have: 3, len: 8 }));
        assert_eq!(registry.chunk(&id, 3, b"x"), Err(RegistryError::OutOfOrder { offset: 3, have: 0 }));
        assert_eq!(registry.lock().held, 0);
    }

    #[test]
    fn empty_images_are_limited_too() {
        let registry = Registry::new(10, 15);
        let mut id = [0; 32];
        let mut begin = |number: u64| {
            id[..8].copy_from_slice(&number.to_le_bytes());
            registry.chunk(&id, 0, &[])
        };
        assert!((0..MAX_IMAGES as u64).all(|number| begin(number).is_ok()));
        assert_eq!(begin(MAX_IMAGES as u64), Err(RegistryError::TooMany));
        assert_eq!(begin(0), Ok(()));
        assert_eq!(registry.insert(vec![1]), Err(RegistryError::TooMany));
    }

    #[test]
    fn an_image_that_starts_again_keeps_no_memory() {
        let registry = Registry::new(1 << 20, 1 << 20);
        let id = hash(b"a");
        registry.chunk(&id, 0, &vec![0; 1 << 20]).unwrap();
        registry.chunk(&id, 0, &[0]).unwrap();
        assert!(registry.lock().partial[&id].capacity() < 4096);
    }

    #[test]
    fn limits_hold_per_image_and_in_total() {
        let registry = Registry::new(10, 15);
        let (a, b) = (hash(b"a"), hash(b"b"));
        registry.chunk(&a, 0, &[0; 10]).unwrap();
        assert!(matches!(registry.chunk(&a, 10, &[0]), Err(RegistryError::TooLarge { .. })));
        registry.chunk(&a, 0, &[0; 10]).unwrap();
        assert!(matches!(registry.chunk(&b, 0, &[0; 6]), Err(RegistryError::TooLarge { .. })));
        // Starting again gives the bytes back.
        registry.chunk(&a, 0, &[0; 9]).unwrap();
        registry.chunk(&b, 0, &[0; 6]).unwrap();
        assert_eq!(registry.lock().held, 15);
    }
}
