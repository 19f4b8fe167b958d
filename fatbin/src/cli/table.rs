//! Tables for people.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::report::{ContainerReport, FileReport, KernelReport};

/// Writes all that is known of a file.
pub fn write(out: &mut impl Write, report: &FileReport) -> io::Result<()> {
    if let Some(image) = &report.image {
        writeln!(out, "{}: {} for {}, {} bytes", report.file, image.kind, image.arch, image.size)?;
        return kernels(out, &image.kernels);
    }
    let images: usize = report.containers.iter().map(|c| c.entries.len()).sum();
    let containers = report.containers.len();
    writeln!(out, "{}: {}, {}", report.file, count(containers, "container"), count(images, "image"))?;
    for (number, found) in report.containers.iter().enumerate() {
        heading(out, number, found)?;
        entries(out, found)?;
        for entry in &found.entries {
            if let Some(list) = &entry.kernels {
                writeln!(out, "\nkernels of entry {} ({} {})", entry.index, entry.kind, entry.arch)?;
                kernels(out, list)?;
            }
        }
    }
    Ok(())
}

fn heading(out: &mut impl Write, number: usize, found: &ContainerReport) -> io::Result<()> {
    write!(out, "\ncontainer {number} at {:#x}, {} bytes", found.offset, found.size)?;
    if let Some(section) = found.section {
        write!(out, ", in {section}")?;
    }
    if let Some(member) = &found.member {
        write!(out, ", of member {}", printable(member))?;
    }
    for version in &found.wrappers {
        write!(out, ", wrapper version {version}")?;
    }
    if found.truncated {
        write!(out, ", TRUNCATED")?;
    }
    writeln!(out)
}

fn entries(out: &mut impl Write, found: &ContainerReport) -> io::Result<()> {
    let mut table =
        new_table(&["#", "kind", "arch", "version", "codec", "stored", "size", "flags", "name", "options"]);
    align_right(&mut table, &[0, 5, 6]);
    for entry in &found.entries {
        let codec = match entry.group_index {
            Some(index) => format!("{} (group, image {index})", entry.codec),
            None => entry.codec.to_owned(),
        };
        table.add_row([
            entry.index.to_string(),
            entry.kind.clone(),
            entry.arch.clone(),
            entry.version.clone(),
            codec,
            entry.stored_size.to_string(),
            entry.size.to_string(),
            entry.flags.clone(),
            printable(entry.name.as_deref().unwrap_or_default()),
            printable(entry.options.as_deref().unwrap_or_default()),
        ]);
    }
    writeln!(out, "{table}")
}

fn kernels(out: &mut impl Write, list: &[KernelReport]) -> io::Result<()> {
    let mut table =
        new_table(&["kernel", "params (offset:size)", "bytes", "registers", "shared", "max threads"]);
    align_right(&mut table, &[2, 3, 4]);
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    for kernel in list {
        let params = kernel.params.as_ref().map(|params| {
            params.iter().map(|p| format!("{}:{}", p.offset, p.size)).collect::<Vec<_>>().join(" ")
        });
        table.add_row([
            printable(&kernel.name),
            params.unwrap_or_else(|| "not known".to_owned()),
            number(kernel.param_size.map(u64::from)),
            number(kernel.registers.map(u64::from)),
            number(kernel.shared_size),
            kernel.max_threads.map_or_else(|| "-".to_owned(), |[x, y, z]| format!("{x} x {y} x {z}")),
        ]);
    }
    writeln!(out, "{table}")
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Text from a file, without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
