//! From registered images to a linked module: parsing, checks, linking, and the messages for what fails.

use protocol::Status;
use ptx::link::{LinkError, Unit};
use ptx::{Module, ParseError};
use ptx_cpu::program::LoadError;

use crate::config::ComputeCapability;
use crate::worker::registry::{ImageHash, Registry};

/// Most images of one load.
const MAX_IMAGES: u32 = 4096;
/// Newest PTX version whose grammar the parser knows.
const MAX_PTX_VERSION: (u16, u16) = (9, 9);

/// Most bytes of an error text that go to the host's log.
const MAX_LOGGED: usize = 2048;

/// The form of an image that is PTX text; others are machine code.
pub const FORM_PTX: u32 = 1;

/// Why images cannot be loaded: the CUresult and the text for the program's error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    pub status: Status,
    pub log: String,
}

impl LoadFailure {
    fn new(status: Status, log: impl Into<String>) -> Self {
        Self { status, log: log.into() }
    }

    /// The first lines of the text, for the host's own log: the program decides on its length.
    pub fn start(&self) -> &str {
        &self.log[..self.log.floor_char_boundary(MAX_LOGGED)]
    }
}

/// Parses and links images that the registry holds. `hashes` has 32 bytes and `forms` 4 bytes per image.
///
/// # Errors
/// The first image that cannot be taken, or all problems of the link.
pub fn link(
    registry: &Registry,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    capability: ComputeCapability,
) -> Result<Module, LoadFailure> {
    let (hashes, forms) = (hashes.unwrap_or_default(), forms.unwrap_or_default());
    if count == 0
        || count > MAX_IMAGES
        || hashes.len() != count as usize * 32
        || forms.len() != count as usize * 4
    {
        return Err(LoadFailure::new(Status::INVALID_VALUE, format!("{count} images to load")));
    }
    let mut units = Vec::with_capacity(count as usize);
    for (number, (hash, form)) in hashes.chunks_exact(32).zip(forms.chunks_exact(4)).enumerate() {
        let name = if count == 1 { "ptx input".to_owned() } else { format!("ptx input {}", number + 1) };
        let mut id: ImageHash = [0; 32];
        id.copy_from_slice(hash);
        let form = u32::from_le_bytes([form[0], form[1], form[2], form[3]]);
        if form != FORM_PTX {
            return Err(LoadFailure::new(
                Status::NO_BINARY_FOR_GPU,
                format!(
                    "{name}: machine code (a cubin) cannot run on the CPU backend; build with PTX (-gencode arch=...,code=compute_XX)"
                ),
            ));
        }
        let image = registry.get(&id);
        let image = image
            .ok_or_else(|| LoadFailure::new(Status::INVALID_IMAGE, format!("{name}: image was not sent")))?;
        let module = parse(&name, &image, capability)?;
        units.push(Unit { name, module });
    }
    ptx::link::link(units).map_err(|error| link_failure(&error))
}

fn parse(name: &str, image: &[u8], capability: ComputeCapability) -> Result<Module, LoadFailure> {
    let module = ptx::parse(image).map_err(|error: ParseError| {
        LoadFailure::new(
            Status::INVALID_PTX,
            format!("{name}, line {}; error   : {} (column {})", error.line, error.kind, error.column),
        )
    })?;
    if module.version > MAX_PTX_VERSION {
        let (major, minor) = module.version;
        return Err(LoadFailure::new(
            Status::UNSUPPORTED_PTX_VERSION,
            format!(
                "{name}; fatal   : Unsupported .version {major}.{minor}; current version is '{}.{}'",
                MAX_PTX_VERSION.0, MAX_PTX_VERSION.1
            ),
        ));
    }
    if module.target.sm > capability.sm() {
        return Err(LoadFailure::new(
            Status::INVALID_PTX,
            format!(
                "{name}; fatal   : Program with .target 'sm_{}' cannot be compiled to architecture 'sm_{}'; a higher --compute-capability of host-vmm may help",
                module.target.sm,
                capability.sm()
            ),
        ));
    }
    Ok(module)
}

fn link_failure(error: &LinkError) -> LoadFailure {
    let lines: Vec<String> = error.problems.iter().map(|problem| format!("error   : {problem}")).collect();
    LoadFailure::new(Status::INVALID_PTX, lines.join("\n"))
}

impl From<LoadError> for LoadFailure {
    fn from(error: LoadError) -> Self {
        let status = match &error {
            LoadError::Memory(_) => Status::OUT_OF_MEMORY,
            LoadError::NoKernel(_) => Status::NOT_FOUND,
            LoadError::Unsupported { .. }
            | LoadError::Variable { .. }
            | LoadError::AddressSize(_)
            | LoadError::Compile { .. } => Status::INVALID_PTX,
        };
        Self::new(status, format!("ptx input; error   : {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(images: &[&str]) -> (Registry, Vec<u8>) {
        let registry = Registry::new(1 << 20, 1 << 20);
        let hashes =
            images.iter().flat_map(|image| registry.insert(image.as_bytes().to_vec()).unwrap()).collect();
        (registry, hashes)
    }

    fn load(images: &[&str], forms: &[u32]) -> Result<Module, LoadFailure> {
        let (registry, hashes) = registry(images);
        let forms: Vec<u8> = forms.iter().flat_map(|form| form.to_le_bytes()).collect();
        link(&registry, images.len() as u32, Some(&hashes), Some(&forms), ComputeCapability::DEFAULT)
    }

    const GOOD: &str = ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry k() { ret; }\n";

    #[test]
    fn good_ptx_loads() {
        assert_eq!(load(&[GOOD], &[1]).unwrap().items.len(), 1);
    }

    #[test]
    fn each_kind_of_bad_image_has_its_code() {
        let status = |images: &[&str], forms: &[u32]| load(images, forms).unwrap_err().status;
        assert_eq!(status(&[GOOD], &[2]), Status::NO_BINARY_FOR_GPU);
        assert_eq!(status(&[".version 8.0\n.target sm_75\n nonsense"], &[1]), Status::INVALID_PTX);
        assert_eq!(status(&[&GOOD.replace("8.0", "42.0")], &[1]), Status::UNSUPPORTED_PTX_VERSION);
        assert_eq!(status(&[&GOOD.replace("sm_75", "sm_120")], &[1]), Status::INVALID_PTX);
        assert_eq!(status(&[GOOD, GOOD], &[1, 1]), Status::INVALID_PTX);
        let unsent =
            link(&Registry::new(1, 1), 1, Some(&[0; 32]), Some(&[1, 0, 0, 0]), ComputeCapability::DEFAULT);
        assert_eq!(unsent.unwrap_err().status, Status::INVALID_IMAGE);
        let lying =
            link(&Registry::new(1, 1), 9, Some(&[0; 32]), Some(&[1, 0, 0, 0]), ComputeCapability::DEFAULT);
        assert_eq!(lying.unwrap_err().status, Status::INVALID_VALUE);
    }

    #[test]
    fn messages_say_where() {
        let error = load(
            &[".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry k() {\n bra nowhere;\n}\n"],
            &[1],
        );
        let log = error.unwrap_err().log;
        assert!(log.contains("line 5") && log.contains("nowhere"), "{log}");
        let error = load(&[GOOD, GOOD], &[1, 1]).unwrap_err();
        assert!(error.log.contains("Multiple definition of 'k'"), "{}", error.log);
    }
}
