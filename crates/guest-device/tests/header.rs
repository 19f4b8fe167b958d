//! The structures of this crate are those of the C header, as gcc sees it.

use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use guest_device::abi::{self, Info, Pin, Release, Status, Window};

/// A C program that prints one number per line, and the same numbers from Rust.
macro_rules! compared {
    ($($type:ident $name:literal { $($field:ident),* })*) => {{
        let mut c = String::new();
        let mut rust: Vec<(String, u64)> = Vec::new();
        $(
            c += concat!("P(sizeof(struct ", $name, "));");
            rust.push(($name.into(), size_of::<$type>() as u64));
            $(
                c += concat!("P(__builtin_offsetof(struct ", $name, ", ", stringify!($field), "));");
                rust.push((format!("{}.{}", $name, stringify!($field)), offset_of!($type, $field) as u64));
                c += concat!("P(sizeof(((struct ", $name, " *)0)->", stringify!($field), "));");
                let size = |of: fn(&$type) -> usize| of(&$type::default()) as u64;
                rust.push((format!("size of {}.{}", $name, stringify!($field)), size(|value| size_of_val(&value.$field))));
            )*
        )*
        (c, rust)
    }};
}

#[test]
fn structures_and_numbers_are_those_of_the_header() {
    let (mut c, mut rust) = compared! {
        Info "cuda_broker_info" { version, reserved, cookie, max_region_bytes, process_limit_bytes, user_limit_bytes }
        Window "cuda_broker_window" { len, flags, region, mmap_offset }
        Pin "cuda_broker_pin" { address, len, flags, region, offset, region_len }
        Release "cuda_broker_release" { region, flags }
        Status "cuda_broker_status" {
            region, region_len, state, extents, regions, live_bytes, waiting_bytes, user_bytes, process_bytes
        }
    };
    for (name, value) in [
        ("VERSION", u64::from(abi::VERSION)),
        ("WAIT", abi::WAIT),
        ("INFO", u64::from(abi::INFO)),
        ("ALLOC_WINDOW", u64::from(abi::ALLOC_WINDOW)),
        ("PIN", u64::from(abi::PIN)),
        ("RELEASE", u64::from(abi::RELEASE)),
        ("STATUS", u64::from(abi::STATUS)),
        ("ADDING", 0),
        ("LIVE", 1),
        ("REMOVING", 2),
    ] {
        c += &format!("P(CUDA_BROKER_{name});");
        rust.push((name.into(), value));
    }

    let dir = tempfile::tempdir().unwrap();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-kmod/include/uapi/cuda_broker.h");
    let source = format!(
        "#include <stdio.h>\n#include \"{}\"\n#define P(x) printf(\"%llu\\n\", (unsigned long long)(x))\nint main(void) {{ {c} return 0; }}\n",
        header.display()
    );
    let (file, program) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").arg("-Wall").arg("-Werror").arg("-o").arg(&program).arg(&file).status();
    assert!(status.expect("a C compiler").success());
    let output = Command::new(&program).output().unwrap();
    let numbers: Vec<u64> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.len(), rust.len());
    for ((name, ours), theirs) in rust.iter().zip(numbers) {
        assert_eq!(*ours, theirs, "{name}");
    }
}
