//! The table of sample programs. `samples/README.md` says how to add one.

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
    /// Folder under `samples/` and name of the program.
    pub name: &'static str,
    /// Source files in that folder.
    pub sources: &'static [&'static str],
    /// The API that it is written to.
    pub api: Api,
    /// Options for nvcc, for compiling and for linking.
    pub options: &'static [&'static str],
    /// Files that it opens.
    pub data: &'static [Data],
    /// Exit code of a correct run.
    pub exit_code: i32,
}

const fn runtime(name: &'static str, sources: &'static [&'static str]) -> Sample {
    Sample { name, sources, api: Api::Runtime, options: &[], data: &[], exit_code: 0 }
}

const fn driver(name: &'static str, sources: &'static [&'static str], data: &'static [Data]) -> Sample {
    Sample { api: Api::Driver, data, ..runtime(name, sources) }
}

const fn with_options(sample: Sample, options: &'static [&'static str]) -> Sample {
    Sample { options, ..sample }
}

/// Every sample, in the order in which they are built and run: simple ones first.
pub const SAMPLES: &[Sample] = &[runtime("vector_add", &["vector_add.cu"])];

/// The sample called `name`.
pub fn find(name: &str) -> Option<&'static Sample> {
    SAMPLES.iter().find(|sample| sample.name == name)
}

/// All names, for messages.
pub fn names() -> String {
    let names: Vec<&str> = SAMPLES.iter().map(|sample| sample.name).collect();
    names.join(", ")
}
