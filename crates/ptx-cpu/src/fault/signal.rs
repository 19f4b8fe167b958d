//! The signal handler.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{FAULTED, Fault, current, ptx_cpu_recover};
use crate::abi::FaultKind;

const SIGNALS: [c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// What was installed before us, in the order of `SIGNALS`.
static PREVIOUS: OnceLock<[libc::sigaction; 4]> = OnceLock::new();

/// Installs the handlers, once per process; later calls do nothing.
pub fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    PREVIOUS.get_or_init(|| {
        SIGNALS.map(|signal| {
            // SAFETY: all zeros is a valid sigaction (SIG_DFL); a query writes it.
            unsafe {
                let mut old: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut old);
                old
            }
        })
    });
    for signal in SIGNALS {
        // SAFETY: all zeros is a valid sigaction; the handler is async-signal-safe (it reads a thread-local and writes a record).
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(signal, &action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    *installed = true;
    Ok(())
}

unsafe extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let recovery = current();
    // SAFETY: the kernel passes valid pointers; a current record is valid, and its thread is the one interrupted.
    unsafe {
        // Positive codes come from the processor; a signal sent by kill() is none of ours.
        let synchronous = (*info).si_code > 0;
        if recovery.is_null() || !synchronous || (*recovery).saved_rsp == 0 || (*recovery).in_helper {
            return chain(signal, info, context);
        }
        let recovery = &mut *recovery;
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let pc = registers[libc::REG_RIP as usize] as u64;
        let memory = signal == libc::SIGSEGV || signal == libc::SIGBUS;
        let address = if memory { (*info).si_addr() as u64 } else { 0 };
        let kind = if !memory {
            FaultKind::Trap
        } else if (recovery.guard_start..recovery.guard_end).contains(&address) {
            FaultKind::StackOverflow
        } else {
            FaultKind::IllegalAddress
        };
        let outside_region = kind == FaultKind::IllegalAddress
            && recovery.expected_end != 0
            && !(recovery.expected_start..recovery.expected_end).contains(&address);
        recovery.fault = Fault { kind, address, pc, outside_region };
        registers[libc::REG_RIP as usize] = ptx_cpu_recover as *const () as i64;
        registers[libc::REG_RCX as usize] = ptr::from_mut(recovery) as i64;
        registers[libc::REG_RAX as usize] = i64::from(FAULTED);
    }
}

/// Hands a signal to whoever was installed before.
unsafe fn chain(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let index = SIGNALS.iter().position(|&other| other == signal);
    let previous = index.and_then(|index| PREVIOUS.get().map(|previous| previous[index]));
    // SAFETY: either a default action, which these calls restore, or a function that was installed with the signature its flags tell.
    unsafe {
        match previous {
            Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
                if action.sa_flags & libc::SA_SIGINFO != 0 {
                    let function: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                        mem::transmute(action.sa_sigaction);
                    function(signal, info, context);
                } else {
                    let function: unsafe extern "C" fn(c_int) = mem::transmute(action.sa_sigaction);
                    function(signal);
                }
            }
            _ => {
                // The faulting instruction runs again and ends the process; a signal that was sent is sent again.
                libc::signal(signal, libc::SIG_DFL);
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
    }
}
