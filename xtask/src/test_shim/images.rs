//! Device code that cannot be loaded: the right error, a log that says what and where, and everything goes on.

use std::fs;

use anyhow::{Context as _, ensure};

use super::Tested;
use super::rig::{Daemon, Rig, Scratch, expect_match, expect_output, finish, stderr, stdout};
use crate::nvcc::Variant;
use crate::{expect, workspace};

/// All cases of the sample, also those that NVIDIA's driver does not survive, at one daemon; which then still works.
pub fn damaged(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let expected = fs::read_to_string(workspace::root().join("samples/bad_images/all.txt"))?;
    for variant in Variant::ALL {
        let program = rig.program("bad_images", variant)?;
        let finished = finish(daemon.command(&program).arg("all"))?;
        let difference = expect::compare(&expected, &stdout(&finished))?;
        ensure!(
            difference.is_none(),
            "{}:\n{}{}",
            variant.name(),
            difference.unwrap_or_default(),
            stderr(&finished)
        );
        let finished = finish(daemon.command(&rig.program("shim_probe", variant)?).arg("work"))?;
        expect_output(&finished, 0, "PASS\n").context("after the bad images")?;
    }
    Ok(None)
}

pub fn damaged_file(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    let path = scratch.file("damaged.fatbin");
    let good = fs::read(rig.program("bad_images", Variant::Static)?.with_extension("fatbin"))?;
    // A container's header is 16 bytes; at 20 its first entry says how long that entry's header is.
    let mut lying = good.clone();
    lying[20..24].copy_from_slice(&3u32.to_le_bytes());
    for (bytes, says) in [
        (
            &good[..good.len() / 2],
            r"container at offset 0x0: truncated: needs [0-9]+ bytes, [0-9]+ are there",
        ),
        (&good[..5], r"container header at offset 0x0: truncated: needs 16 bytes, 5 are there"),
        (&lying[..], r"entry header size at offset 0x14: value 0x3 "),
        (&b"MZ\x90"[..], "neither a fat binary, an ELF file nor PTX text"),
        (&b""[..], "neither a fat binary, an ELF file nor PTX text"),
    ] {
        fs::write(&path, bytes)?;
        let mut command = rig.run(&scratch, &[], &rig.program("shim_probe", Variant::Static)?);
        let finished = finish(command.arg("load-file").arg(&path).env("CUDA_SHIM_LOG", "warn"))?;
        expect_output(&finished, 0, "CUDA_ERROR_INVALID_IMAGE\n")?;
        expect_match(&stderr(&finished), &format!(r"^\[cuda-shim [0-9:]+ warn\] .*{says}"))?;
    }
    Ok(None)
}

pub fn machine_code_only(rig: &Rig) -> Tested {
    for variant in Variant::ALL {
        let scratch = Scratch::new()?;
        let mut command = rig.run(&scratch, &[], &rig.program("sass_only", variant)?);
        let finished = finish(command.env("CUDA_SHIM_LOG", "warn"))?;
        expect_output(&finished, 0, "cudaSuccess\n209 cudaErrorNoKernelImageForDevice\ncudaSuccess\n")?;
        expect_match(
            &stderr(&finished),
            "entry 0: sm_90 machine code, but the device is the CPU backend: only PTX runs",
        )?;
    }
    Ok(None)
}

/// A kernel that runs beside one that has an instruction which the CPU backend does not know.
const UNSUPPORTED: &str = "\
.version 7.0
.target sm_75
.address_size 64
.visible .entry fine() { ret; }
.global .texref image;
.visible .entry sample(.param .u64 out)
{
    .reg .b64 %rd<2>;
    .reg .f32 %f<5>;
    ld.param.u64 %rd1, [out];
    mov.f32 %f1, 0f00000000;
    tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [image, {%f1, %f1}];
    st.global.f32 [%rd1], %f1;
    ret;
}
";

pub fn unsupported(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let scratch = Scratch::new()?;
    let path = scratch.file("unsupported.ptx");
    let program = rig.program("shim_probe", Variant::Static)?;
    for (text, says) in [
        (
            UNSUPPORTED.to_owned(),
            r"unsupported PTX instruction `tex\.2d\.v4\.f32\.f32` \(kernel sample, line 12\)",
        ),
        (
            UNSUPPORTED.replace("mov.f32 %f1, 0f00000000", "frobnicate.f32 %f1, 0f00000000"),
            r"`frobnicate\.f32` \(kernel sample, line 11\)",
        ),
        (UNSUPPORTED.replace("ret;\n}", "ret\n}"), "line 15; error   : "),
    ] {
        fs::write(&path, text)?;
        let finished = finish(daemon.command(&program).arg("load").arg(&path).env("CUDA_SHIM_LOG", "warn"))?;
        // The program's own log buffer, the library's log, the daemon's log.
        expect_match(&stdout(&finished), "^CUDA_ERROR_INVALID_PTX$")?;
        expect_match(&stdout(&finished), says)?;
        expect_match(&stderr(&finished), says)?;
        super::rig::eventually(super::rig::LIMIT, "the daemon's log", || {
            expect_match(&daemon.log(), says).is_ok()
        })?;
    }
    Ok(None)
}
