//! A drop-in `libcuda.so.1` that forwards the CUDA driver API to a host.
//!
//! | room | what is in it |
//! |---|---|
//! | `generated/` | written by `cargo xtask codegen` from the driver-call table: exported functions, client functions, cuGetProcAddress table |
//! | `custom/` | calls written by hand, one file per spec file |
//! | `private/` | `cuGetExportTable`'s tables and the validity handshake |
//! | `call`, `marshal`, `pointer`, `types` | the C boundary: guard, tracing, pointers, C types |
//! | `process`, `thread`, `session`, `order` | who owns what: per process, per thread, the connection; order between threads |
//! | `context`, `owners`, `allocations`, `function`, `module`, `image`, `local_storage`, `legacy` | what the guest knows without asking |
//! | `log`, `profile` | what the library says, and where time goes, on request |
//! | `pinned`, `registered`, `reach`, `areas`, `freeze`, `fork` | host memory that kernels use, the library's and the program's own |
//! | `shared_handle` | descriptors by which programs share memory |
//! | `copy`, `long_copy`, `box_copy`, `chunks`, `callback`, `output` | copies, functions that run in stream order, device printf |
//! | `capture`, `graph`, `graph_copy`, `graph_copy_node`, `graph_buffers` | which streams are capturing, parameters of graph nodes, copies of pageable memory in graphs |
//!
//! Nothing runs when the library is loaded; the first call that needs the host is `cuInit`.

mod allocations;
mod areas;
mod background;
mod box_copy;
mod call;
mod callback;
mod capture;
mod chunks;
mod context;
mod copy;
mod custom;
mod fork;
mod freeze;
mod function;
mod generated;
mod graph;
mod graph_buffers;
mod graph_copy;
mod graph_copy_node;
mod guest_window;
mod idle;
mod image;
mod legacy;
mod lent;
mod local_storage;
mod log;
mod long_copy;
mod marker;
mod marshal;
mod module;
mod node_params;
mod order;
mod output;
mod owners;
mod pinned;
mod pointer;
mod private;
mod proc_address;
mod process;
mod profile;
mod reach;
mod registered;
mod session;
mod shared_handle;
mod sticky;
mod symbols;
mod thread;
mod types;
mod watched;
