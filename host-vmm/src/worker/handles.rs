//! Handles: ids that stand for objects of a session.
//!
//! An id is a slot number and a generation, so a destroyed handle is recognised even when its slot has been used again, and one table
//! holds all kinds, so an id of the wrong kind is recognised too. Ids are never 0, 1 or 2: those are CUDA's default streams. The program gives some
//! of its objects handles itself ([`protocol::named`]).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use protocol::named;
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

/// The program may not give an object this handle, or the session's limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNamed {
    /// It is in use, or not one that a program may give.
    Handle,
    Limit,
}

struct Table<T> {
    map: SlotMap<HandleKey, T>,
    /// What the program has given a handle.
    named: HashMap<u64, T>,
}

impl<T> Table<T> {
    fn len(&self) -> usize {
        self.map.len() + self.named.len()
    }

    fn get(&self, handle: u64) -> Option<&T> {
        self.named.get(&handle).or_else(|| self.map.get(key(handle)))
    }
}

/// All handles of a session.
pub struct Handles<T> {
    table: RwLock<Table<T>>,
    limit: usize,
}

impl<T> Handles<T> {
    /// At most `limit` handles exist at a time.
    pub fn new(limit: usize) -> Self {
        Self { table: RwLock::new(Table { map: SlotMap::with_key(), named: HashMap::new() }), limit }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<T>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<T>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an object; `None` when the session's limit is reached.
    pub fn insert<K: Kind<T>>(&self, object: Arc<K>) -> Option<u64> {
        let mut table = self.write();
        (table.len() < self.limit).then(|| table.map.insert(K::into_any(object)).data().as_ffi())
    }

    /// Enters an object that knows its own handle.
    pub fn insert_with<K: Kind<T>>(&self, make: impl FnOnce(u64) -> Arc<K>) -> Option<Arc<K>> {
        let mut table = self.write();
        if table.len() >= self.limit {
            return None;
        }
        let mut made = None;
        table.map.insert_with_key(|key| {
            let object = make(key.data().as_ffi());
            made = Some(Arc::clone(&object));
            K::into_any(object)
        });
        made
    }

    /// Enters an object under the handle that the program has given it.
    ///
    /// # Errors
    /// See [`NotNamed`].
    pub fn insert_named<K: Kind<T>>(&self, handle: u64, object: Arc<K>) -> Result<(), NotNamed> {
        let mut table = self.write();
        if !named::is_named(handle) || table.get(handle).is_some() {
            return Err(NotNamed::Handle);
        }
        if table.len() >= self.limit {
            return Err(NotNamed::Limit);
        }
        table.named.insert(handle, K::into_any(object));
        Ok(())
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// No such handle, or it is of another kind.
    pub fn get<K: Kind<T>>(&self, handle: u64) -> Result<Arc<K>, InvalidHandle> {
        self.read().get(handle).and_then(K::from_any).cloned().ok_or(InvalidHandle)
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// No such handle, or it is of another kind (the object then stays).
    pub fn remove<K: Kind<T>>(&self, handle: u64) -> Result<Arc<K>, InvalidHandle> {
        let mut table = self.write();
        let object = table.get(handle).and_then(K::from_any).cloned().ok_or(InvalidHandle)?;
        if table.named.remove(&handle).is_none() {
            table.map.remove(key(handle));
        }
        Ok(object)
    }

    /// Drops all objects for which `keep` is false.
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        let mut table = self.write();
        table.map.retain(|_, object| keep(object));
        table.named.retain(|_, object| keep(object));
    }

    /// Looks at every object.
    pub fn for_each(&self, look: impl FnMut(&T)) {
        let table = self.read();
        table.map.values().chain(table.named.values()).for_each(look);
    }

    /// Number of handles.
    pub fn len(&self) -> usize {
        self.read().len()
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

    #[test]
    fn the_program_gives_a_handle_once_and_only_such_as_it_may() {
        let handles: Handles<Fruit> = Handles::new(3);
        let own = handles.insert(Arc::new(Apple(1))).unwrap();
        let given = named::nth(7).unwrap();
        assert_eq!(handles.insert_named(own, Arc::new(Pear)), Err(NotNamed::Handle));
        assert_eq!(handles.insert_named(0, Arc::new(Pear)), Err(NotNamed::Handle));
        assert_eq!(handles.insert_named(given, Arc::new(Apple(2))), Ok(()));
        assert_eq!(handles.insert_named(given, Arc::new(Apple(3))), Err(NotNamed::Handle));
        assert_eq!(handles.get::<Apple>(given).map(|apple| apple.0), Ok(2));
        assert_eq!(handles.remove::<Pear>(given).err(), Some(InvalidHandle));
        assert_eq!(handles.insert_named(given + 1, Arc::new(Pear)), Ok(()));
        assert_eq!(handles.insert_named(given + 2, Arc::new(Pear)), Err(NotNamed::Limit));
        assert!(handles.insert(Arc::new(Pear)).is_none());
        let mut seen = 0;
        handles.for_each(|_| seen += 1);
        assert_eq!((seen, handles.len()), (3, 3));
        assert_eq!(handles.remove::<Apple>(given).map(|apple| apple.0), Ok(2));
        assert!(handles.get::<Apple>(given).is_err());
        handles.retain(|fruit| matches!(fruit, Fruit::Apple(_)));
        assert!(handles.get::<Pear>(given + 1).is_err() && handles.get::<Apple>(own).is_ok());
    }
}
