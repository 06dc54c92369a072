//! How commands speak: exit codes, text or JSON, colour on a terminal, aligned tables. Knows no
//! command.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;

/// Says on stderr what is wrong with the command line, where clap could not know.
pub fn wrong_usage(error: &anyhow::Error) -> Outcome {
    eprintln!("cairn: {error:#}");
    Outcome::Usage
}

/// What a command comes to (DESIGN section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: the answer is no, or the input has errors.
    No,
    /// Exit code 2: wrong usage that only the command itself could notice.
    Usage,
    /// Exit code 22, as curl's: `cairn request --fail` and a status of 400 or more.
    HttpError,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        ExitCode::from(match outcome {
            Outcome::Fine => 0,
            Outcome::No => 1,
            Outcome::Usage => 2,
            Outcome::HttpError => 22,
        })
    }
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// On when stdout is a terminal and `NO_COLOR` (no-color.org) is unset.
    pub fn for_stdout() -> Self {
        Self {
            on: io::stdout().is_terminal() && colours_are_wanted(),
        }
    }

    /// Off, for tests.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { on: false }
    }

    /// Something is wrong.
    pub fn bad(self, text: impl Display) -> String {
        self.wrap("31", text)
    }

    /// Something may be wrong.
    pub fn odd(self, text: impl Display) -> String {
        self.wrap("33", text)
    }

    /// All is well.
    pub fn good(self, text: impl Display) -> String {
        self.wrap("32", text)
    }

    /// Of less interest.
    pub fn faint(self, text: impl Display) -> String {
        self.wrap("2", text)
    }

    /// A heading.
    pub fn strong(self, text: impl Display) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: impl Display) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

fn colours_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Writes to stdout. A reader who has gone (`cairn check | head`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// [`print`] for a body of any kind.
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Writes a value as indented JSON and a line end.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// `1 route`, `2 routes`, `2 policies`.
pub fn count(number: usize, singular: &str, plural: &str) -> String {
    let noun = if number == 1 { singular } else { plural };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_wraps_only_when_on() {
        assert_eq!(Paint { on: true }.bad("x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::none().bad("x"), "x");
    }

    #[test]
    fn counts_have_the_right_noun() {
        assert_eq!(count(1, "policy", "policies"), "1 policy");
        assert_eq!(count(0, "policy", "policies"), "0 policies");
    }
}
