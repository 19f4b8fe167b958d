//! Functions and kernels that the program has asked for: their parameter layouts and attributes, so that a launch needs no question to the host.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, RwLock};

use protocol::function::{FunctionInfo, Param};
use protocol::status::{CuResult, Status};

/// Where a function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    Module(u64),
    Library(u64),
}

/// A `CUfunction`, or a `CUkernel` (which is accepted wherever a function is).
#[derive(Debug)]
pub struct Function {
    pub handle: u64,
    pub name: CString,
    pub parent: Parent,
    /// The context of its module; 0 if that is not known, or if it serves in all of them.
    pub context: u64,
    pub params: Vec<Param>,
    /// Bytes of the parameter buffer.
    pub params_len: usize,
    /// By `CUfunction_attribute`; the program may set some.
    attributes: Vec<AtomicI32>,
}

impl Function {
    /// An attribute's value; `None` for one that does not exist.
    pub fn attribute(&self, index: usize) -> Option<i32> {
        self.attributes.get(index).map(|value| value.load(Ordering::Relaxed))
    }

    pub fn set_attribute(&self, index: usize, value: i32) {
        if let Some(place) = self.attributes.get(index) {
            place.store(value, Ordering::Relaxed);
        }
    }

    fn limit(&self, index: usize) -> i64 {
        i64::from(self.attribute(index).unwrap_or(0))
    }
}

#[derive(Default)]
struct Tables {
    by_handle: HashMap<u64, Arc<Function>>,
    by_name: HashMap<(Parent, CString), u64>,
}

/// All functions of the process, by handle and by name. Handles are stable: asking again gives the same one.
#[derive(Default)]
pub struct Functions {
    tables: RwLock<Tables>,
}

impl Functions {
    fn read<R>(&self, f: impl FnOnce(&Tables) -> R) -> R {
        f(&self.tables.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn write<R>(&self, f: impl FnOnce(&mut Tables) -> R) -> R {
        f(&mut self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// The function behind a handle; INVALID_HANDLE if there is none.
    #[inline]
    pub fn get(&self, handle: u64) -> Result<Arc<Function>, Status> {
        self.read(|t| t.by_handle.get(&handle).cloned()).ok_or(Status::INVALID_HANDLE)
    }

    pub fn by_name(&self, parent: Parent, name: &CString) -> Option<u64> {
        // The key is a pair of a Copy value and an owned name; the clone is on a path that otherwise costs a round trip.
        self.read(|t| t.by_name.get(&(parent, name.clone())).copied())
    }

    /// Enters a function of a context (or 0); returns its handle.
    pub fn insert(&self, parent: Parent, context: u64, info: FunctionInfo) -> u64 {
        let handle = info.handle;
        let name = CString::new(info.name.clone()).unwrap_or_default();
        let function = Function {
            handle,
            name: name.clone(),
            parent,
            context,
            params_len: info.params_len(),
            params: info.params,
            attributes: info.attributes.into_iter().map(AtomicI32::new).collect(),
        };
        self.write(|t| {
            t.by_name.insert((parent, name), handle);
            t.by_handle.insert(handle, Arc::new(function));
        });
        handle
    }

    /// Forgets the functions of a module or library that is unloaded.
    pub fn remove_parent(&self, parent: Parent) {
        self.write(|t| {
            t.by_name.retain(|(of, _), _| *of != parent);
            t.by_handle.retain(|_, function| function.parent != parent);
        });
    }
}

/// Shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
}

/// A device's limits on launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub threads_per_block: u32,
}

/// What CUDA reports about a launch at once, in the driver's order of precedence.
pub fn check_launch(function: &Function, shape: &Shape, limits: &Limits) -> CuResult {
    let within =
        |value: &[u32; 3], limit: &[u32; 3]| value.iter().zip(limit).all(|(v, l)| (1..=*l).contains(v));
    if !within(&shape.grid, &limits.grid) || !within(&shape.block, &limits.block) {
        return Err(Status::INVALID_VALUE);
    }
    let threads = shape.block.iter().fold(1u64, |product, n| product.saturating_mul(u64::from(*n)));
    if threads > u64::from(limits.threads_per_block) {
        return Err(Status::INVALID_VALUE);
    }
    if i64::from(shape.dynamic_shared_bytes) > function.limit(FunctionInfo::MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        return Err(Status::INVALID_VALUE);
    }
    if i64::try_from(threads).unwrap_or(i64::MAX) > function.limit(FunctionInfo::MAX_THREADS_PER_BLOCK) {
        return Err(Status::INVALID_VALUE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (Functions, u64) {
        let functions = Functions::default();
        let mut attributes = vec![0; 16];
        attributes[FunctionInfo::MAX_THREADS_PER_BLOCK] = 256;
        attributes[FunctionInfo::MAX_DYNAMIC_SHARED_SIZE_BYTES] = 48 << 10;
        let info = FunctionInfo { handle: 9, name: b"kernel".to_vec(), attributes, params: Vec::new() };
        let handle = functions.insert(Parent::Module(3), 0, info);
        (functions, handle)
    }

    const LIMITS: Limits =
        Limits { grid: [i32::MAX as u32, 65535, 65535], block: [1024, 1024, 64], threads_per_block: 1024 };

    #[test]
    fn unloading_a_module_invalidates_its_functions() {
        let (functions, handle) = table();
        assert!(functions.get(handle).is_ok());
        assert_eq!(functions.by_name(Parent::Module(3), &c"kernel".to_owned()), Some(handle));
        functions.remove_parent(Parent::Module(3));
        assert_eq!(functions.get(handle).unwrap_err(), Status::INVALID_HANDLE);
    }

    #[test]
    fn bad_launches_are_refused_with_the_drivers_codes() {
        let (functions, handle) = table();
        let function = functions.get(handle).unwrap();
        let shape = Shape { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared_bytes: 0 };
        assert_eq!(check_launch(&function, &shape, &LIMITS), Ok(()));
        for (bad, status) in [
            (Shape { grid: [0, 1, 1], ..shape }, Status::INVALID_VALUE),
            (Shape { grid: [1, 65536, 1], ..shape }, Status::INVALID_VALUE),
            (Shape { block: [1, 1, 65], ..shape }, Status::INVALID_VALUE),
            (Shape { block: [1024, 2, 1], ..shape }, Status::INVALID_VALUE),
            (Shape { dynamic_shared_bytes: 64 << 10, ..shape }, Status::INVALID_VALUE),
            (Shape { block: [512, 1, 1], ..shape }, Status::INVALID_VALUE),
        ] {
            assert_eq!(check_launch(&function, &bad, &LIMITS), Err(status), "{bad:?}");
        }
    }
}
