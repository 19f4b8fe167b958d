//! Context-local storage: values that a runtime attaches to a context, looked up at the start of every runtime call.
//!
//! Never leaves the process. A look-up that repeats the thread's previous one costs a few nanoseconds (see [`crate::thread`]).

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::status::{CuResult, Status};

/// `void (*destructor)(CUcontext, void *key, void *value)`
pub type Destructor = unsafe extern "C" fn(context: u64, key: usize, value: usize);

#[derive(Clone, Copy)]
struct Entry {
    context: u64,
    key: usize,
    value: usize,
    destructor: Option<Destructor>,
}

/// All entries of the process; there are a handful (one per runtime and context).
#[derive(Default)]
pub struct LocalStorage {
    entries: RwLock<Vec<Entry>>,
    /// Changes with every modification, so that threads may remember their last look-up.
    generation: AtomicU64,
}

/// A remembered look-up.
#[derive(Clone, Copy, Default)]
pub struct Remembered {
    context: u64,
    key: usize,
    value: usize,
    /// Generation + 1 at the time of the look-up; 0 = nothing remembered.
    generation: u64,
}

impl LocalStorage {
    /// Stores a value; an existing one under the same key is replaced (its destructor is not called, as the owner just gave a new one).
    pub fn put(&self, context: u64, key: usize, value: usize, destructor: Option<Destructor>) {
        let mut entries = self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let entry = Entry { context, key, value, destructor };
        match entries.iter_mut().find(|e| e.context == context && e.key == key) {
            Some(existing) => *existing = entry,
            None => entries.push(entry),
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The value, or INVALID_HANDLE.
    #[inline]
    pub fn get(&self, context: u64, key: usize, remembered: &mut Remembered) -> Result<usize, Status> {
        let generation = self.generation.load(Ordering::Acquire) + 1;
        if remembered.generation == generation && remembered.context == context && remembered.key == key {
            return Ok(remembered.value);
        }
        let entries = self.entries.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let entry =
            entries.iter().find(|e| e.context == context && e.key == key).ok_or(Status::INVALID_HANDLE)?;
        *remembered = Remembered { context, key, value: entry.value, generation };
        Ok(entry.value)
    }

    /// Removes a value without calling its destructor.
    pub fn delete(&self, context: u64, key: usize) -> CuResult {
        let mut entries = self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let position = entries
            .iter()
            .position(|e| e.context == context && e.key == key)
            .ok_or(Status::INVALID_HANDLE)?;
        entries.remove(position);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes out everything stored for a context that is destroyed or reset. The caller calls the destructors, with no lock held.
    #[must_use]
    pub fn take_context(&self, context: u64) -> Vec<(usize, usize, Destructor)> {
        let mut entries = self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (gone, kept): (Vec<Entry>, Vec<Entry>) = entries.iter().partition(|e| e.context == context);
        *entries = kept;
        self.generation.fetch_add(1, Ordering::Release);
        gone.into_iter().filter_map(|e| Some((e.key, e.value, e.destructor?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_per_context_and_key() {
        let storage = LocalStorage::default();
        let mut remembered = Remembered::default();
        assert_eq!(storage.get(7, 1, &mut remembered), Err(Status::INVALID_HANDLE));
        storage.put(7, 1, 100, None);
        storage.put(8, 1, 200, None);
        assert_eq!(storage.get(7, 1, &mut remembered), Ok(100));
        assert_eq!(storage.get(8, 1, &mut remembered), Ok(200));
        assert_eq!(storage.get(7, 2, &mut remembered), Err(Status::INVALID_HANDLE));
    }

    #[test]
    fn a_remembered_value_does_not_outlive_a_change() {
        let storage = LocalStorage::default();
        let mut remembered = Remembered::default();
        storage.put(7, 1, 100, None);
        assert_eq!(storage.get(7, 1, &mut remembered), Ok(100));
        storage.put(7, 1, 101, None);
        assert_eq!(storage.get(7, 1, &mut remembered), Ok(101));
        storage.delete(7, 1).unwrap();
        assert_eq!(storage.get(7, 1, &mut remembered), Err(Status::INVALID_HANDLE));
    }
}
