//! The table of sample programs. `samples/README.md` says how to add one.

use crate::nvcc::Variant;

/// How a sample reaches CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Through a CUDA runtime library, linked statically or dynamically.
    Runtime,
    /// Through the driver API alone. The variant `static` opens `libcuda.so.1` itself and looks its functions up,
    /// the variant `shared` is linked against it.
    Driver,
}

/// A file that lies next to the program and that the program opens.
#[derive(Clone, Copy, Debug)]
pub enum Data {
    /// A file of the sample's folder, copied to `<name>.<extension>`.
    Copy { from: &'static str, to: &'static str },
    /// A device source compiled to a fatbin with exactly these options (none: the samples' own architectures).
    Fatbin { from: &'static str, to: &'static str, options: &'static [&'static str] },
}

/// One sample program.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Folder under `samples/` and name of the program; with a slash (`bench/micro`), a folder that several programs share and
    /// the program's own name.
    pub name: &'static str,
    /// Source files in that folder.
    pub sources: &'static [&'static str],
    /// The API that it is written to.
    pub api: Api,
    /// Options for nvcc, for compiling and for linking. With a `-gencode` among them the usual architectures are left out.
    pub options: &'static [&'static str],
    /// Files that it opens.
    pub data: &'static [Data],
    /// Exit code of a correct run.
    pub exit_code: i32,
    /// What it needs and the CPU backend does not have.
    pub cpu_lacks: Option<&'static str>,
    /// What it needs and a session without shared memory does not have.
    pub stream_lacks: Option<&'static str>,
}

impl Sample {
    /// The folder that it shares with other programs.
    pub fn group(&self) -> Option<&'static str> {
        self.name.split_once('/').map(|(group, _)| group)
    }

    /// The variants that are built.
    pub fn variants(&self) -> &'static [Variant] {
        if self.group().is_some() { &[Variant::Static] } else { &Variant::ALL }
    }
}

const fn runtime(name: &'static str, sources: &'static [&'static str]) -> Sample {
    Sample {
        name,
        sources,
        api: Api::Runtime,
        options: &[],
        data: &[],
        exit_code: 0,
        cpu_lacks: None,
        stream_lacks: None,
    }
}

const fn driver(name: &'static str, sources: &'static [&'static str], data: &'static [Data]) -> Sample {
    Sample { api: Api::Driver, data, ..runtime(name, sources) }
}

const fn with_options(sample: Sample, options: &'static [&'static str]) -> Sample {
    Sample { options, ..sample }
}

const fn gpu_only(sample: Sample, cpu_lacks: &'static str) -> Sample {
    Sample { cpu_lacks: Some(cpu_lacks), ..sample }
}

const fn sharing(sample: Sample, stream_lacks: &'static str) -> Sample {
    Sample { stream_lacks: Some(stream_lacks), ..sample }
}

/// Every sample, in the order in which they are built and run: simple ones first.
pub const SAMPLES: &[Sample] = &[
    runtime("vector_add", &["vector_add.cu"]),
    sharing(runtime("device_query", &["device_query.cu"]), "demands managed memory of the device"),
    driver("driver_ptx", &["driver_ptx.cpp"], &[Data::Copy { from: "driver_ptx.ptx", to: "driver_ptx.ptx" }]),
    driver(
        "driver_fatbin",
        &["driver_fatbin.cpp"],
        &[Data::Fatbin { from: "kernels.cu", to: "driver_fatbin.fatbin", options: &[] }],
    ),
    driver("driver_context", &["driver_context.cpp"], &[]),
    driver("driver_dlclose", &["driver_dlclose.cpp"], &[]),
    driver(
        "driver_link",
        &["driver_link.cpp"],
        &[
            Data::Copy { from: "main.ptx", to: "driver_link.main.ptx" },
            Data::Copy { from: "library.ptx", to: "driver_link.library.ptx" },
        ],
    ),
    driver(
        "driver_errors",
        &["driver_errors.cpp"],
        &[
            Data::Fatbin {
                from: "other_arch.cu",
                to: "driver_errors.sm_75.fatbin",
                options: &["-gencode=arch=compute_75,code=sm_75"],
            },
            Data::Fatbin {
                from: "other_arch.cu",
                to: "driver_errors.sm_90.fatbin",
                options: &["-gencode=arch=compute_90,code=sm_90"],
            },
        ],
    ),
    driver(
        "bad_images",
        &["bad_images.cpp"],
        &[
            Data::Fatbin { from: "kernels.cu", to: "bad_images.fatbin", options: &[] },
            Data::Fatbin {
                from: "kernels.cu",
                to: "bad_images.sm_75.fatbin",
                options: &["-gencode=arch=compute_75,code=sm_75"],
            },
            Data::Fatbin {
                from: "kernels.cu",
                to: "bad_images.sm_90.fatbin",
                options: &["-gencode=arch=compute_90,code=sm_90"],
            },
        ],
    ),
    runtime("matmul_tiled", &["matmul_tiled.cu"]),
    runtime("reduction", &["reduction.cu"]),
    runtime("histogram", &["histogram.cu"]),
    runtime("scan", &["scan.cu"]),
    runtime("constant_symbols", &["constant_symbols.cu"]),
    runtime("struct_params", &["struct_params.cu"]),
    sharing(runtime("streams_events", &["streams_events.cu"]), "mapped host memory"),
    sharing(runtime("registered", &["registered.cu"]), "mapped host memory"),
    runtime("launch_api", &["launch_api.cu"]),
    runtime("pitched_2d", &["pitched_2d.cu"]),
    runtime("bulk_copies", &["bulk_copies.cu"]),
    runtime("short_copies", &["short_copies.cu"]),
    sharing(runtime("managed", &["managed.cu"]), "managed memory"),
    runtime("printf_assert", &["printf_assert.cu"]),
    runtime("function_pointers", &["function_pointers.cu"]),
    with_options(runtime("rdc", &["rdc.cu", "rdc_device.cu"]), &["-rdc=true"]),
    runtime("montecarlo", &["montecarlo.cu"]),
    runtime("half", &["half.cu"]),
    with_options(runtime("ptds", &["ptds.cu"]), &["-default-stream", "per-thread"]),
    runtime("host_threads", &["host_threads.cu"]),
    runtime("errors", &["errors.cu"]),
    runtime("warp_ops", &["warp_ops.cu"]),
    runtime("atomics", &["atomics.cu"]),
    runtime("device_malloc", &["device_malloc.cu"]),
    runtime("bitops_math", &["bitops_math.cu"]),
    runtime("barrier_loop", &["barrier_loop.cu"]),
    runtime("big_grid", &["big_grid.cu"]),
    runtime("fork_exec", &["fork_exec.cu"]),
    runtime("exit_paths", &["exit_paths.cu"]),
    gpu_only(runtime("graph_capture", &["graph_capture.cu"]), "no stream capture on the CPU"),
    gpu_only(
        // cudaGraphSetConditional is a function of the device runtime.
        with_options(runtime("graph_explicit", &["graph_explicit.cu"]), &["-rdc=true"]),
        "no graphs on the CPU",
    ),
    sharing(
        gpu_only(runtime("graph_pageable", &["graph_pageable.cu"]), "no stream capture on the CPU"),
        "copies of the program's memory in graphs",
    ),
    gpu_only(runtime("textures", &["textures.cu"]), "no textures on the CPU"),
    gpu_only(runtime("copies_3d", &["copies_3d.cu"]), "no arrays on the CPU"),
    gpu_only(runtime("vmm", &["vmm.cu"]), "no memory without addresses on the CPU"),
    gpu_only(runtime("stream_memops", &["stream_memops.cu"]), "no stream memory operations on the CPU"),
    gpu_only(runtime("ipc", &["ipc.cu"]), "no memory of other programs on the CPU"),
];

/// Programs of the library tests (`test_shim`): built as samples are, in no matrix.
pub const PROBES: &[Sample] = &[
    driver("shim_probe", &["shim_probe.cpp"], &[]),
    with_options(runtime("sass_only", &["sass_only.cu"]), &["-gencode=arch=compute_90,code=sm_90"]),
];

/// Benchmark programs (`cargo xtask bench --gpu`).
pub const BENCHMARKS: &[Sample] = &[
    driver(
        "bench/micro",
        &["micro.cpp"],
        &[Data::Fatbin { from: "kernels.cu", to: "micro.fatbin", options: &[] }],
    ),
    runtime("bench/first", &["first.cu"]),
    runtime("bench/nbody", &["nbody.cu"]),
];

/// Library programs that are no scripts (`cargo xtask test --gpu`).
pub const LIBRARIES: &[Sample] = &[driver("libraries/math", &["math.cpp"], &[])];

/// Transcripts of driver calls (`cargo xtask test --gpu`).
pub const BEHAVIOUR: &[Sample] = &[
    driver("behaviour/handles", &["handles.cpp"], &[]),
    driver("behaviour/contexts", &["contexts.cpp"], &[]),
    driver("behaviour/memory", &["memory.cpp"], &[]),
    driver("behaviour/streams", &["streams.cpp"], &[]),
    driver("behaviour/launch", &["launch.cpp"], &[]),
    driver("behaviour/graphs", &["graphs.cpp"], &[]),
    driver("behaviour/arrays", &["arrays.cpp"], &[]),
    driver("behaviour/faults", &["faults.cpp"], &[]),
];

/// The program that runs several times at once (`cargo xtask test --gpu`).
pub const MULTI: &[Sample] = &[driver("multi/tenant", &["tenant.cpp"], &[])];

/// The sample called `name`.
pub fn find(name: &str) -> Option<&'static Sample> {
    SAMPLES.iter().find(|sample| sample.name == name)
}

/// All names, for messages.
pub fn names() -> String {
    let names: Vec<&str> = SAMPLES.iter().map(|sample| sample.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::workspace;

    #[test]
    fn the_table_and_the_folders_agree() -> anyhow::Result<()> {
        let samples = workspace::root().join("samples");
        let mut folders = BTreeSet::new();
        for entry in fs::read_dir(&samples)? {
            let entry = entry?;
            if entry.path().join("expected.txt").is_file() {
                folders.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        let rows: BTreeSet<String> = SAMPLES.iter().map(|sample| sample.name.to_string()).collect();
        assert_eq!(rows.len(), SAMPLES.len(), "a name appears twice");
        assert_eq!(rows, folders);
        let readme = fs::read_to_string(samples.join("README.md"))?;
        for sample in SAMPLES {
            assert!(
                readme.contains(&format!("| {} |", sample.name)),
                "{} is not in samples/README.md",
                sample.name
            );
            let data = sample.data.iter().map(|data| match data {
                Data::Copy { from, .. } | Data::Fatbin { from, .. } => *from,
            });
            for file in sample.sources.iter().copied().chain(data) {
                let path = samples.join(sample.name).join(file);
                assert!(path.is_file(), "{} is missing", path.display());
            }
        }
        Ok(())
    }
}
