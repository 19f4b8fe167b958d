//! The driver's start, and which devices it shows.
#![allow(unsafe_code)] // Calls the driver; sets an environment variable.

use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use super::CudaBackend;

/// What the driver reads at cuInit.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

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
    /// Chooses the devices that the program sees, as `CUDA_VISIBLE_DEVICES` does. To be called before the driver is initialised.
    ///
    /// # Errors
    /// NOT_PERMITTED if it is initialised.
    pub fn set_visible(&self, list: &str) -> CuResult {
        let started = self.start.result.lock().unwrap_or_else(PoisonError::into_inner);
        if started.is_some() {
            return Err(Status::NOT_PERMITTED);
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
