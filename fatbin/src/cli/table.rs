//! Tables for people.

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use super::output::printable;
use super::report::{ContainerReport, FileReport, KernelReport, SectionReport};
use super::why::Verdict;

/// Writes all that is known of a file.
pub fn write(out: &mut impl Write, report: &FileReport) -> io::Result<()> {
    if let Some(image) = &report.image {
        let arch = image.arch.as_deref().unwrap_or("any device");
        writeln!(out, "{}: {} for {arch}, {} bytes", printable(&report.file), image.kind, image.size)?;
        // Of other kinds the kernels are not known.
        if matches!(image.kind, "cubin" | "PTX") {
            kernels(out, &image.kernels)?;
        }
        return verdict(out, image.selection.as_ref());
    }
    let images: usize = report.containers.iter().map(|c| c.entries.len()).sum();
    let containers = report.containers.len();
    writeln!(
        out,
        "{}: {}, {}",
        printable(&report.file),
        count(containers, "container"),
        count(images, "image")
    )?;
    if let Some(list) = &report.sections {
        sections(out, list)?;
    }
    for found in &report.containers {
        heading(out, found.number, found)?;
        entries(out, found)?;
        verdict(out, found.selection.as_ref())?;
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
    for (version, section) in found.wrappers.iter().zip(&found.wrapper_sections) {
        write!(out, ", wrapper version {version}")?;
        if let Some(section) = section {
            write!(out, " in {section}")?;
        }
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
        let chosen = found.selection.as_ref().and_then(|s| s.chosen.as_ref());
        let chosen = chosen.is_some_and(|c| c.index == entry.index);
        let codec = match entry.group_index {
            Some(index) => format!("{} (group, image {index})", entry.codec),
            None => entry.codec.to_owned(),
        };
        let cells = [
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
        ];
        table.add_row(cells.map(|text| {
            if chosen {
                Cell::new(text).fg(Color::Green).add_attribute(Attribute::Bold)
            } else {
                Cell::new(text)
            }
        }));
    }
    writeln!(out, "{table}")
}

fn sections(out: &mut impl Write, list: &[SectionReport]) -> io::Result<()> {
    let mut table = new_table(&["section", "offset", "bytes", "member"]);
    align_right(&mut table, &[1, 2]);
    for section in list {
        table.add_row([
            section.name.to_owned(),
            format!("{:#x}", section.offset),
            section.size.to_string(),
            printable(section.member.as_deref().unwrap_or_default()),
        ]);
    }
    writeln!(out, "{table}")
}

fn verdict(out: &mut impl Write, verdict: Option<&Verdict>) -> io::Result<()> {
    let Some(verdict) = verdict else { return Ok(()) };
    match &verdict.chosen {
        Some(chosen) => writeln!(out, "loaded: entry {}, {} for {}", chosen.index, chosen.kind, chosen.arch)?,
        None => writeln!(out, "loaded: none")?,
    }
    for refusal in &verdict.rejected {
        writeln!(out, "  not entry {}: {}", refusal.index, refusal.reason)?;
    }
    Ok(())
}

fn kernels(out: &mut impl Write, list: &[KernelReport]) -> io::Result<()> {
    const COLUMNS: [&str; 9] = [
        "kernel",
        "params (offset:size)",
        "bytes",
        "registers",
        "shared",
        "local",
        "barriers",
        "max threads",
        "code",
    ];
    if list.is_empty() {
        return writeln!(out, "none");
    }
    let mut table = new_table(&COLUMNS);
    align_right(&mut table, &[2, 3, 4, 5, 6, 8]);
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    for kernel in list {
        let params = kernel.params.as_ref().map(|params| {
            params.iter().map(|p| format!("{}:{}", p.offset, p.size)).collect::<Vec<_>>().join(" ")
        });
        let threads = kernel.required_threads.or(kernel.max_threads);
        table.add_row([
            printable(&kernel.name),
            params.unwrap_or_else(|| "not known".to_owned()),
            number(kernel.param_size.map(u64::from)),
            number(kernel.registers.map(u64::from)),
            number(kernel.shared_size),
            if kernel.recursive { "unknown".to_owned() } else { number(kernel.local_size.map(u64::from)) },
            number(kernel.barriers.map(u64::from)),
            threads.map_or_else(|| "-".to_owned(), |[x, y, z]| format!("{x} x {y} x {z}")),
            number(kernel.code_size),
        ]);
    }
    writeln!(out, "{table}")
}

pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    // See no-color.org; that standard output is no terminal the table finds out itself.
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

pub fn align_right(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
