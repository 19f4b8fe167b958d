//! The driver's start, and which devices it shows.
#![allow(unsafe_code)] // Calls the driver; sets an environment variable.

use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use crate::backend::NotReady;

/// What the driver reads at cuInit.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_MODE`, and its value for a device that several processes may use.
const COMPUTE_MODE: u32 = 20;
const COMPUTE_MODE_DEFAULT: i32 = 0;

/// What a program may leave of the devices that the operator of the daemon has left: its own list, with ordinals that count in the operator's.
fn combined(operator: Option<&str>, program: &str) -> String {
    let Some(operator) = operator else { return program.to_owned() };
    let theirs: Vec<&str> = operator.split(',').map(str::trim).collect();
    let entry = |entry: &str| -> Option<String> {
        let entry = entry.trim();
        match entry.parse::<usize>() {
            Ok(index) => theirs.get(index).map(|device| (*device).to_owned()),
            // By its UUID, or the first digits of it: if the operator has named the device so, too.
            Err(_) => theirs
                .iter()
                .any(|device| !entry.is_empty() && (device.starts_with(entry) || entry.starts_with(*device)))
                .then(|| entry.to_owned()),
        }
    };
    // As with the driver's own list, what follows an entry that is no device is ignored.
    let devices: Vec<String> = program.split(',').map_while(entry).collect();
    // An empty list would mean none, too; the driver reads an unset variable as all.
    if devices.is_empty() { "-1".to_owned() } else { devices.join(",") }
}

/// The result of the driver's start, once there is one.
#[derive(Default)]
pub struct Start {
    result: Mutex<Option<CuResult>>,
}

impl CudaBackend {
    /// Chooses the devices that the program sees, as `CUDA_VISIBLE_DEVICES` does. To be called before the driver is initialised; in a worker that was warm it is, and then
    /// a list will do that leaves the devices as they are. The daemon has seen to it that no other comes, by the program's hello.
    ///
    /// # Errors
    /// NOT_PERMITTED if the driver is initialised.
    pub fn set_visible(&self, list: &str) -> CuResult {
        let started = self.start.result.lock().unwrap_or_else(PoisonError::into_inner);
        if started.is_some() {
            let shown = self.count().ok().and_then(|count| usize::try_from(count).ok());
            let named = protocol::devices::in_order(list.as_bytes());
            return match (shown, named) {
                (Some(shown), Some(named)) if named >= shown => Ok(()),
                _ => Err(Status::NOT_PERMITTED),
            };
        }
        let list = combined(std::env::var(VISIBLE).ok().as_deref(), list);
        // SAFETY: nothing else in a worker writes the environment, and nothing reads it by other means than Rust's, which locks: the driver
        // is not initialised, and the lock above keeps it from that.
        unsafe { std::env::set_var(VISIBLE, list) };
        Ok(())
    }

    /// Initialises the driver, once.
    ///
    /// # Errors
    /// What cuInit says.
    pub fn initialise(&self) -> CuResult {
        let mut result = self.start.result.lock().unwrap_or_else(PoisonError::into_inner);
        *result.get_or_insert_with(|| {
            // SAFETY: takes a number.
            unsafe { self.raw().cuInit(0) }?;
            self.warm(0);
            Ok(())
        })
    }

    /// Initialises the driver and makes the first device's context before the program is there: its cuInit finds both. That the context is active does not show: the
    /// library answers for it by what the program has retained.
    ///
    /// # Errors
    /// Those of the driver; a device that only one process may use, which a context here would take from all others.
    pub fn prepare(&self) -> Result<u32, NotReady> {
        let failed = |what: &'static str| {
            move |status: Status| NotReady::Failed(format!("{what}: error {}", status.0))
        };
        let mut result = self.start.result.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes a number.
        unsafe { self.raw().cuInit(0) }.map_err(failed("cuInit"))?;
        let count = self.count().map_err(failed("cuDeviceGetCount"))?;
        let mut mode = 0;
        // SAFETY: the output is a variable of the right type.
        unsafe { self.raw().cuDeviceGetAttribute(&mut mode, COMPUTE_MODE, 0) }
            .map_err(failed("compute mode"))?;
        if mode != COMPUTE_MODE_DEFAULT {
            return Err(NotReady::Unsuitable(format!(
                "device 0 is not for several processes (compute mode {mode})"
            )));
        }
        let (_, context) = self.primary(0).map_err(failed("the context of device 0"))?;
        if let Err(status) = self.touch_pool(context) {
            // Not every device has pools.
            tracing::debug!(error = status.0, "no allocation from the default pool");
        }
        self.space.look();
        *result = Some(Ok(()));
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Asks the device for something, in the context that was made in advance.
    ///
    /// # Errors
    /// Those of the driver: the device was reset, is lost, or the context has failed.
    pub fn look_alive(&self) -> CuResult {
        let (_, context) = self.primary(0)?;
        let raw = self.raw();
        let (mut before, mut free, mut total) = (0, 0, 0);
        // SAFETY: the outputs are variables of the right types; the handles are the driver's.
        unsafe {
            raw.cuCtxGetCurrent(&mut before)?;
            raw.cuCtxSetCurrent(context)?;
            let well = raw.cuCtxSynchronize().and_then(|()| raw.cuMemGetInfo_v2(&mut free, &mut total));
            raw.cuCtxSetCurrent(before)?;
            well
        }
    }

    pub(super) fn count(&self) -> CuResult<i32> {
        let mut count = 0;
        // SAFETY: the output is a variable of the right type.
        unsafe { self.raw().cuDeviceGetCount(&mut count) }?;
        Ok(count)
    }

    /// Makes a device's context, and has the driver take the addresses that it needs for it.
    pub fn warm(&self, device: i32) {
        if let Err(status) = self.primary(device).and_then(|(_, context)| self.touch_pool(context)) {
            tracing::warn!(device, error = status.0, "the device is not ready; its first use may tell more");
        }
        self.space.look();
    }

    /// Allocates from the default pool, so that the addresses of pools show. The thread's current context stays.
    fn touch_pool(&self, context: u64) -> CuResult {
        if !self.space.has_home() {
            return Ok(());
        }
        let raw = self.raw();
        let (mut before, mut address) = (0, 0);
        // SAFETY: the outputs are variables of the right types; the handles are the driver's.
        unsafe {
            raw.cuCtxGetCurrent(&mut before)?;
            raw.cuCtxSetCurrent(context)?;
            let used = raw
                .cuMemAllocAsync(&mut address, 1 << 20, 0)
                .and_then(|()| raw.cuMemFreeAsync(address, 0))
                .and_then(|()| raw.cuStreamSynchronize(0));
            raw.cuCtxSetCurrent(before)?;
            used
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_a_part_of_what_the_operator_has_left() {
        assert_eq!(combined(None, "1,0"), "1,0");
        assert_eq!(combined(Some("2,3"), "1,0"), "3,2");
        assert_eq!(combined(Some("2,3"), "1,5,0"), "3");
        assert_eq!(combined(Some("2,3"), "5"), "-1");
        assert_eq!(combined(Some("2,3"), ""), "-1");
        assert_eq!(combined(Some("GPU-abc,GPU-def"), "GPU-d"), "GPU-d");
        assert_eq!(combined(Some("GPU-abc"), "GPU-d"), "-1");
        assert_eq!(combined(Some(""), "0"), "");
    }
}
