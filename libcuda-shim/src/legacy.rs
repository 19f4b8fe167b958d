//! What calls of early CUDA versions leave behind for later ones: launches under preparation, references to contexts, and registrations that nothing
//! comes of.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A launch as `cuFuncSetBlockShape`, `cuParamSet*` and the like have prepared it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    pub block: [u32; 3],
    pub shared_bytes: u32,
    /// The parameter buffer; a size that was set is its length.
    pub params: Vec<u8>,
}

/// Largest parameter buffer, in bytes.
const MAX_PARAMS: usize = protocol::function::FunctionInfo::MAX_PARAMS_LEN;

/// By function.
#[derive(Default)]
pub struct Launches(Mutex<HashMap<u64, Prepared>>);

impl Launches {
    pub fn change(&self, function: u64, change: impl FnOnce(&mut Prepared)) {
        change(lock(&self.0).entry(function).or_default());
    }

    pub fn get(&self, function: u64) -> Prepared {
        lock(&self.0).get(&function).cloned().unwrap_or_default()
    }

    /// Stores a parameter.
    pub fn param(&self, function: u64, offset: usize, bytes: &[u8]) -> CuResult {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= MAX_PARAMS);
        let end = end.ok_or(Status::INVALID_VALUE)?;
        self.change(function, |launch| {
            if launch.params.len() < end {
                launch.params.resize(end, 0);
            }
            launch.params[offset..end].copy_from_slice(bytes);
        });
        Ok(())
    }

    pub fn set_params_len(&self, function: u64, len: usize) -> CuResult {
        if len > MAX_PARAMS {
            return Err(Status::INVALID_VALUE);
        }
        self.change(function, |launch| launch.params.resize(len, 0));
        Ok(())
    }
}

/// References to contexts beyond the one that their creation is.
#[derive(Default)]
pub struct Attached(Mutex<HashMap<u64, u32>>);

impl Attached {
    pub fn attach(&self, context: u64) {
        *lock(&self.0).entry(context).or_default() += 1;
    }

    /// Takes a reference back; true if it was the last one.
    pub fn detach(&self, context: u64) -> bool {
        let mut counts = lock(&self.0);
        match counts.get_mut(&context) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                counts.remove(&context);
            }
            None => return true,
        }
        false
    }
}

/// Registered functions that are never called.
#[derive(Default)]
pub struct Registrations(Mutex<(u64, HashSet<u64>)>);

impl Registrations {
    /// The handle of a new one; never 0.
    pub fn enter(&self) -> u64 {
        let (last, handles) = &mut *lock(&self.0);
        *last += 1;
        handles.insert(*last);
        *last
    }

    /// INVALID_VALUE for a handle that is none.
    pub fn leave(&self, handle: u64) -> CuResult {
        if lock(&self.0).1.remove(&handle) { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_in_any_order() {
        let launches = Launches::default();
        launches.param(1, 4, &[5, 6]).unwrap();
        launches.param(1, 0, &[1]).unwrap();
        launches.param(2, 0, &[9]).unwrap();
        assert_eq!(launches.get(1).params, [1, 0, 0, 0, 5, 6]);
        launches.set_params_len(1, 5).unwrap();
        assert_eq!(launches.get(1).params, [1, 0, 0, 0, 5]);
        assert_eq!(launches.param(1, MAX_PARAMS, &[1]), Err(Status::INVALID_VALUE));
        assert_eq!(launches.param(1, usize::MAX, &[1]), Err(Status::INVALID_VALUE));
    }

    #[test]
    fn the_last_reference_is_the_creator_s() {
        let attached = Attached::default();
        attached.attach(7);
        attached.attach(7);
        assert!(!attached.detach(7));
        assert!(!attached.detach(7));
        assert!(attached.detach(7));
    }

    #[test]
    fn a_registration_ends_once() {
        let registrations = Registrations::default();
        let handle = registrations.enter();
        assert_ne!(handle, registrations.enter());
        assert_eq!(registrations.leave(handle), Ok(()));
        assert_eq!(registrations.leave(handle), Err(Status::INVALID_VALUE));
    }
}
