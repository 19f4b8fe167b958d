//! Primary contexts: their ids stay the same, and the worker may hold one that the program has not retained (yet).
#![allow(unsafe_code)] // Calls the driver.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use super::{CudaBackend, private};
use crate::generated::cuda_raw::Kind;

#[derive(Default)]
struct Primary {
    id: u64,
    raw: u64,
    /// The worker's own reference.
    held: bool,
    /// References of the program.
    retained: u32,
}

/// The primary context of each device. Unlike other locks this one is held while the driver is called: two threads must not create one twice.
#[derive(Default)]
pub struct Primaries {
    devices: Mutex<HashMap<i32, Primary>>,
}

impl CudaBackend {
    /// Id and driver handle of a device's primary context, which is made active.
    ///
    /// # Errors
    /// Those of cuDevicePrimaryCtxRetain.
    pub fn primary(&self, device: i32) -> CuResult<(u64, u64)> {
        self.with_primary(device, |_| ())
    }

    /// Id of a device's primary context, which is left as it is: runtimes ask for those of all devices at their start, and a context takes a device hundreds of MiB and the start a tenth of
    /// a second.
    ///
    /// # Errors
    /// INVALID_DEVICE; those of the driver.
    pub fn primary_id(&self, device: i32) -> CuResult<u64> {
        let mut devices = self.primaries.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = devices.get(&device).filter(|known| known.id != 0) {
            return Ok(known.id);
        }
        if !(0..self.count()?).contains(&device) {
            return Err(Status::INVALID_DEVICE);
        }
        match private::primary_context(self.raw(), device) {
            Ok(raw) => {
                let id = self.handles.enter(Kind::CUcontext, raw, 0).map_err(|_| Status::OUT_OF_MEMORY)?;
                devices.insert(device, Primary { id, raw, ..Primary::default() });
                Ok(id)
            }
            // Then it has to be made to be known.
            Err(Status::NOT_SUPPORTED) => {
                drop(devices);
                self.primary(device).map(|(id, _)| id)
            }
            Err(status) => Err(status),
        }
    }

    /// The program retains it.
    ///
    /// # Errors
    /// As [`CudaBackend::primary`].
    pub fn primary_retain(&self, device: i32) -> CuResult<u64> {
        self.with_primary(device, |primary| primary.retained += 1).map(|(id, _)| id)
    }

    fn with_primary(&self, device: i32, change: impl FnOnce(&mut Primary)) -> CuResult<(u64, u64)> {
        let mut devices = self.primaries.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = devices.entry(device).or_default();
        if !entry.held {
            let mut raw = 0;
            // SAFETY: the output is a variable of the right type.
            if let Err(status) = unsafe { self.raw().cuDevicePrimaryCtxRetain(&mut raw, device) } {
                // Nothing was entered before: a device that does not exist.
                if entry.id == 0 {
                    devices.remove(&device);
                }
                return Err(status);
            }
            if entry.id == 0 {
                entry.id = self.handles.enter(Kind::CUcontext, raw, 0).map_err(|_| Status::OUT_OF_MEMORY)?;
            } else if entry.raw != raw {
                self.handles.replace(entry.id, raw);
            }
            (entry.raw, entry.held) = (raw, true);
        }
        change(entry);
        Ok((entry.id, entry.raw))
    }

    /// The program releases it; with its last reference the context's contents go.
    ///
    /// # Errors
    /// INVALID_CONTEXT if the program has no reference; those of the driver.
    pub fn primary_release(&self, device: i32) -> CuResult {
        let mut devices = self.primaries.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = devices.get_mut(&device).filter(|entry| entry.retained > 0);
        let Some(entry) = entry else {
            let mut count = 0;
            // SAFETY: the output is a variable of the right type.
            unsafe { self.raw().cuDeviceGetCount(&mut count) }?;
            let exists = (0..count).contains(&device);
            return Err(if exists { Status::INVALID_CONTEXT } else { Status::INVALID_DEVICE });
        };
        entry.retained -= 1;
        if entry.retained > 0 {
            return Ok(());
        }
        self.context_goes(entry.id);
        entry.held = false;
        // SAFETY: takes a number; the reference was the worker's own.
        let result = unsafe { self.raw().cuDevicePrimaryCtxRelease_v2(device) };
        self.context_gone(entry.id);
        result
    }

    /// The program sets its flags. Where the program has no reference it is not active for it, though the worker may hold it: a driver that refuses for that reason gets it
    /// back first; the next use makes it anew, with the flags.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn primary_set_flags(&self, device: i32, flags: u32) -> CuResult {
        let mut devices = self.primaries.devices.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes numbers.
        let set = || unsafe { self.raw().cuDevicePrimaryCtxSetFlags_v2(device, flags) };
        let result = set();
        let own = devices.get_mut(&device).filter(|entry| entry.held && entry.retained == 0);
        match (result, own) {
            (Err(Status::PRIMARY_CONTEXT_ACTIVE), Some(entry)) => {
                self.context_goes(entry.id);
                entry.held = false;
                // SAFETY: takes a number; the reference was the worker's own.
                let released = unsafe { self.raw().cuDevicePrimaryCtxRelease_v2(device) };
                self.context_gone(entry.id);
                released?;
                set()
            }
            (result, _) => result,
        }
    }

    /// The program resets it: its contents go, whoever has references.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn primary_reset(&self, device: i32) -> CuResult {
        let mut devices = self.primaries.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = devices.get_mut(&device) {
            self.context_goes(entry.id);
            entry.retained = 0;
        }
        let (mut flags, mut active) = (0, 0);
        // SAFETY: takes a number; the outputs are variables of the right types.
        let result = unsafe { self.raw().cuDevicePrimaryCtxReset_v2(device) };
        // SAFETY: as above.
        if unsafe { self.raw().cuDevicePrimaryCtxGetState(device, &mut flags, &mut active) }.is_ok()
            && active == 0
            && let Some(entry) = devices.get_mut(&device)
        {
            entry.held = false;
        }
        if let Some(entry) = devices.get(&device) {
            self.context_gone(entry.id);
        }
        result
    }
}
