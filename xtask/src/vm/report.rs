//! What the program in a guest (`probe cases`) says on its console about the command lines that it ran.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::process::{self, Finished};

/// A command line for the program in the guest.
pub struct Command<'a> {
    /// Without spaces: it stands before each line of the report.
    pub name: &'a str,
    /// After which it is ended.
    pub limit: Duration,
    /// The program and its arguments, without tabs.
    pub words: Vec<&'a str>,
}

/// The file that `probe cases` reads.
pub fn cases_file(commands: &[Command<'_>]) -> String {
    let line = |command: &Command<'_>| {
        format!("{}\t{}\t{}\n", command.name, command.limit.as_secs().max(1), command.words.join("\t"))
    };
    commands.iter().map(line).collect()
}

/// What became of one command line.
#[derive(Default)]
pub struct Report {
    /// Lines of its output, each with `O` or `E` for where it went.
    lines: Vec<(char, String)>,
    end: Option<End>,
}

struct End {
    /// `None`: the time limit.
    status: Option<ExitStatus>,
    elapsed: Duration,
}

impl Report {
    /// Finds the lines about `name` among all that a console showed.
    pub fn of(console: &str, name: &str) -> Self {
        let prefix = format!("@@ {name} ");
        let mut report = Self::default();
        for line in console.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            let mut parts = line.splitn(2, ' ');
            let (mark, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            match mark {
                "O" => report.lines.push(('O', text.to_owned())),
                "E" => report.lines.push(('E', text.to_owned())),
                "X" => report.end = end(text),
                _ => {}
            }
        }
        report
    }

    /// In the form in which programs of this machine end; `None` if it did not come to an end.
    pub fn finished(&self) -> Option<Finished> {
        let end = self.end.as_ref()?;
        Some(Finished {
            status: end.status,
            stdout: self.text('O').into_bytes(),
            stderr: self.text('E').into_bytes(),
            elapsed: end.elapsed,
        })
    }

    /// All of one output.
    pub fn text(&self, mark: char) -> String {
        let lines = self.lines.iter().filter(|line| line.0 == mark);
        lines.map(|(_, line)| line.clone() + "\n").collect()
    }

    /// How often a line is in an output, spaces at its end apart.
    pub fn count(&self, mark: char, text: &str) -> usize {
        let same = |line: &&(char, String)| line.0 == mark && line.1.trim_end() == text.trim_end();
        self.lines.iter().filter(same).count()
    }

    /// The exit code; 128 and its number for a signal.
    pub fn code(&self) -> Option<i32> {
        let status = self.end.as_ref()?.status?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Time until the end.
    pub fn elapsed(&self) -> Duration {
        self.end.as_ref().map_or(Duration::ZERO, |end| end.elapsed)
    }

    /// The end of both outputs, for a person.
    pub fn tail(&self, lines: usize) -> String {
        let all: Vec<String> = self.lines.iter().map(|(mark, text)| format!("{mark} {text}")).collect();
        process::tail(&all.join("\n"), lines, "  | ")
    }
}

fn end(text: &str) -> Option<End> {
    let (status, milliseconds) = text.trim_end().split_once(' ')?;
    let status = match status {
        "limit" => None,
        raw => Some(ExitStatus::from_raw(raw.parse().ok()?)),
    };
    Some(End { status, elapsed: Duration::from_millis(milliseconds.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[ 1.0] kernel\n@@ a O one\n@@ b O other\n@@ a O \n@@ a E why\n@@ a O two  words\n@@ a X 10752 5210\n\
                           @@ b X limit 1000\n@@ c X 6 1\n@@ d O cut off\n@@ e X broken\n";

    #[test]
    fn each_case_has_its_own_lines_and_end() {
        let a = Report::of(CONSOLE, "a");
        let finished = a.finished().expect("an end");
        assert_eq!(finished.stdout, b"one\n\ntwo  words\n");
        assert_eq!(finished.stderr, b"why\n");
        assert_eq!((a.code(), finished.elapsed), (Some(42), Duration::from_millis(5210)));
        assert_eq!((a.count('O', "one "), a.count('E', "one")), (1, 0));
        assert!(Report::of(CONSOLE, "b").finished().is_some_and(|finished| finished.status.is_none()));
        assert_eq!(Report::of(CONSOLE, "c").code(), Some(128 + 6));
        for unfinished in ["d", "e", "f"] {
            assert!(Report::of(CONSOLE, unfinished).finished().is_none(), "{unfinished}");
        }
    }

    #[test]
    fn command_lines_have_names_and_limits() {
        let command =
            Command { name: "a", limit: Duration::from_millis(10), words: vec!["/bin/x", "two words"] };
        assert_eq!(cases_file(&[command]), "a\t1\t/bin/x\ttwo words\n");
    }
}
