//! Fuzz bodies: they must return for any input. They check what the types promise beyond "no panic".

use crate::strip::strip_container;
use crate::{
    CodeVersion, Container, Cubin, Device, Entry, Fatbins, Managed, Purpose, elf_len, ptx, scan_file, select,
};

/// Small enough that a fuzzer does not spend its time decompressing.
const LIMIT: usize = 1 << 20;

/// Reads a container with all its entries, decodes them and selects among them.
pub fn fuzz_container(data: &[u8]) {
    let strict = Container::parse(data);
    let Ok(container) = Container::parse_truncated(data) else {
        assert!(strict.is_err());
        return;
    };
    assert_eq!(strict.is_err(), container.is_truncated());
    let entries: Vec<Entry<'_>> = container.entries().map_while(Result::ok).collect();
    check_entries(&entries);
    check_strip(&container, entries.len());
    let max_ptx_version = CodeVersion { major: 9, minor: 0 };
    for (cc_major, cc_minor, sass) in [(7, 5, true), (9, 0, false), (10, 0, true)] {
        let device = Device { cc_major, cc_minor, sass, max_ptx_version, groups: sass };
        for purpose in [Purpose::Load, Purpose::Link] {
            let selection = select(&entries, &device, purpose);
            let named = selection.rejected.len() + usize::from(selection.chosen.is_some());
            assert_eq!(named, entries.len(), "every entry is chosen or has a reason");
        }
    }
}

/// Every second image is left out: the result must hold the others as they were.
fn check_strip(container: &Container<'_>, count: usize) {
    let Ok(stripped) = strip_container(container, |index, _| index % 2 == 0) else { return };
    assert!(stripped.bytes.len() <= container.len());
    assert_eq!(stripped.kept + stripped.removed, count);
    let read = Container::parse(&stripped.bytes).and_then(|c| c.read_entries());
    assert_eq!(read.map(|entries| entries.len()), Ok(stripped.kept));
}

fn check_entries(entries: &[Entry<'_>]) {
    for entry in entries {
        let _ = (entry.name(), entry.options(), entry.arch().to_string(), entry.flags().to_string());
        if let Ok(image) = entry.data(LIMIT) {
            assert!(image.len() as u64 <= entry.image_size());
            assert!(image.len() <= LIMIT);
            fuzz_cubin(&image);
        }
    }
}

/// Reads a cubin.
pub fn fuzz_cubin(data: &[u8]) {
    if let Ok(len) = elf_len(data) {
        assert!(len <= data.len());
    }
    fuzz_managed(data);
    let Ok(cubin) = Cubin::parse(data) else { return };
    for kernel in &cubin.kernels {
        let end = kernel.params.last().map_or(0, |p| p.offset + p.size);
        assert!(end <= kernel.param_size);
    }
}

/// Places managed variables: the file keeps its length, and its values lie within.
fn fuzz_managed(data: &[u8]) {
    let Ok(managed) = Managed::parse(data) else { return };
    for value in managed.variables().iter().filter_map(|variable| variable.value.clone()) {
        assert!(value.start < value.end && value.end <= data.len());
    }
    let addresses: Vec<u64> = (1..=managed.variables().len() as u64).map(|number| number << 20).collect();
    if let Ok(placed) = managed.place(&addresses) {
        assert_eq!(placed.len(), data.len());
    }
}

/// Scans a file of any kind.
pub fn fuzz_elf(data: &[u8]) {
    let whole = Fatbins::parse(data);
    let Ok(parts) = scan_file(data) else { return };
    if let Ok(whole) = whole {
        let found: usize = parts.iter().map(|part| part.scan.containers.len()).sum();
        assert!(whole.image().is_some() || whole.containers().count() == found);
        for located in whole.containers() {
            assert!(located.offset() < data.len() as u64);
            let _ = located.wrappers().count();
        }
    }
    for part in parts {
        for found in &part.scan.containers {
            for entry in found.container.entries().map_while(Result::ok) {
                let _ = entry.data(LIMIT);
            }
        }
        for found in &part.scan.wrappers {
            assert!(found.container.is_none_or(|index| index < part.scan.containers.len()));
        }
    }
}

/// Scans PTX text.
pub fn fuzz_ptx_header(data: &[u8]) {
    let Ok(header) = ptx::scan(data) else { return };
    for entry in &header.entries {
        let mut end = 0;
        for param in entry.params.iter().flatten() {
            assert!(param.offset >= end && param.offset.is_multiple_of(param.align));
            end = param.offset + param.size;
        }
    }
}
