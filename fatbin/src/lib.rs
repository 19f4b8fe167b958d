//! Reads CUDA fat binaries.
//!
//! A program made by nvcc carries its device code in *containers*: a header and entries, each an image (machine code
//! in an ELF file, PTX text, ...) for one architecture, most of them compressed. A 24-byte *wrapper* points at a container,
//! and is what the program registers.
//!
//! * [`Container`] and [`Entry`] read a container, [`Wrapper`] a wrapper; [`raw`] has the structures as stored.
//! * [`select()`] chooses the image for a device, and says of every other why not.
//! * [`scan_file`] finds wrappers and containers in programs, libraries, objects and archives.
//! * [`Cubin`] lists the kernels and parameters of machine code; [`ptx`] those of PTX text.
//! * [`ImageKind`] says what a pointer to an image points at.
//!
//! Everything works on borrowed bytes that nobody vouches for: reads are checked, errors say offset and field,
//! decompression stops at the declared size and at the caller's limit, and nothing panics.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod archive;
mod bytes;
mod container;
pub mod cubin;
mod decompress;
mod elf_len;
mod entry;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod image;
mod lexer;
mod nv_info;
pub mod ptx;
pub mod raw;
mod scan;
pub mod select;
mod wrapper;

pub use container::{Container, Entries};
pub use cubin::Cubin;
pub use decompress::Codec;
pub use elf_len::{elf_len, elf_len_with};
pub use entry::{Arch, CodeVersion, Entry, GroupPart, Variant};
pub use error::{Error, ErrorKind, Result};
pub use image::ImageKind;
pub use raw::{Flags, Kind};
pub use scan::{FoundContainer, FoundWrapper, Part, Scan, scan_elf, scan_file, scan_raw};
pub use select::{Device, LinkedSelection, Purpose, Rejection, Selection, select, select_linked};
pub use wrapper::{Wrapper, WrapperVersion};
