//! Handles: ids that stand for objects of a session.
//!
//! An id is a slot number and a generation, so a destroyed handle is recognised even when its slot has been used again, and one table
//! holds all kinds, so an id of the wrong kind is recognised too. Ids are never 0, 1 or 2: those are CUDA's default streams.

use std::sync::{Arc, PoisonError, RwLock};

use slotmap::{Key, KeyData, SlotMap, new_key_type};

new_key_type! { struct HandleKey; }

/// An object kind that can be stored in a table of `T`.
pub trait Kind<T>: Sized {
    /// The object as its own kind, if it is of that kind.
    fn from_any(any: &T) -> Option<&Arc<Self>>;
    /// Wraps the object for the table.
    fn into_any(this: Arc<Self>) -> T;
}

/// The handle is stale, was never issued, or is of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHandle;

/// All handles of a session.
pub struct Handles<T> {
    map: RwLock<SlotMap<HandleKey, T>>,
    limit: usize,
}

impl<T> Handles<T> {
    /// At most `limit` handles exist at a time.
    pub fn new(limit: usize) -> Self {
        Self { map: RwLock::new(SlotMap::with_key()), limit }
    }

    /// Enters an object; `None` when the session's limit is reached.
    pub fn insert<K: Kind<T>>(&self, object: Arc<K>) -> Option<u64> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        (map.len() < self.limit).then(|| map.insert(K::into_any(object)).data().as_ffi())
    }

    /// Enters an object that knows its own handle.
    pub fn insert_with<K: Kind<T>>(&self, make: impl FnOnce(u64) -> Arc<K>) -> Option<Arc<K>> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= self.limit {
            return None;
        }
        let mut made = None;
        map.insert_with_key(|key| {
            let object = make(key.data().as_ffi());
            made = Some(Arc::clone(&object));
            K::into_any(object)
        });
        made
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// No such handle, or it is of another kind.
    pub fn get<K: Kind<T>>(&self, handle: u64) -> Result<Arc<K>, InvalidHandle> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.get(key(handle)).and_then(K::from_any).cloned().ok_or(InvalidHandle)
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// No such handle, or it is of another kind (the object then stays).
    pub fn remove<K: Kind<T>>(&self, handle: u64) -> Result<Arc<K>, InvalidHandle> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let object = map.get(key(handle)).and_then(K::from_any).cloned().ok_or(InvalidHandle)?;
        map.remove(key(handle));
        Ok(object)
    }

    /// Drops all objects for which `keep` is false.
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        self.map.write().unwrap_or_else(PoisonError::into_inner).retain(|_, object| keep(object));
    }

    /// Looks at every object.
    pub fn for_each(&self, look: impl FnMut(&T)) {
        self.map.read().unwrap_or_else(PoisonError::into_inner).values().for_each(look);
    }

    /// Number of handles.
    pub fn len(&self) -> usize {
        self.map.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The key of a handle; the null key for numbers that no handle can be (`from_ffi` would round them to one that can).
fn key(handle: u64) -> HandleKey {
    let data = KeyData::from_ffi(handle);
    if data.as_ffi() == handle { data.into() } else { HandleKey::null() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Apple(u32);
    struct Pear;
    enum Fruit {
        Apple(Arc<Apple>),
        Pear(Arc<Pear>),
    }
    impl Kind<Fruit> for Apple {
        fn from_any(any: &Fruit) -> Option<&Arc<Self>> {
            if let Fruit::Apple(apple) = any { Some(apple) } else { None }
        }
        fn into_any(this: Arc<Self>) -> Fruit {
            Fruit::Apple(this)
        }
    }
    impl Kind<Fruit> for Pear {
        fn from_any(any: &Fruit) -> Option<&Arc<Self>> {
            if let Fruit::Pear(pear) = any { Some(pear) } else { None }
        }
        fn into_any(this: Arc<Self>) -> Fruit {
            Fruit::Pear(this)
        }
    }

    #[test]
    fn wrong_kinds_and_stale_handles_are_refused() {
        let handles: Handles<Fruit> = Handles::new(10);
        let a = handles.insert(Arc::new(Apple(7))).unwrap();
        assert!(a > 2);
        assert_eq!(handles.get::<Apple>(a).map(|apple| apple.0), Ok(7));
        assert_eq!(handles.get::<Pear>(a).err(), Some(InvalidHandle));
        assert_eq!(handles.remove::<Pear>(a).err(), Some(InvalidHandle));
        assert!(handles.remove::<Apple>(a).is_ok());
        let b = handles.insert(Arc::new(Apple(8))).unwrap();
        assert_ne!(a, b);
        assert_eq!(handles.get::<Apple>(a).err(), Some(InvalidHandle));
        for junk in [0, 1, 2, u64::MAX, b ^ 1, b ^ (1 << 32)] {
            assert!(handles.get::<Apple>(junk).is_err(), "{junk:#x}");
        }
    }

    #[test]
    fn the_limit_holds() {
        let handles: Handles<Fruit> = Handles::new(2);
        let first = handles.insert(Arc::new(Pear)).unwrap();
        assert!(handles.insert(Arc::new(Pear)).is_some());
        assert!(handles.insert(Arc::new(Pear)).is_none());
        assert!(handles.insert_with(|_| Arc::new(Pear)).is_none());
        handles.remove::<Pear>(first).unwrap();
        assert!(handles.insert_with(|_| Arc::new(Pear)).is_some());
    }
}
