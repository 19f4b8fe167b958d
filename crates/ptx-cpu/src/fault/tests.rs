use super::*;
use crate::abi::Outcome;
use crate::region::{RegionConfig, reserve_in_test};

/// What the test kernels find in `block`: only used by these functions.
#[repr(C)]
struct Order {
    what: u32,
    address: u64,
}

#[allow(unconditional_recursion)]
unsafe extern "C" fn recurse(depth: u64) -> u64 {
    let mut space = [depth; 64];
    std::hint::black_box(&mut space);
    // SAFETY: overflows the stack on purpose.
    unsafe { recurse(depth + 1) + space[3] }
}

unsafe extern "C" fn kernel(_thread: *mut Thread, block: *const Block) -> u32 {
    // SAFETY: each arm breaks something on purpose, under protection.
    unsafe {
        let order = &*block.cast::<Order>();
        match order.what {
            0 => return Outcome::Done as u32,
            1 => return Outcome::Parked as u32,
            2 => std::arch::asm!("mov dword ptr [{}], 1", in(reg) order.address),
            3 => {
                std::arch::asm!("xor edx, edx", "xor ecx, ecx", "div ecx", out("eax") _, out("edx") _, out("ecx") _)
            }
            4 => std::arch::asm!("ud2"),
            5 => {
                recurse(0);
            }
            6 => raise(FaultKind::MisalignedAddress, order.address),
            7 => finish_thread(),
            8 => std::arch::asm!("mov rax, 0x8000000000000000", "mov rax, [rax]", out("rax") _),
            9 => {
                // Leaves another rounding mode and the direction flag behind.
                let mxcsr = 0x7f80u32;
                std::arch::asm!("ldmxcsr [{}]", "std", "ud2", in(reg) &raw const mxcsr);
            }
            _ => {
                let mut count = order.address;
                std::hint::black_box(&mut count);
                HelperScope::begin();
                raise(FaultKind::Assert, count);
            }
        }
    }
    99
}

fn run(entered: &Entered<'_>, what: u32, address: u64) -> Result<u32, Fault> {
    let order = Order { what, address };
    // SAFETY: `kernel` looks at nothing but the order.
    let result = unsafe { entered.call(kernel, ptr::null_mut(), (&raw const order).cast()) };
    if result == FAULTED { Err(entered.fault()) } else { Ok(result) }
}

#[test]
fn every_fault_is_recovered_a_thousand_times() {
    install().unwrap();
    let region = reserve_in_test(RegionConfig::default());
    let mut context = KernelContext::new(1 << 20, region.tag()).unwrap();
    let entered = context.enter();
    for _ in 0..1000 {
        assert_eq!(run(&entered, 0, 0), Ok(0));
        assert_eq!(run(&entered, 1, 0), Ok(1));
        let fault = run(&entered, 2, 0).unwrap_err();
        assert_eq!((fault.kind, fault.address, fault.outside_region), (FaultKind::IllegalAddress, 0, true));
        let inside = region.base() + 0x1234_5678;
        let fault = run(&entered, 2, inside).unwrap_err();
        assert_eq!(
            (fault.kind, fault.address, fault.outside_region),
            (FaultKind::IllegalAddress, inside, false)
        );
        assert_ne!(fault.pc, 0);
        assert_eq!(run(&entered, 3, 0).unwrap_err().kind, FaultKind::Trap);
        assert_eq!(run(&entered, 4, 0).unwrap_err().kind, FaultKind::Trap);
        assert_eq!(run(&entered, 5, 0).unwrap_err().kind, FaultKind::StackOverflow);
        let fault = run(&entered, 6, 77).unwrap_err();
        assert_eq!((fault.kind, fault.address), (FaultKind::MisalignedAddress, 77));
        assert_eq!(run(&entered, 7, 0), Ok(Outcome::Done as u32));
        let fault = run(&entered, 8, 0).unwrap_err();
        assert_eq!((fault.kind, fault.outside_region), (FaultKind::IllegalAddress, true));
        assert_eq!(run(&entered, 9, 0).unwrap_err().kind, FaultKind::Trap);
        // 1/3 rounded to nearest is the larger neighbour of what the left-over mode would give.
        assert_eq!(std::hint::black_box(1.0f32) / std::hint::black_box(3.0f32), 0.333_333_34);
        let fault = run(&entered, 10, 5).unwrap_err();
        assert_eq!((fault.kind, fault.address), (FaultKind::Assert, 5));
    }
}

#[test]
fn threads_fault_independently() {
    install().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut context = KernelContext::new(1 << 20, 0).unwrap();
                let entered = context.enter();
                for round in 1..500u64 {
                    assert_eq!(run(&entered, 2, round).unwrap_err().address, round);
                    assert_eq!(run(&entered, 5, 0).unwrap_err().kind, FaultKind::StackOverflow);
                }
            });
        }
    });
}

#[test]
fn guarded_ends_with_the_address() {
    install().unwrap();
    unsafe extern "C" fn touch(address: *mut c_void) -> u32 {
        // SAFETY: faults on purpose.
        unsafe { address.cast::<u8>().write_volatile(1) };
        0
    }
    let mut byte = 0u8;
    // SAFETY: `touch` writes one byte.
    unsafe {
        assert_eq!(guarded(touch, (&raw mut byte).cast()), Ok(()));
        assert_eq!(guarded(touch, 4096 as *mut c_void).unwrap_err().address, 4096);
        assert_eq!(guarded(touch, (&raw mut byte).cast()), Ok(()));
    }
    assert_eq!(byte, 1);
}

/// A fault outside of any kernel must still end the process: run in a child, which this test starts from its own binary.
#[test]
fn faults_of_our_own_are_not_swallowed() {
    const CHILD: &str = "PTX_CPU_FAULT_CHILD";
    match std::env::var(CHILD).as_deref() {
        Ok(mode) => {
            install().unwrap();
            let mut context = KernelContext::new(1 << 20, 0).unwrap();
            let entered = context.enter();
            assert!(run(&entered, 4, 0).is_err());
            if mode == "scope" {
                unsafe extern "C" fn helper(_: *mut Thread, _: *const Block) -> u32 {
                    // SAFETY: faults inside a helper scope on purpose.
                    unsafe {
                        let _scope = HelperScope::begin();
                        (16 as *mut u8).write_volatile(1);
                    }
                    0
                }
                // SAFETY: the function uses neither argument.
                unsafe { entered.call(helper, ptr::null_mut(), ptr::null()) };
            } else {
                drop(entered);
                // SAFETY: ends the process on purpose.
                unsafe { (16 as *mut u8).write_volatile(1) };
            }
            std::process::exit(0);
        }
        Err(_) => {
            for mode in ["plain", "scope"] {
                let status = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "fault::tests::faults_of_our_own_are_not_swallowed"])
                    .env(CHILD, mode)
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .status()
                    .unwrap();
                use std::os::unix::process::ExitStatusExt;
                assert_eq!(status.signal(), Some(libc::SIGSEGV), "{mode}");
            }
        }
    }
}
