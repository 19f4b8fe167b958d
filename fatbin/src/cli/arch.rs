//! Architectures, devices and CUDA versions as people write them.

use std::str::FromStr;

use anyhow::{Context, bail};
use fatbin::{Arch, CodeVersion, Device, Variant};

/// `sm_90a`, `compute_90a` or `90a`.
pub fn parse_arch(text: &str) -> anyhow::Result<Arch> {
    let rest = text.strip_prefix("sm_").or_else(|| text.strip_prefix("compute_")).unwrap_or(text);
    let (digits, variant) = if let Some(digits) = rest.strip_suffix('a') {
        (digits, Variant::Specific)
    } else if let Some(digits) = rest.strip_suffix('f') {
        (digits, Variant::Family)
    } else {
        (rest, Variant::Generic)
    };
    match digits.parse() {
        Ok(sm) if (10..1000).contains(&sm) => Ok(Arch { sm, variant }),
        _ => bail!("`{text}` is no architecture; write for example sm_86 or sm_90a"),
    }
}

/// A device by its compute capability: `sm_86`, `86` or `8.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    pub major: u32,
    pub minor: u32,
}

impl Capability {
    /// The device with a driver that compiles PTX up to `max_ptx_version`.
    pub fn device(self, max_ptx_version: CodeVersion) -> Device {
        // Groups came with this PTX version; the driver for 9.0 does not know them.
        let groups = max_ptx_version >= CodeVersion { major: 9, minor: 5 };
        Device { cc_major: self.major, cc_minor: self.minor, sass: true, max_ptx_version, groups }
    }
}

impl FromStr for Capability {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some((major, minor)) = text.split_once('.') {
            let number =
                |part: &str| part.parse().with_context(|| format!("`{text}` is no compute capability"));
            return Ok(Self { major: number(major)?, minor: number(minor)? });
        }
        // The suffix says nothing of a device: every sm_90 runs sm_90a.
        let Arch { sm, .. } = parse_arch(text)?;
        Ok(Self { major: sm / 10, minor: sm % 10 })
    }
}

/// A CUDA version that a driver supports, as `nvidia-smi` prints it, with the newest PTX version that it compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaVersion(pub CodeVersion);

/// CUDA version and PTX ISA version up to 12.9, from the release notes of the PTX manual; 13.x has PTX 9.x.
const PTX_VERSIONS: [((u16, u16), (u16, u16)); 20] = [
    ((11, 0), (7, 0)),
    ((11, 1), (7, 1)),
    ((11, 2), (7, 2)),
    ((11, 3), (7, 3)),
    ((11, 4), (7, 4)),
    ((11, 5), (7, 5)),
    ((11, 6), (7, 6)),
    ((11, 7), (7, 7)),
    ((11, 8), (7, 8)),
    ((12, 0), (8, 0)),
    ((12, 1), (8, 1)),
    ((12, 2), (8, 2)),
    ((12, 3), (8, 3)),
    ((12, 4), (8, 4)),
    ((12, 5), (8, 5)),
    ((12, 6), (8, 5)),
    ((12, 7), (8, 6)),
    ((12, 8), (8, 7)),
    ((12, 9), (8, 8)),
    ((13, 0), (9, 0)),
];

/// Newer than any PTX: nothing is refused for its version.
pub const ANY_PTX: CodeVersion = CodeVersion { major: u16::MAX, minor: u16::MAX };

impl FromStr for CudaVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let parsed = major.parse::<u16>().ok().zip(minor.parse::<u16>().ok());
        let Some(version) = parsed else { bail!("`{text}` is no CUDA version; write for example 12.8") };
        let known = PTX_VERSIONS.iter().find(|(cuda, _)| *cuda == version).map(|(_, ptx)| *ptx);
        let Some((major, minor)) = known.or((version.0 == 13).then_some((9, version.1))) else {
            bail!("CUDA {text} is not known here; give the PTX version with --ptx-version");
        };
        Ok(Self(CodeVersion { major, minor }))
    }
}

/// A PTX version: `9.0`.
pub fn parse_code_version(text: &str) -> anyhow::Result<CodeVersion> {
    let parts = text.split_once('.').and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
    let (major, minor) =
        parts.with_context(|| format!("`{text}` is no PTX version; write for example 8.7"))?;
    Ok(CodeVersion { major, minor })
}

/// The device that images are chosen for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct DriverArgs {
    /// CUDA version of the driver, as nvidia-smi prints it: PTX newer than that does not run. Default: newer than all.
    #[arg(long, value_name = "VERSION")]
    driver: Option<CudaVersion>,
    /// Newest PTX version that the driver compiles, instead of --driver.
    #[arg(long, value_name = "VERSION", value_parser = parse_code_version, conflicts_with = "driver")]
    ptx_version: Option<CodeVersion>,
}

impl DriverArgs {
    pub fn max_ptx_version(&self) -> CodeVersion {
        self.ptx_version.or(self.driver.map(|d| d.0)).unwrap_or(ANY_PTX)
    }
}
