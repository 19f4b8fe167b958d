//! Compares a program's output with its `expected.txt`.
//!
//! Lines must be equal; `{{...}}` in an expected line stands for a regular expression.

use anyhow::{Context, Result};
use regex::Regex;

/// The first differences, as a readable diff, or `None` if the output is as expected.
///
/// # Errors
/// A `{{...}}` part that is not a regular expression.
pub fn compare(expected: &str, actual: &str) -> Result<Option<String>> {
    let expected: Vec<&str> = expected.lines().collect();
    let actual: Vec<&str> = actual.lines().collect();
    let mut diff = String::new();
    for line in 0..expected.len().max(actual.len()) {
        let (want, have) = (expected.get(line), actual.get(line));
        let same = match (want, have) {
            (Some(want), Some(have)) => matches(want, have)?,
            _ => false,
        };
        if !same {
            diff.push_str(&format!("line {}\n", line + 1));
            match want {
                Some(want) => diff.push_str(&format!("- {want}\n")),
                None => diff.push_str("- (end of the expected output)\n"),
            }
            match have {
                Some(have) => diff.push_str(&format!("+ {have}\n")),
                None => diff.push_str("+ (end of the output)\n"),
            }
            // Once a line is missing, all that follow differ too.
            if want.is_none() || have.is_none() || diff.lines().count() > 30 {
                break;
            }
        }
    }
    Ok((!diff.is_empty()).then_some(diff))
}

fn matches(pattern: &str, line: &str) -> Result<bool> {
    if !pattern.contains("{{") {
        return Ok(pattern == line);
    }
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(start) = rest.find("{{") {
        let (literal, tail) = rest.split_at(start);
        let (part, after) = tail[2..]
            .split_once("}}")
            .with_context(|| format!("{{{{ without }}}} in expected line: {pattern}"))?;
        regex.push_str(&regex::escape(literal));
        regex.push_str(&format!("(?:{part})"));
        rest = after;
    }
    regex.push_str(&regex::escape(rest));
    regex.push('$');
    let regex = Regex::new(&regex).with_context(|| format!("in expected line: {pattern}"))?;
    Ok(regex.is_match(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_passes() -> Result<()> {
        assert_eq!(compare("a\nb\n", "a\nb\n")?, None);
        assert_eq!(compare("", "")?, None);
        Ok(())
    }

    #[test]
    fn missing_extra_and_different_lines_are_named() -> Result<()> {
        let diff = compare("a\nb\n", "a\n")?.unwrap_or_default();
        assert!(diff.contains("line 2\n- b\n+ (end of the output)"), "{diff}");
        let diff = compare("a\n", "a\nb\n")?.unwrap_or_default();
        assert!(diff.contains("+ b"), "{diff}");
        let diff = compare("a\nb\n", "x\nb\n")?.unwrap_or_default();
        assert_eq!(diff, "line 1\n- a\n+ x\n");
        Ok(())
    }

    #[test]
    fn patterns_match_whole_lines_and_quote_the_rest() -> Result<()> {
        assert_eq!(compare("time {{[0-9]+}} ms (ok)\n", "time 12 ms (ok)\n")?, None);
        assert!(compare("time {{[0-9]+}} ms\n", "time 12 ms!\n")?.is_some());
        assert!(compare("a.c {{x}}\n", "abc x\n")?.is_some());
        assert_eq!(compare("{{a|b}}{{c|d}}\n", "bc\n")?, None);
        assert!(compare("{{[}}\n", "x\n").is_err());
        assert!(compare("{{x\n", "x\n").is_err());
        Ok(())
    }
}
