//! The rule of cuGetProcAddress: base name and CUDA version to exported symbol.

use crate::generated::proc_table::NAMES;

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`
const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// All flags: `CU_GET_PROC_ADDRESS_LEGACY_STREAM` and the one above.
pub const FLAGS: u64 = 3;

/// A base name.
#[derive(Debug)]
pub struct Name {
    pub name: &'static str,
    /// Its ABI names, ascending by version.
    pub versions: &'static [Version],
}

/// One ABI name.
#[derive(Debug)]
pub struct Version {
    /// CUDA version that introduced it.
    pub since: u32,
    /// The exported symbol.
    pub symbol: &'static str,
    /// Its twin for programs with a default stream per thread.
    pub per_thread: Option<&'static str>,
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The exported symbol.
    Symbol(&'static str),
    /// No such base name.
    NoSymbol,
    /// The name is newer than the version asked for.
    VersionNotSufficient,
}

/// The symbol for a request: the newest ABI name that is not newer than `version` (1000 * major + 10 * minor).
///
/// With `flags` bit 1 the per-thread twin where there is one, whatever its own version: the program asks for its semantics.
pub fn resolve(name: &[u8], version: i32, flags: u64) -> Found {
    let Ok(index) = NAMES.binary_search_by(|entry| entry.name.as_bytes().cmp(name)) else {
        return Found::NoSymbol;
    };
    let version = u32::try_from(version).unwrap_or(0);
    let Some(found) = NAMES[index].versions.iter().rev().find(|known| known.since <= version) else {
        return Found::VersionNotSufficient;
    };
    match found.per_thread {
        Some(twin) if flags & PER_THREAD_DEFAULT_STREAM != 0 => Found::Symbol(twin),
        _ => Found::Symbol(found.symbol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols;

    /// Every request that the runtimes 11.8 to 13.5 make, with the symbol that it must get. Three names are in no public header
    /// (`?`): they are not found, which those runtimes take.
    #[test]
    fn every_request_of_the_runtimes_is_resolved() {
        let requests = include_str!("../../crates/driver-api/tests/data/gpa_requests.tsv");
        let mut count = 0;
        for line in requests.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, version, flags, expected] = fields[..] else { panic!("{line}") };
            let found = resolve(name.as_bytes(), version.parse().unwrap(), flags.parse().unwrap());
            match expected {
                "?" => assert_eq!(found, Found::NoSymbol, "{line}"),
                _ => {
                    assert!(
                        matches!(found, Found::Symbol(symbol) if symbol == expected),
                        "{line}: {found:?}"
                    );
                    assert!(symbols::address(expected).is_some(), "{expected} is not exported");
                }
            }
            count += 1;
        }
        assert_eq!(count, 503);
    }

    #[test]
    fn every_symbol_of_the_table_has_an_address() {
        for version in NAMES.iter().flat_map(|name| name.versions) {
            for symbol in [Some(version.symbol), version.per_thread].into_iter().flatten() {
                assert!(symbols::address(symbol).is_some(), "{symbol}");
            }
        }
    }

    #[test]
    fn misses_say_why() {
        assert_eq!(resolve(b"", 0, 0), Found::NoSymbol);
        assert_eq!(resolve(b"cuNoSuchCall", 13000, 0), Found::NoSymbol);
        assert_eq!(resolve(b"cuMemAlloc_v2", 13000, 0), Found::NoSymbol);
        assert_eq!(resolve(b"cuLaunchKernel", 3999, 0), Found::VersionNotSufficient);
        assert_eq!(resolve(b"cuLaunchKernel", -1, 0), Found::VersionNotSufficient);
        assert_eq!(resolve(b"cuGetProcAddress", 11030, 0), Found::Symbol("cuGetProcAddress"));
        assert_eq!(resolve(b"cuGetProcAddress", 11999, 0), Found::Symbol("cuGetProcAddress"));
        assert_eq!(resolve(b"cuGetProcAddress", 12000, 0), Found::Symbol("cuGetProcAddress_v2"));
        assert_eq!(resolve(b"cuMemcpyHtoD", 13000, 1), Found::Symbol("cuMemcpyHtoD_v2"));
        assert_eq!(resolve(b"cuMemcpyHtoD", 13000, 2), Found::Symbol("cuMemcpyHtoD_v2_ptds"));
    }
}
