//! Link arguments of the shared library. No code is generated here: that is `cargo xtask codegen`.

fn main() {
    // Programs and NVIDIA's runtime look for this soname.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // Thread-local destructors and exit handlers of the program may call in after a dlclose: stay mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Calls between our own exported functions must not be interposed by another libcuda in the process.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
