//! A few lines of C in the driver's place.

use std::path::PathBuf;
use std::process::Command;

use super::Daemon;

/// A driver whose mood is files in its folder. Its code knows the folder as `DIR`.
pub struct StandIn {
    pub dir: tempfile::TempDir,
}

impl StandIn {
    pub fn new(source: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let code = dir.path().join("driver.c");
        std::fs::write(&code, source).unwrap();
        let stand_in = Self { dir };
        let define = format!("-DDIR=\"{}\"", stand_in.dir.path().display());
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", &define, "-o"])
            .arg(stand_in.library())
            .arg(&code)
            .status()
            .expect("a C compiler is needed");
        assert!(built.success());
        stand_in
    }

    pub fn library(&self) -> PathBuf {
        self.dir.path().join("libcuda.so.1")
    }

    pub fn set(&self, mood: &str) {
        std::fs::write(self.dir.path().join(mood), "").unwrap();
    }

    pub fn unset(&self, mood: &str) {
        std::fs::remove_file(self.dir.path().join(mood)).unwrap();
    }

    pub fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(file), bytes).unwrap();
    }

    /// What it has written to a file of its folder so far.
    pub fn wrote(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    pub fn daemon(&self, warm_workers: u32) -> Daemon {
        let library = self.library();
        Daemon::start_warm(warm_workers, &["--backend", "cuda", "--libcuda", library.to_str().unwrap()])
    }
}
