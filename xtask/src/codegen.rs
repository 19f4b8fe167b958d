//! `cargo xtask codegen`: writes everything that follows from the table of driver calls.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use driver_api::{Output, Sources, Table, outputs};

use crate::workspace;

/// Lines shown of each side of a difference.
const SHOWN_LINES: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// Write nothing: show what would change and fail if anything would
    #[arg(long)]
    check: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let stale = generate(&workspace::root(), args.check)?;
    if args.check && !stale.is_empty() {
        for (path, difference) in &stale {
            print!("{path}:{difference}");
        }
        eprintln!("{} generated files are not up to date: run `cargo xtask codegen`", stale.len());
        return Ok(ExitCode::FAILURE);
    }
    for (path, _) in stale {
        println!("wrote {path}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes all files from the table and writes those that differ from what is there, unless `check`; returns their paths with
/// what differs.
fn generate(root: &Path, check: bool) -> Result<Vec<(String, String)>> {
    let sources = Sources::read(&root.join("crates/driver-api"))?;
    let table = match Table::new(&sources) {
        Ok(table) => table,
        Err(error) => {
            eprintln!("{error}");
            bail!("the table of driver calls (crates/driver-api) has mistakes");
        }
    };
    let mut stale = Vec::new();
    for output in outputs(&table) {
        let text = format(root, &output)?;
        let path = root.join(&output.path);
        let old = fs::read_to_string(&path).unwrap_or_default();
        if old == text {
            continue;
        }
        if !check {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
            }
            fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        stale.push((output.path, difference(&old, &text)));
    }
    Ok(stale)
}

/// Runs rustfmt with the workspace's settings over a Rust file; other files stay as they are.
fn format(root: &Path, output: &Output) -> Result<String> {
    if !output.path.ends_with(".rs") {
        return Ok(output.text.clone());
    }
    let mut child = Command::new("rustfmt")
        .arg("--edition=2024")
        .arg("--config-path")
        .arg(root.join("rustfmt.toml"))
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run rustfmt (a component of the toolchain in rust-toolchain.toml)")?;
    let mut stdin = child.stdin.take().context("rustfmt has no stdin")?;
    let text = output.text.clone();
    // A thread of its own: rustfmt may fill its output pipe before it has read all of its input.
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let result = child.wait_with_output().context("rustfmt did not finish")?;
    if !result.status.success() {
        bail!("rustfmt refuses {}:\n{}", output.path, String::from_utf8_lossy(&result.stderr));
    }
    match writer.join() {
        Ok(written) => written.context("rustfmt did not read its input")?,
        Err(_) => bail!("the thread that feeds rustfmt failed"),
    }
    String::from_utf8(result.stdout).context("rustfmt printed no UTF-8")
}

/// The number of the first line that differs, and the lines between the common start and the common end of two texts.
fn difference(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = format!("{}\n", start + 1);
    for (sign, lines) in [('-', &old[start..old.len() - end]), ('+', &new[start..new.len() - end])] {
        for line in lines.iter().take(SHOWN_LINES) {
            text.push_str(&format!("{sign} {line}\n"));
        }
        if lines.len() > SHOWN_LINES {
            text.push_str(&format!("{sign} ... {} more lines\n", lines.len() - SHOWN_LINES));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changed() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n"), "2\n- b\n+ x\n+ y\n");
        assert_eq!(difference("", "a\n"), "1\n+ a\n");
        assert_eq!(difference("a\na\n", "a\n"), "2\n- a\n");
    }

    #[test]
    fn generated_files_are_up_to_date() {
        let stale = generate(&workspace::root(), true).expect("the table is correct");
        assert!(stale.is_empty(), "run `cargo xtask codegen`: {stale:#?}");
    }
}
