//! What `cargo xtask bench --gpu` runs, and which ratios it should reach.

use std::path::PathBuf;

use crate::workspace;

/// What an item starts.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// A row of `manifest::BENCHMARKS`.
    Program(&'static str),
    /// A script in `samples/bench`.
    Script(&'static str),
}

/// A program with arguments; it prints figures.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub name: &'static str,
    pub start: Start,
    pub arguments: &'static [&'static str],
    /// Seconds for one run.
    pub limit_s: u64,
    /// Runs in each round, for figures that swing much.
    pub repeat: usize,
    /// Whether the time of the whole process is a figure too.
    pub whole_process: bool,
}

const fn micro(name: &'static str, arguments: &'static [&'static str]) -> Item {
    let start = Start::Program("bench/micro");
    Item { name, start, arguments, limit_s: 40, repeat: 1, whole_process: false }
}

const fn script(name: &'static str, file: &'static str, arguments: &'static [&'static str]) -> Item {
    Item { start: Start::Script(file), limit_s: 90, ..micro(name, arguments) }
}

/// In the order in which they run: what is wanted first when time runs out.
pub const ITEMS: &[Item] = &[
    Item {
        repeat: 3,
        whole_process: true,
        limit_s: 20,
        start: Start::Program("bench/first"),
        ..micro("first", &[])
    },
    micro("launch", &["launch"]),
    micro("sync", &["sync"]),
    micro("copies", &["copies"]),
    micro("streams", &["streams"]),
    micro("graph", &["graph"]),
    micro("event", &["event"]),
    micro("malloc", &["malloc"]),
    micro("module", &["module"]),
    Item { start: Start::Program("bench/nbody"), ..micro("nbody", &[]) },
    script("torch-model", "torch_bench.py", &["train", "decode"]),
    script("torch-other", "torch_bench.py", &["infer", "resnet", "small"]),
    script("cupy", "cupy_bench.py", &[]),
];

pub fn script_path(file: &str) -> PathBuf {
    workspace::root().join("samples/bench").join(file)
}

/// A ratio of shim to native that is wanted: at most for times, at least for throughputs.
pub fn target(figure: &str) -> Option<f64> {
    let exact = match figure {
        "launch issue, 500 at a time" | "runtime launch issue" | "launch issue, six parameters" => Some(1.0),
        "launch + sync" | "runtime launch + device sync" => Some(1.3),
        "empty stream sync" => Some(1.0),
        "graph launch + sync, 32 kernels" => Some(1.15),
        "first CUDA call" | "first CUDA call, whole process" => Some(0.8),
        "torch transformer training step" | "torch decode with CUDA graphs" => Some(0.97),
        "copy pinned h2d 256 MiB" | "copy pinned d2h 256 MiB" => Some(0.98),
        "copy pinned h2d 1 MiB" | "copy pinned d2h 1 MiB" => Some(0.90),
        _ => None,
    };
    exact.or_else(|| figure.starts_with("copy pageable").then_some(1.0))
}

/// The same of copies from inside of a guest: launches there are issued by an interpreted processor, which says nothing of a real one.
pub fn guest_target(figure: &str) -> Option<f64> {
    match figure {
        "copy pinned h2d 256 MiB" | "copy pinned d2h 256 MiB" => Some(0.95),
        "copy pageable h2d 256 MiB" | "copy pageable d2h 256 MiB" => Some(1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BENCHMARKS;

    #[test]
    fn items_name_programs_that_exist() {
        for item in ITEMS {
            match item.start {
                Start::Program(name) => {
                    assert!(BENCHMARKS.iter().any(|sample| sample.name == name), "{name}")
                }
                Start::Script(file) => assert!(script_path(file).is_file(), "{file}"),
            }
        }
    }
}
