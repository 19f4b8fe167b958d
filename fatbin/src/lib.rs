//! Reads CUDA fat binaries.
//!
//! A program made by nvcc carries its device code in *containers*: a header and entries, each an image (machine code
//! in an ELF file, PTX text, ...) for one architecture, most of them compressed. A 24-byte *wrapper* points at a container,
//! and is what the program registers.
//!
//! * [`Container`] and [`Entry`] read a container, [`Wrapper`] a wrapper; [`raw`] has the structures as stored.
//! * [`select()`] chooses the image for a device, and says of every other why not.
//! * [`Fatbins`] finds all device code of a file of any kind; [`scan_file`] its wrappers and containers.
//! * [`strip`] makes containers with fewer images.
//! * `files` (feature `files`) maps files into memory, walks directories and unpacks wheels.
//! * [`Managed`] lists the managed variables of machine code, and places them elsewhere.
//! * [`Cubin`] lists the kernels and parameters of machine code; [`ptx`] those of PTX text.
//! * [`ImageKind`] says what a pointer to an image points at.
//!
//! Everything works on borrowed bytes that nobody vouches for: reads are checked, errors say offset and field,
//! decompression stops at the declared size and at the caller's limit, and nothing panics.
#![warn(missing_docs)]

mod archive;
mod bytes;
mod container;
pub mod cubin;
mod decompress;
mod elf_len;
mod entry;
mod error;
mod fatbins;
#[cfg(feature = "files")]
pub mod files;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod image;
mod lexer;
pub mod managed;
mod nv_info;
#[cfg(feature = "files")]
mod pe;
pub mod ptx;
pub mod raw;
mod scan;
pub mod select;
pub mod strip;
mod wrapper;

pub use container::{Container, Entries};
pub use cubin::Cubin;
pub use decompress::Codec;
pub use elf_len::{elf_len, elf_len_with};
pub use entry::{Arch, CodeVersion, Entry, GroupPart, Variant};
pub use error::{Error, ErrorKind, Result};
pub use fatbins::{Fatbins, Format, Located};
pub use image::{ImageKind, tile_ir_version};
pub use managed::{Managed, ManagedVariable};
pub use raw::{Flags, Kind};
pub use scan::{FoundContainer, FoundSection, FoundWrapper, Part, Scan, scan_elf, scan_file, scan_raw};
pub use select::{Device, LinkedSelection, Purpose, Rejection, Selection, select, select_linked};
pub use wrapper::{Wrapper, WrapperVersion};
