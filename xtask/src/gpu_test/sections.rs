//! The output of programs that run named checks (samples/libraries/sections.py says how it looks), native against shim.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use crate::test::Outcome;

/// Differing lines that are shown of a section.
const SHOWN: usize = 20;

/// How far two numbers may be apart: `absolute + relative * |native|`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tolerance {
    relative: f64,
    absolute: f64,
}

/// How a section ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Ok(Duration),
    Skipped(String),
    Failed(String),
}

/// What one check printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub name: String,
    lines: Vec<(String, Tolerance)>,
    end: End,
}

/// How strictly the legs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A check that fails natively says nothing about the shim.
    Results,
    /// Whatever happens natively is what has to happen, as far as the native program came.
    Transcript,
}

/// The sections of a program's output, in their order.
pub fn parse(output: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut tolerance = Tolerance::default();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let end = End::Failed("did not come to its end".to_owned());
            sections.push(Section { name: name.trim().to_owned(), lines: Vec::new(), end });
        } else if let Some(stated) = line.strip_prefix("# ") {
            tolerance = parse_tolerance(stated).unwrap_or(tolerance);
        } else if let Some(section) = sections.last_mut() {
            match line.strip_prefix("-- ") {
                Some(end) => section.end = parse_end(end),
                None => section.lines.push((line.trim_end().to_owned(), tolerance)),
            }
        }
    }
    sections
}

fn parse_tolerance(text: &str) -> Option<Tolerance> {
    let mut tolerance = Tolerance::default();
    for (name, value) in
        text.split_whitespace().map(|part| part.split_once('=')).collect::<Option<Vec<_>>>()?
    {
        match name {
            "rtol" => tolerance.relative = value.parse().ok()?,
            "atol" => tolerance.absolute = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(tolerance)
}

/// A later end replaces an earlier one: the checks themselves went well, but not the end of their process.
fn parse_end(text: &str) -> End {
    if let Some(reason) = text.strip_prefix("skipped:") {
        return End::Skipped(reason.trim().to_owned());
    }
    if let Some(reason) = text.strip_prefix("failed:") {
        return End::Failed(reason.trim().to_owned());
    }
    match text.strip_prefix("ok") {
        Some(time) => {
            let seconds = time.trim().trim_end_matches(" s").parse::<f64>().unwrap_or(0.0);
            End::Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        }
        None => End::Failed(text.to_owned()),
    }
}

/// The cells of one section: native, then shim. Without a native leg there is the cell of the shim alone.
pub fn judge(native: Option<&Section>, shim: Option<&Section>, has_native: bool, rule: Rule) -> Vec<Outcome> {
    let Some(native) = native.filter(|_| has_native) else {
        let alone = match shim.map(|shim| &shim.end) {
            _ if has_native => Outcome::Skip("did not run natively".to_owned()),
            Some(End::Ok(time)) => Outcome::Pass(*time),
            Some(End::Skipped(reason)) => Outcome::Skip(reason.clone()),
            Some(End::Failed(reason)) => Outcome::Fail(format!("{reason}\n")),
            None => Outcome::Fail("did not run\n".to_owned()),
        };
        return if has_native { vec![alone.clone(), alone] } else { vec![alone] };
    };
    let (cell, time) = match &native.end {
        End::Ok(time) => (Outcome::Pass(*time), *time),
        End::Skipped(reason) => return vec![Outcome::Skip(reason.clone()), Outcome::Skip(reason.clone())],
        End::Failed(reason) if rule == Rule::Results => {
            return vec![Outcome::Skip(reason.clone()), Outcome::Skip("fails natively".to_owned())];
        }
        End::Failed(reason) => (Outcome::Skip(format!("ends early: {reason}")), Duration::ZERO),
    };
    let Some(shim) = shim else { return vec![cell, Outcome::Fail("did not run\n".to_owned())] };
    let early = matches!(native.end, End::Failed(_));
    let mut complaint = String::new();
    if let End::Failed(reason) | End::Skipped(reason) = &shim.end
        && !early
    {
        let _ = writeln!(complaint, "{reason}");
    }
    complaint.push_str(&differences(native, shim, early));
    let time = if let End::Ok(time) = shim.end { time } else { time };
    vec![cell, if complaint.is_empty() { Outcome::Pass(time) } else { Outcome::Fail(complaint) }]
}

/// Lines that differ; `early`: the native program was cut off, and only what it printed counts.
fn differences(native: &Section, shim: &Section, early: bool) -> String {
    let mut text = String::new();
    let mut count = 0;
    let length = if early { native.lines.len() } else { native.lines.len().max(shim.lines.len()) };
    for index in 0..length {
        let (one, other) = (native.lines.get(index), shim.lines.get(index));
        if let (Some((one, tolerance)), Some((other, _))) = (one, other)
            && same_line(one, other, *tolerance)
        {
            continue;
        }
        count += 1;
        if count <= SHOWN {
            let line = |line: Option<&(String, Tolerance)>| {
                line.map_or("(no such line)".to_owned(), |(line, _)| line.clone())
            };
            let _ = writeln!(text, "native: {}\nshim:   {}", line(one), line(other));
        }
    }
    if count > SHOWN {
        let _ = writeln!(text, "and {} more lines", count - SHOWN);
    }
    text
}

/// Whether two lines say the same: text and whole numbers exactly, other numbers within the tolerance.
fn same_line(native: &str, shim: &str, tolerance: Tolerance) -> bool {
    static NUMBER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?").ok());
    if native == shim {
        return true;
    }
    let Some(number) = NUMBER.as_ref() else { return false };
    if number.replace_all(native, "#") != number.replace_all(shim, "#") {
        return false;
    }
    number.find_iter(native).zip(number.find_iter(shim)).all(|(one, other)| {
        let (one, other) = (one.as_str(), other.as_str());
        if one == other {
            return true;
        }
        let whole = |text: &str| !text.contains(['.', 'e', 'E']);
        let (Ok(a), Ok(b)) = (one.parse::<f64>(), other.parse::<f64>()) else { return false };
        // One of them may happen to be printed without a point.
        !(whole(one) && whole(other)) && (a - b).abs() <= tolerance.absolute + tolerance.relative * a.abs()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str = "# rtol=1e-3 atol=1e-6\n\
        == one\nloss 1: 2.5\ncount: 7\n-- ok 0.50 s\n\
        == two\nx: 1\n-- failed: no such thing\n\
        == three\n-- skipped: no library\n\
        == four\nx: 1\n-- ok 1 s\n-- failed: SIGSEGV\n";

    fn shim(text: &str, rule: Rule) -> Vec<Outcome> {
        judge(parse(NATIVE).first(), parse(text).first(), true, rule)
    }

    #[test]
    fn sections_are_found() {
        let sections = parse(NATIVE);
        assert_eq!(
            sections.iter().map(|section| section.name.as_str()).collect::<Vec<_>>(),
            ["one", "two", "three", "four"]
        );
        assert_eq!(sections[0].end, End::Ok(Duration::from_millis(500)));
        assert_eq!(sections[0].lines.len(), 2);
        assert_eq!(sections[2].end, End::Skipped("no library".to_owned()));
        assert_eq!(sections[3].end, End::Failed("SIGSEGV".to_owned()), "a late end counts");
        assert!(matches!(parse("== cut\nx\n")[0].end, End::Failed(_)));
    }

    #[test]
    fn tolerances_hold_for_numbers_with_a_point() {
        let tolerance = Tolerance { relative: 1e-3, absolute: 0.0 };
        assert!(same_line("loss 1: 2.5", "loss 1: 2.501", tolerance));
        assert!(same_line("x: 2", "x: 2.0001", tolerance));
        assert!(same_line("x: -1e-3", "x: -1.0001e-3", tolerance));
        assert!(!same_line("loss 1: 2.5", "loss 1: 2.51", tolerance));
        assert!(!same_line("loss 1: 2.5", "loss 2: 2.5", tolerance));
        assert!(!same_line("count: 10000", "count: 10001", tolerance));
        assert!(!same_line("x: 1.0", "x: nan", tolerance));
        assert!(!same_line("x: 1.0 a", "x: 1.0 b", tolerance));
        assert!(!same_line("x: 1.0", "x: 1.0 2.0", tolerance));
    }

    #[test]
    fn the_shim_has_to_do_what_was_done_natively() {
        let good = "# rtol=1e-3 atol=1e-6\n== one\nloss 1: 2.501\ncount: 7\n-- ok 1 s\n";
        assert!(matches!(shim(good, Rule::Results)[..], [Outcome::Pass(_), Outcome::Pass(_)]));
        for bad in [
            "== one\nloss 1: 2.6\ncount: 7\n-- ok 1 s\n",
            "== one\nloss 1: 2.5\n-- ok 1 s\n",
            "== one\nloss 1: 2.5\ncount: 7\nmore\n-- ok 1 s\n",
            "== one\nloss 1: 2.5\ncount: 7\n-- failed: why\n",
            "== one\nloss 1: 2.5\ncount: 7\n",
            "",
        ] {
            assert!(matches!(shim(bad, Rule::Results)[..], [Outcome::Pass(_), Outcome::Fail(_)]), "{bad}");
        }
    }

    #[test]
    fn a_native_failure_is_a_skip_or_the_model() {
        let native = parse(NATIVE);
        let same = parse("== two\nx: 1\ny: 2\n-- ok 1 s\n");
        let other = parse("== two\nx: 2\n-- failed: no such thing\n");
        let cells = judge(native.get(1), same.first(), true, Rule::Results);
        assert!(matches!(&cells[..], [Outcome::Skip(_), Outcome::Skip(why)] if why == "fails natively"));
        let cells = judge(native.get(1), same.first(), true, Rule::Transcript);
        assert!(matches!(cells[..], [Outcome::Skip(_), Outcome::Pass(_)]));
        let cells = judge(native.get(1), other.first(), true, Rule::Transcript);
        assert!(matches!(cells[..], [Outcome::Skip(_), Outcome::Fail(_)]));
        assert!(matches!(judge(None, native.first(), false, Rule::Results)[..], [Outcome::Pass(_)]));
    }
}
