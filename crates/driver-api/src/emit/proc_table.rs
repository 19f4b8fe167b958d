//! The table of cuGetProcAddress.

use super::HEADER;
use crate::check::Table;

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! Versions of each name, for cuGetProcAddress.

use crate::proc_address::{{Name, Version}};

/// Sorted by name; versions ascending.
pub static NAMES: &[Name] = &[
"
    );
    for (base, versions) in table.versions() {
        text.push_str(&format!("Name {{ name: \"{base}\", versions: &[\n"));
        for version in versions {
            text.push_str(&format!(
                "Version {{ since: {}, symbol: \"{}\", per_thread: {:?} }},\n",
                version.since, version.symbol, version.per_thread
            ));
        }
        text.push_str("] },\n");
    }
    text.push_str("];\n");
    text
}
