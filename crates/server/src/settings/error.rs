//! What can be wrong with settings, and the two ways of saying it: to a person and as a reply to a client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::limits::SHOWN_CHARACTERS_MAX;
use super::values::Problem;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a line of a file, counted from 1.
    File {
        /// The file; `-` is the standard input.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// As a flag.
    CommandLine,
    /// In a variable of the environment.
    Environment(&'static str),
    /// By CONFIG SET.
    Request,
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Place::CommandLine => write!(formatter, "command line"),
            Place::Environment(variable) => write!(formatter, "environment {variable}"),
            Place::Request => write!(formatter, "CONFIG SET"),
            Place::Default => write!(formatter, "default"),
        }
    }
}

/// A value that a setting does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {name}: {}", self.said())]
pub struct WrongValue {
    /// Where.
    pub place: Place,
    /// The name as it was given.
    pub name: String,
    /// What the setting takes.
    pub expected: String,
    /// What was given.
    pub found: String,
    /// The same in the words of a reply.
    pub problem: Problem,
}

impl WrongValue {
    /// What the setting takes.
    fn said(&self) -> String {
        format!("expected {}, found {}", self.expected, self.found)
    }
}

impl From<WrongValue> for SettingsError {
    fn from(wrong: WrongValue) -> SettingsError {
        SettingsError::Value(Box::new(wrong))
    }
}

/// Why settings were refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No setting has this name.
    #[error("{place}: {}: expected the name of a setting, found an unknown one{}", shown(name), meant(*similar))]
    Unknown {
        /// Where.
        place: Place,
        /// The name.
        name: String,
        /// The known name that it resembles.
        similar: Option<&'static str>,
    },
    /// The value is not one the setting takes.
    #[error(transparent)]
    Value(Box<WrongValue>),
    /// A line or an argument cannot be read.
    #[error("{place}: {what}")]
    Syntax {
        /// Where.
        place: Place,
        /// What was expected and what was found.
        what: String,
    },
    /// A file cannot be read.
    #[error("cannot read the settings file {}: {source}; check its path and permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The setting can only be chosen when the server starts.
    #[error("{name} can only be chosen at the start: put it into the settings file and restart")]
    Fixed {
        /// The name as it was given.
        name: String,
    },
    /// One request sets the same setting twice.
    #[error("{name} is given twice: give it once")]
    Duplicate {
        /// The name as it was given.
        name: String,
    },
    /// CONFIG REWRITE without a file.
    #[error("the server was started without a settings file: start it with one")]
    NoFile,
    /// The file could not be written anew; the old one is unchanged.
    #[error("cannot rewrite the settings file: cannot {op} {}: {source}; the old file is unchanged", path.display())]
    Rewrite {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file as it would be written does not give the settings that are in force.
    #[error(
        "cannot rewrite the settings file {}: {name} would not keep its value; the old file is unchanged, set it there by hand",
        path.display()
    )]
    NotRepresentable {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: &'static str,
    },
}

impl SettingsError {
    /// The error as a reply to CONFIG SET or CONFIG REWRITE, in Redis's words, without the leading `-` and the line end.
    pub fn reply(&self) -> String {
        let failed = |name: &str, why: &dyn fmt::Display| {
            format!("ERR CONFIG SET failed (possibly related to argument '{}') - {why}", shown(name))
        };
        match self {
            SettingsError::Unknown { name, .. } => {
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{}'", shown(name))
            }
            SettingsError::Value(wrong) => failed(&wrong.name, &wrong.problem),
            SettingsError::Fixed { name } => failed(name, &"can't set immutable config"),
            SettingsError::Duplicate { name } => failed(name, &"duplicate parameter"),
            SettingsError::NoFile => "ERR The server is running without a config file".to_owned(),
            SettingsError::Rewrite { .. } | SettingsError::NotRepresentable { .. } => {
                format!("ERR Rewriting config file: {}", one_line(&self.to_string()))
            }
            SettingsError::Syntax { .. } | SettingsError::Unreadable { .. } => {
                format!("ERR {}", one_line(&self.to_string()))
            }
        }
    }
}

/// The value as an error message repeats it: in quotes, escaped, and cut where it is long.
pub(super) fn shown_value(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn meant(similar: Option<&'static str>) -> String {
    similar.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_break_a_reply_or_fill_it() {
        let name = "\r\n$5\r\n\u{1b}[2J".repeat(1000);
        let error = SettingsError::Unknown { place: Place::Request, name, similar: None };
        assert!(!error.reply().chars().any(char::is_control));
        assert!(error.reply().len() < 1000);
        assert!(!error.to_string().chars().any(char::is_control));
    }
}
