//! What the library looks like from outside: exports, log, the ways to put it in front, environment variables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use object::elf::{DT_NEEDED, DT_SONAME, FileHeader64};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _};
use object::{Endianness, Object as _, ObjectSymbol as _};

use super::Tested;
use super::rig::{Daemon, Rig, Scratch, expect_match, expect_output, finish, stderr, stdout};
use crate::nvcc::Variant;
use crate::workspace;

/// Output of the sample `vector_add`.
const VECTOR_ADD: &str = "vector_add: 1048576 elements, max error 0\nPASS\n";

/// What the library may need: it goes into foreign programs.
const MAY_NEED: [&str; 3] = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

pub fn exports(rig: &Rig) -> Tested {
    let bytes = fs::read(&rig.shim)?;
    let (mut soname, mut needed, versions) = (String::new(), Vec::new(), version_needs(&bytes)?);
    let header = FileHeader64::<Endianness>::parse(&*bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, &*bytes)?;
    let (dynamic, strings) = sections.dynamic(endian, &*bytes)?.context("no dynamic section")?;
    let strings = sections.strings(endian, &*bytes, strings)?;
    for entry in dynamic {
        let text = || -> Result<String> {
            let name = strings.get(entry.val32(endian).context("string offset")?);
            Ok(String::from_utf8_lossy(name.ok().context("string")?).into_owned())
        };
        match entry.d_tag(endian) {
            DT_SONAME => soname = text()?,
            DT_NEEDED => needed.push(text()?),
            _ => {}
        }
    }
    ensure!(soname == "libcuda.so.1", "the soname is '{soname}'");
    for library in &needed {
        ensure!(MAY_NEED.contains(&library.as_str()), "the library needs {library}: {needed:?}");
    }

    let spec = workspace::root().join("crates/driver-api");
    let mut expected = BTreeSet::new();
    for file in ["exports.lock", "exports.extra"] {
        let text = fs::read_to_string(spec.join(file))?;
        let names = text.lines().filter_map(|line| line.split_whitespace().next());
        expected.extend(names.filter(|name| !name.starts_with('#')).map(str::to_owned));
    }
    let elf = ElfFile64::<Endianness>::parse(&*bytes)?;
    let symbols = elf.dynamic_symbols().filter(|symbol| symbol.is_definition() && symbol.is_global());
    let actual: BTreeSet<String> =
        symbols.filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect();
    let missing: Vec<_> = expected.difference(&actual).collect();
    // Names of the library's own: the marker by which a daemon tells it from NVIDIA's.
    let surplus: Vec<_> = actual.difference(&expected).filter(|name| name.starts_with("cu")).collect();
    ensure!(missing.is_empty() && surplus.is_empty(), "exports: missing {missing:?}, surplus {surplus:?}");
    let others: Vec<_> = actual.difference(&expected).collect();
    ensure!(others.len() <= 1, "exports beyond the driver's: {others:?}");
    let newest = versions.iter().max().context("no symbol versions")?;
    Ok(Some(format!("{} names, newest symbol version GLIBC_{}.{}", actual.len(), newest.0, newest.1)))
}

/// The versions of glibc that symbols are needed in.
fn version_needs(bytes: &[u8]) -> Result<Vec<(u32, u32)>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let (mut needs, link) = sections.gnu_verneed(endian, bytes)?.context("no version requirements")?;
    let strings = sections.strings(endian, bytes, link)?;
    let mut versions = Vec::new();
    while let Some((_, mut names)) = needs.next()? {
        while let Some(name) = names.next()? {
            let name = String::from_utf8_lossy(name.name(endian, strings)?).into_owned();
            let numbers = name.strip_prefix("GLIBC_").and_then(|numbers| numbers.split_once('.'));
            if let Some((major, minor)) = numbers {
                let minor = minor.split('.').next().unwrap_or_default();
                versions.push((major.parse()?, minor.parse()?));
            }
        }
    }
    Ok(versions)
}

pub fn silent(rig: &Rig) -> Tested {
    for variant in Variant::ALL {
        for (name, task) in [("vector_add", None), ("shim_probe", Some("unhandled")), ("bad_images", None)] {
            let scratch = Scratch::new()?;
            let mut command = rig.run(&scratch, &[], &rig.program(name, variant)?);
            // The host's own warnings are not what this is about.
            let finished = finish(command.args(task).env("HOST_VMM_LOG", "off"))?;
            let err = stderr(&finished);
            ensure!(err.is_empty(), "{name}, {}: standard error:\n{err}", variant.name());
        }
    }
    Ok(None)
}

/// Start of every line of the log.
const LINE: &str = r"^\[cuda-shim [0-9]+:[0-9]+ trace\] ";

fn expect_trace(text: &str) -> Result<()> {
    for line in [
        r"cuInit\(Flags=0\) = CUDA_SUCCESS \[[0-9.]+.?s\]$",
        r"cuDeviceGet\(device=0x[0-9a-f]+, ordinal=0\) = CUDA_SUCCESS ",
        r"cuMemAlloc_v2\(dptr=0x[0-9a-f]+, bytesize=4194304\) = CUDA_SUCCESS ",
        r"cuMemcpyHtoD_v2\(dstDevice=0x[0-9a-f]+, srcHost=0x[0-9a-f]+, ByteCount=4194304\) = CUDA_SUCCESS ",
        r#"cuLibraryGetKernel\(pKernel=0x[0-9a-f]+, library=0x[0-9a-f]+, name="_Z10vector_addPKfS0_Pfi"\) = CUDA_SUCCESS "#,
        r"cuLaunchKernel\(f=0x[0-9a-f]+, gridDimX=4096, gridDimY=1, gridDimZ=1, blockDimX=256, blockDimY=1, blockDimZ=1, sharedMemBytes=0, hStream=NULL, kernelParams=0x[0-9a-f]+, extra=NULL\) = CUDA_SUCCESS ",
        r"cuMemFree_v2\(dptr=0x[0-9a-f]+\) = CUDA_SUCCESS ",
        r"cuGetExportTable\(.*\) = CUDA_ERROR_NOT_FOUND ",
    ] {
        expect_match(text, &format!("{LINE}{line}"))?;
    }
    Ok(())
}

pub fn trace(rig: &Rig) -> Tested {
    for variant in Variant::ALL {
        let scratch = Scratch::new()?;
        let mut command = rig.run(&scratch, &[], &rig.program("vector_add", variant)?);
        let finished = finish(command.env("CUDA_SHIM_LOG", "trace"))?;
        expect_output(&finished, 0, VECTOR_ADD)?;
        expect_trace(&stderr(&finished))?;
    }
    Ok(None)
}

pub fn trace_to_file(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    let (log, missing) = (scratch.file("log"), scratch.file("missing/log"));
    let program = rig.program("vector_add", Variant::Static)?;
    let run = |path: &Path| {
        finish(rig.run(&scratch, &[], &program).env("CUDA_SHIM_LOG", format!("trace:{}", path.display())))
    };
    // Two programs write to one file: the second appends.
    for _ in 0..2 {
        let finished = run(&log)?;
        expect_output(&finished, 0, VECTOR_ADD)?;
        let err = stderr(&finished);
        ensure!(err.is_empty(), "standard error beside the file:\n{err}");
    }
    let text = fs::read_to_string(&log)?;
    expect_trace(&text)?;
    let ends = text.lines().filter(|line| line.contains("trace] cuInit(")).count();
    ensure!(ends == 2, "{ends} programs in the log");
    for line in text.lines() {
        expect_match(line, r"^\[cuda-shim [0-9]+:[0-9]+ (trace|debug|info)\] .")?;
    }
    // A file that cannot be written: what was asked for is on standard error.
    expect_trace(&stderr(&run(&missing)?))?;
    Ok(None)
}

pub fn unhandled(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    let mut command = rig.run(&scratch, &[], &rig.program("shim_probe", Variant::Static)?);
    let finished = finish(command.arg("unhandled").env("CUDA_SHIM_LOG", "warn"))?;
    let line = |name: &str| format!("{name}: CUDA_ERROR_NOT_SUPPORTED\n");
    let names = ["cuGLInit", "cuVDPAUGetDevice", "cuGLInit", "cuGLInit"];
    expect_output(&finished, 0, &names.map(line).concat())?;
    let err = stderr(&finished);
    for name in ["cuGLInit", "cuVDPAUGetDevice"] {
        let count = err.lines().filter(|line| line.contains(name)).count();
        ensure!(count == 1, "{name} is logged {count} times:\n{err}");
    }
    Ok(None)
}

pub fn ways_in(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let shim = rig.shim.as_os_str();
    for variant in Variant::ALL {
        let program = rig.program("vector_add", variant)?;
        let scratch = Scratch::new()?;
        let mut preloaded = daemon.command(&program);
        preloaded.env_remove("LD_LIBRARY_PATH").env("LD_PRELOAD", shim);
        let ways = [
            ("run", rig.run(&scratch, &[], &program)),
            ("run --preload", rig.run(&scratch, &["--preload"], &program)),
            ("LD_LIBRARY_PATH", daemon.command(&program)),
            ("LD_PRELOAD", preloaded),
        ];
        for (way, mut command) in ways {
            let finished = finish(&mut command)?;
            expect_output(&finished, 0, VECTOR_ADD).with_context(|| format!("{way}, {}", variant.name()))?;
        }
    }
    Ok(None)
}

/// A program that has closed its standard streams: their descriptors are not taken for anything else, and nothing is printed into it.
pub fn closed_streams(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    for variant in Variant::ALL {
        let program = rig.program("vector_add", variant)?;
        let mut command = daemon.command(Path::new("sh"));
        command.args(["-c", "exec \"$0\" <&- 2>&-"]).arg(&program).env("CUDA_SHIM_LOG", "trace");
        expect_output(&finish(&mut command)?, 0, VECTOR_ADD).context(variant.name())?;
    }
    let log = daemon.log();
    ensure!(log.is_empty(), "the daemon complains:\n{log}");
    Ok(None)
}

pub fn no_daemon(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let program = rig.program("shim_probe", Variant::Static)?;
    let expected = "cuInit: CUDA_ERROR_NO_DEVICE\ncuInit again: CUDA_ERROR_NO_DEVICE\ncuDeviceGetCount: CUDA_ERROR_NOT_INITIALIZED, -1\n";
    let nowhere = "unix:/nonexistent/host.sock";
    for (address, says) in [
        (
            nowhere,
            "error\\] cuInit: no host at unix:/nonexistent/host.sock: cannot connect.*: No such file or directory .*; is host-vmm serve running there\\?$",
        ),
        ("nonsense", "error\\] cuInit: CUDA_SHIM_CONNECT: .*nonsense"),
    ] {
        let mut command = daemon.command(&program);
        command.arg("devices").env("CUDA_SHIM_CONNECT", address);
        let finished = finish(&mut command)?;
        expect_output(&finished, 0, expected)?;
        ensure!(stderr(&finished).is_empty(), "not silent:\n{}", stderr(&finished));
        expect_match(&stderr(&finish(command.env("CUDA_SHIM_LOG", "error"))?), says)?;
    }
    // The runtime's name for it.
    let mut command = daemon.command(&rig.program("vector_add", Variant::Static)?);
    let finished = finish(command.env("CUDA_SHIM_CONNECT", nowhere))?;
    expect_match(&stderr(&finished), "cudaErrorNoDevice|no CUDA-capable device")?;
    Ok(None)
}

/// As NVIDIA's driver has it: a list ends at its first entry that is no device, and an empty one is an error of cuInit.
pub fn visible_devices(rig: &Rig) -> Tested {
    let none = "cuInit: CUDA_ERROR_NO_DEVICE\ncuInit again: CUDA_ERROR_NO_DEVICE\ncuDeviceGetCount: CUDA_ERROR_NOT_INITIALIZED, -1\n";
    let some = |count: u32| {
        format!("cuInit: CUDA_SUCCESS\ncuInit again: CUDA_SUCCESS\ncuDeviceGetCount: CUDA_SUCCESS, {count}\n")
    };
    let twice = none.replace("NO_DEVICE", "INVALID_DEVICE");
    for (list, devices, expected) in [
        ("", "1", none),
        ("0", "1", &some(1)),
        ("7", "1", none),
        ("-1", "1", none),
        ("7,0", "1", none),
        ("0,7", "1", &some(1)),
        ("0,0", "1", &twice),
        ("1,0", "2", &some(2)),
    ] {
        for warm in ["0", "1"] {
            let scratch = Scratch::new()?;
            let options = ["--devices", devices, "--warm-workers", warm];
            let mut command = rig.run(&scratch, &options, &rig.program("shim_probe", Variant::Static)?);
            let finished = finish(command.arg("devices").env("CUDA_VISIBLE_DEVICES", list))?;
            expect_output(&finished, 0, expected)
                .with_context(|| format!("list '{list}' of {devices} devices, {warm} warm workers"))?;
            scratch.expect_clean(Duration::from_secs(2))?;
        }
    }
    Ok(None)
}

pub fn settings(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    for (name, value) in [("CUDA_LAUNCH_BLOCKING", "1"), ("CUDA_MODULE_LOADING", "EAGER")] {
        for program in ["vector_add", "launch_api", "rdc", "host_threads"] {
            for variant in Variant::ALL {
                let mut command = rig.run(&scratch, &[], &rig.program(program, variant)?);
                let finished = finish(command.env(name, value))?;
                ensure!(
                    finished.status.is_some_and(|status| status.success())
                        && stdout(&finished).ends_with("PASS\n"),
                    "{name}={value} {program}, {}:\n{}{}",
                    variant.name(),
                    stdout(&finished),
                    stderr(&finished)
                );
            }
        }
    }
    // A launch that waits for its kernel tells of its fault.
    let mut command = rig.run(&scratch, &[], &rig.program("driver_errors", Variant::Static)?);
    command.arg("null").env("HOST_VMM_LOG", "off");
    expect_match(&stdout(&finish(&mut command)?), "^CUDA_SUCCESS, CUDA_ERROR_ILLEGAL_ADDRESS, ")?;
    let finished = finish(command.env("CUDA_LAUNCH_BLOCKING", "1"))?;
    expect_match(&stdout(&finished), "^CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS, ")?;
    Ok(None)
}

/// Long copies of pageable memory by several threads, and by the program's alone: the samples check the bytes.
pub fn copy_threads(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    for threads in [1, 3, 4] {
        for program in ["vector_add", "bulk_copies"] {
            let mut command = rig.run(&scratch, &[], &rig.program(program, Variant::Static)?);
            command.env("CUDA_SHIM_COPY_THREADS", threads.to_string()).env("CUDA_SHIM_LOG", "debug");
            let finished = finish(&mut command)?;
            let (out, log) = (stdout(&finished), stderr(&finished));
            ensure!(
                finished.status.is_some_and(|status| status.success()) && out.ends_with("PASS\n"),
                "{program} with {threads} threads:\n{out}{log}"
            );
            ensure!(
                log.contains(" threads") == (threads > 1),
                "{program}: CUDA_SHIM_COPY_THREADS={threads}, and the log says\n{log}"
            );
        }
    }
    Ok(None)
}
