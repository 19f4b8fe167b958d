//! Faults of kernels. Such an error stays with its context: the driver returns it from every call that needs a healthy one, before it looks at the call's
//! arguments.
//!
//! The host's driver knows which contexts are affected. Here only the fact is kept that there has been a fault, so that programs without one pay a load; from then
//! on posted operations are answered, and what the guest would refuse by itself asks for the state of the current context first.

use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};

use crate::generated::wire;
use crate::process::process;

/// Whether an error is one of a context rather than of a call.
#[inline]
fn is_sticky(status: Status) -> bool {
    matches!(
        status,
        Status::ECC_UNCORRECTABLE
            | Status::CONTAINED
            | Status::ILLEGAL_ADDRESS
            | Status::LAUNCH_TIMEOUT
            | Status::ASSERT
            | Status::HARDWARE_STACK_ERROR
            | Status::ILLEGAL_INSTRUCTION
            | Status::MISALIGNED_ADDRESS
            | Status::INVALID_ADDRESS_SPACE
            | Status::INVALID_PC
            | Status::LAUNCH_FAILED
    )
}

/// Takes note of what the host has answered.
#[inline]
pub fn note(status: Status) {
    if is_sticky(status) {
        process().faulted.store(true, Ordering::Relaxed);
    }
}

/// Whether any context of the process has had a fault.
#[inline]
pub fn any() -> bool {
    process().faulted.load(Ordering::Relaxed)
}

/// Fails with the error of the current context, if it has one.
pub fn check() -> CuResult {
    // A query of the legacy stream would end a capture.
    if !any() || process().captures.active() {
        return Ok(());
    }
    match wire::cuStreamQuery(0) {
        Err(status) if is_sticky(status) => Err(status),
        _ => Ok(()),
    }
}

/// Calls that the driver refuses in a context with a fault before it looks at their arguments.
const NEED_HEALTH: [&str; 10] = [
    "cuMemcpy",
    "cuMemset",
    "cuMemAlloc",
    "cuMemFree",
    "cuMemHostRegister",
    "cuMemHostUnregister",
    "cuLaunch",
    "cuStream",
    "cuEvent",
    "cuModuleLoad",
];

/// Of these, the call whose first argument is looked at before: it goes on with [`of_arguments`] by itself.
const LOOKS_ITSELF: &str = "cuLaunchKernelEx";

/// What a call returns that has failed with `status`.
#[cold]
pub fn instead(name: &str, status: Status) -> Status {
    if !any() || name.starts_with(LOOKS_ITSELF) || !NEED_HEALTH.iter().any(|prefix| name.starts_with(prefix))
    {
        return status;
    }
    of_arguments(status)
}

/// What a call that needs a healthy context returns when its arguments are the reason for `status`, or may be.
#[cold]
pub fn of_arguments(status: Status) -> Status {
    let arguments = matches!(status, Status::INVALID_VALUE | Status::INVALID_HANDLE);
    if arguments && any() { check().err().unwrap_or(status) } else { status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_calls_stay_what_they_are_without_a_fault() {
        for status in [Status::INVALID_VALUE, Status::INVALID_HANDLE, Status::OUT_OF_MEMORY] {
            note(status);
            assert!(!any());
            assert_eq!(instead("cuMemcpyHtoD_v2", status), status);
            assert_eq!(of_arguments(status), status);
        }
        assert!(is_sticky(Status::ILLEGAL_ADDRESS) && !is_sticky(Status::NOT_READY));
    }
}
