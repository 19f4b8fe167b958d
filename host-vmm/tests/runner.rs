//! `host-vmm run`: exit codes, signals, environment, and nothing left behind.

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Client, HOST_VMM, eventually, kill, processes_with};
use rustix::process::Signal;

/// Set in a child: what it is to do.
const CHILD: &str = "HOST_VMM_TEST_CHILD";

/// Not a test by itself: this binary, started again as the program that is run.
#[test]
fn child_program() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let address = std::env::var("CUDA_SHIM_CONNECT").unwrap();
    let mut client = Client::connect(&address.parse().unwrap());
    if task == "work" {
        client.assert_works();
        return;
    }
    client.set_up();
    let module = client.load(common::KERNELS).unwrap();
    let spin = client.function(module, c"spin").unwrap();
    let seq = client.launch(spin, 0, &[]);
    client.lane.wait_completed(seq).unwrap();
    std::fs::write(&task, "running").unwrap();
    let _ = client.synchronize();
}

/// `host-vmm run` with temporary files in `dir`, whose name also marks its processes.
fn run(dir: &Path, options: &[&str]) -> Command {
    let shim = dir.join("shim.so");
    std::fs::write(&shim, "not loaded by what these tests run").unwrap();
    let mut command = Command::new(HOST_VMM);
    command.arg("run").arg("--shim").arg(&shim).args(["--memory", "256M", "--window", "256M"]).args(options);
    command.env("TMPDIR", dir).env_remove("HOST_VMM_LOG").env_remove("LD_LIBRARY_PATH").arg("--");
    command
}

fn this_program(command: &mut Command, task: &str) {
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_program", "--nocapture"])
        .env(CHILD, task);
}

fn assert_clean(dir: &Path) {
    eventually(Duration::from_secs(2), "all processes are gone", || processes_with(dir).is_empty());
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "shim.so" || name == "running"), "{left:?}");
}

#[test]
fn exit_codes_are_the_programs() {
    let dir = tempfile::tempdir().unwrap();
    let code = |program: &[&str]| run(dir.path(), &["-q"]).args(program).status().unwrap().code();
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -SEGV $$"]), Some(128 + 11));
    assert_eq!(code(&["/no/such/program"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_clean(dir.path());
}

#[test]
fn input_and_output_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = run(dir.path(), &["-q"]);
    command.args(["sh", "-c", "tr a-z A-Z; echo err >&2"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"text").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"TEXT");
    assert_eq!(output.stderr, b"err\n");
}

#[test]
fn the_shim_is_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let script = "ls -l $(echo $LD_LIBRARY_PATH | cut -d: -f1); echo $LD_LIBRARY_PATH; echo $LD_PRELOAD";
    let mut command = run(dir.path(), &["-q"]);
    let output = command.args(["sh", "-c", script]).env("LD_LIBRARY_PATH", "/opt/lib").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("libcuda.so.1 -> ") && text.contains("shim.so"), "{text}");
    assert!(text.contains(":/opt/lib\n"), "{text}");

    let output =
        run(dir.path(), &["-q", "--preload"]).args(["sh", "-c", "echo $LD_PRELOAD"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("/libcuda.so.1\n"));
    assert_clean(dir.path());
}

#[test]
fn the_closing_line_counts_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = run(dir.path(), &["--stats"]);
    this_program(&mut command, "work");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("host-vmm: cpu backend ran 1 kernel (1 launch) in 1 session\n"), "{text}");
    assert!(text.contains("cuMemAlloc_v2") && text.contains("images: 1 sent"), "{text}");

    let mut command = run(dir.path(), &["--stats", "--json"]);
    this_program(&mut command, "work");
    let output = command.output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(json["launches"], 1);
    assert_eq!(json["stats"]["calls"]["launch"]["calls"], 1);
    assert_eq!(json["stats"]["bytes_in"], 4096);
    assert_clean(dir.path());
}

#[test]
fn signals_are_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = dir.path().join("running");
    let mut command = run(dir.path(), &["-q"]);
    this_program(&mut command, running.to_str().unwrap());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    eventually(common::TIMEOUT, "the kernel runs", || running.exists());
    kill(i32::try_from(child.id()).unwrap(), Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_clean(dir.path());
}

#[test]
fn a_killed_runner_leaves_no_worker() {
    let dir = tempfile::tempdir().unwrap();
    let running = dir.path().join("running");
    let mut command = run(dir.path(), &["-q"]);
    this_program(&mut command, running.to_str().unwrap());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(common::TIMEOUT, "the kernel runs", || running.exists());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // The program itself is not ended by this, but its driver calls are: here it has nothing else to do.
    eventually(Duration::from_secs(2), "all processes are gone", || processes_with(dir.path()).is_empty());
}

#[test]
fn many_runs_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let mut command = run(dir.path(), &["-q"]);
        this_program(&mut command, "work");
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        assert_clean(dir.path());
    }
}

#[test]
fn options_after_the_program_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("shim.so");
    std::fs::write(&shim, "not loaded by what this test runs").unwrap();
    let run = |arguments: &[&str]| {
        Command::new(HOST_VMM).args(["run", "--quiet", "--shim"]).arg(&shim).args(arguments).output().unwrap()
    };
    for separator in [&[][..], &["--"]] {
        let output = run(&[separator, &["echo", "--quiet", "--", "--help", "-q"]].concat());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "--quiet -- --help -q\n");
    }
    // An option that there is not is a mistake, no program.
    assert_eq!(run(&["--quite", "true"]).status.code(), Some(2));
}

#[test]
fn what_cannot_be_done_is_said() {
    let output = Command::new(HOST_VMM).args(["run", "--backend", "cuda", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no CUDA backend"));
    let output =
        Command::new(HOST_VMM).args(["run", "--shim", "/no/shim.so", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/shim.so"));
    let output = Command::new(HOST_VMM).args(["serve", "--listen", "relative"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for help in [&["--help"][..], &["run", "--help"], &["completions", "bash"], &["man"]] {
        assert!(
            Command::new(HOST_VMM).args(help).stdout(Stdio::null()).status().unwrap().success(),
            "{help:?}"
        );
    }
}
