//! Managed variables (`__managed__`) of modules and libraries: in the window, like other managed memory.
//!
//! The driver would put them where the program has no memory. So the code is changed before it is loaded: all that refers to such a variable
//! refers to a place in the window instead ([`fatbin::Managed`]), and what is asked about it is answered here. PTX is compiled first.
#![allow(unsafe_code)] // Calls the driver.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fatbin::Managed;
use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::memory::Kind as MemoryKind;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// Bytes that the address of a variable is a multiple of, as those of allocations on the device are.
const ALIGN: u64 = 256;

/// The variables of one image.
#[derive(Debug)]
pub struct Variables {
    /// Their memory.
    base: u64,
    len: u64,
    /// The context that goes with them; 0 for those of a library, which stay.
    context: u64,
    /// The context that their memory is registered in; 0 when that one is gone.
    registered: u64,
    /// Address and size by name.
    by_name: HashMap<Vec<u8>, (u64, u64)>,
}

/// The variables of all modules and libraries, by the owner's id.
#[derive(Default)]
pub struct Owners {
    by_id: Mutex<HashMap<u64, Variables>>,
}

impl Owners {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Variables>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A context has gone, and with it its modules and what was registered in it.
    pub fn context_gone(&self, context: u64) {
        let mut owners = self.lock();
        owners.retain(|_, variables| variables.context != context);
        for variables in owners.values_mut().filter(|variables| variables.registered == context) {
            variables.registered = 0;
        }
    }
}

/// An image that has been loaded.
pub struct Loaded {
    /// The driver's module or library.
    pub raw: u64,
    pub variables: Option<Variables>,
}

/// Places in a block for variables of these sizes, and the block's length.
fn layout(sizes: impl Iterator<Item = u64>) -> Option<(Vec<u64>, u64)> {
    let mut places = Vec::new();
    let mut end = 0u64;
    for size in sizes {
        let place = end.checked_next_multiple_of(ALIGN)?;
        end = place.checked_add(size)?;
        places.push(place);
    }
    Some((places, end))
}

impl CudaBackend {
    /// Gives the managed variables of machine code their places. None if it has none; then the image is good as it is.
    ///
    /// # Errors
    /// OUT_OF_MEMORY if the window is full; NOT_SUPPORTED without shared memory, or for code that is not understood; those of the driver.
    pub fn place_variables(
        &self,
        call: &Call<'_>,
        cubin: &[u8],
        library: bool,
    ) -> CuResult<Option<(Vec<u8>, Variables)>> {
        // What is no machine code to us is the driver's to refuse.
        let Ok(managed) = Managed::parse(cubin) else { return Ok(None) };
        if managed.variables().is_empty() {
            return Ok(None);
        }
        if !self.session.window.is_shared() {
            tracing::warn!("managed variables need shared memory, which this session does not have");
            return Err(Status::NOT_SUPPORTED);
        }
        let sizes = managed.variables().iter().map(|variable| variable.size);
        let (places, len) = layout(sizes).ok_or(Status::OUT_OF_MEMORY)?;
        let context = if library { 0 } else { call.lane.context };
        let (base, registered) = self.variables_alloc(call, len, context)?;
        let addresses: Vec<u64> = places.iter().map(|place| base + place).collect();
        let filled = self.fill(&managed, &addresses, base, len);
        let by_name = managed.variables().iter().zip(&addresses);
        let by_name = by_name.map(|(v, address)| (v.name.as_bytes().to_vec(), (*address, v.size))).collect();
        let variables = Variables { base, len, context, registered, by_name };
        match filled {
            Ok(image) => Ok(Some((image, variables))),
            Err(status) => {
                self.variables_free(&variables);
                Err(status)
            }
        }
    }

    /// Changes the code, and gives the variables their initial values.
    fn fill(&self, managed: &Managed<'_>, addresses: &[u64], base: u64, len: u64) -> CuResult<Vec<u8>> {
        let image = managed.place(addresses).map_err(|error| {
            tracing::warn!(%error, "managed variables that cannot be placed");
            Status::NOT_SUPPORTED
        })?;
        let window = &self.session.window;
        let memory = window.mapped();
        let offset = |address| window.offset(address).ok_or(Status::UNKNOWN);
        // A range that is used again may hold what it held before.
        let zeros = [0; 4096];
        for at in (0..len).step_by(zeros.len()) {
            let piece = (len - at).min(zeros.len() as u64) as usize;
            memory.copy_in(offset(base + at)?, &zeros[..piece]).map_err(|_| Status::UNKNOWN)?;
        }
        for (variable, address) in managed.variables().iter().zip(addresses) {
            let value = variable.value.clone().and_then(|range| image.get(range));
            memory.copy_in(offset(*address)?, value.unwrap_or_default()).map_err(|_| Status::UNKNOWN)?;
        }
        Ok(image)
    }

    /// Memory for variables, and the context that it is registered in.
    fn variables_alloc(&self, call: &Call<'_>, len: u64, owner: u64) -> CuResult<(u64, u64)> {
        self.in_some_context(call, |registered| {
            let base = self.window_alloc_in(owner, MemoryKind::Variables, len, 1)?;
            Ok((base, registered))
        })
    }

    /// Calls with the thread's context, or without one that of the first device: a library is independent of contexts, but registering memory is not.
    fn in_some_context<R>(&self, call: &Call<'_>, what: impl FnOnce(u64) -> CuResult<R>) -> CuResult<R> {
        if self.current_device().is_ok() {
            return what(call.lane.context);
        }
        let (id, raw) = self.primary(0)?;
        // SAFETY: takes a handle of the driver, which the worker holds.
        unsafe { self.raw().cuCtxPushCurrent_v2(raw) }?;
        let result = what(id);
        let mut popped = 0;
        // SAFETY: the output is a variable of the right type; pushed above.
        let _ = unsafe { self.raw().cuCtxPopCurrent_v2(&mut popped) };
        result
    }

    /// Gives their memory back.
    pub fn variables_free(&self, variables: &Variables) {
        if let Err(status) = self.window_free(variables.base, MemoryKind::Variables) {
            tracing::debug!(status = status.0, "memory of managed variables");
        }
    }

    /// The id of what has been loaded, which its variables belong to from here on.
    ///
    /// # Errors
    /// OUT_OF_MEMORY at the session's limit of handles.
    pub fn born_loaded(&self, call: &Call<'_>, kind: Kind, loaded: Loaded) -> CuResult<u64> {
        let id = self.born(call, kind, loaded.raw, None);
        match (&id, loaded.variables) {
            (Ok(id), Some(variables)) => {
                self.variables.lock().insert(*id, variables);
            }
            (Err(_), Some(variables)) => self.variables_free(&variables),
            (_, None) => {}
        }
        id
    }

    /// What was loaded has been unloaded.
    pub fn unloaded(&self, owner: u64) {
        let variables = self.variables.lock().remove(&owner);
        if let Some(variables) = variables {
            self.variables_free(&variables);
        }
    }

    /// Address and size of a managed variable of a module (that of a library in a context, too) or a library.
    ///
    /// # Errors
    /// Those of registering its memory again, if the context that it was registered in is gone.
    pub fn variable(&self, call: &Call<'_>, owner: u64, name: Option<&CStr>) -> CuResult<Option<(u64, u64)>> {
        let Some(name) = name else { return Ok(None) };
        let find = |owner: u64| {
            let owners = self.variables.lock();
            let variables = owners.get(&owner)?;
            let found = *variables.by_name.get(name.to_bytes())?;
            Some((owner, found, (variables.registered == 0).then_some((variables.base, variables.len))))
        };
        let found = find(owner).or_else(|| find(self.handles.parent(owner).ok()?));
        let Some((owner, found, lost)) = found else { return Ok(None) };
        if let Some((base, len)) = lost {
            let registered = self.in_some_context(call, |context| {
                self.window_register(base, len)?;
                Ok(context)
            })?;
            if let Some(variables) = self.variables.lock().get_mut(&owner) {
                variables.registered = registered;
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_lie_apart() {
        assert_eq!(layout([4, 300, 1].into_iter()), Some((vec![0, 256, 768], 769)));
        assert_eq!(layout([4, u64::MAX].into_iter()), None);
        assert_eq!(layout([u64::MAX, 1].into_iter()), None);
    }

    fn variables(context: u64, registered: u64) -> Variables {
        Variables { base: 4096, len: 4, context, registered, by_name: HashMap::new() }
    }

    #[test]
    fn what_a_context_takes_with_it() {
        let owners = Owners::default();
        owners.lock().extend([(1, variables(7, 7)), (2, variables(8, 8)), (3, variables(0, 7))]);
        owners.context_gone(7);
        let left = owners.lock();
        assert!(!left.contains_key(&1));
        assert_eq!(left[&2].registered, 8);
        assert_eq!(left[&3].registered, 0);
    }
}
