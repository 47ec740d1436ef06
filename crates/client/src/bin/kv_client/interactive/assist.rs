//! What the line editor shows while a line is typed: completions, hints, and whether the line is whole.

use std::borrow::Cow;

use bowline_resp::split_inline;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::command_docs::CommandDocs;

/// Words that this program understands by itself.
const OWN_WORDS: &[&str] = &["CLEAR", "CONNECT", "EXIT", "HELP"];

/// The helper of the line editor.
pub(super) struct Assist {
    docs: CommandDocs,
}

impl Assist {
    pub(super) fn new(docs: CommandDocs) -> Self {
        Assist { docs }
    }

    pub(super) fn docs(&self) -> &CommandDocs {
        &self.docs
    }

    /// The candidates for the word at the end of `typed`, and where that word begins.
    fn candidates(&self, typed: &str) -> (usize, Vec<String>) {
        let begin = typed.rfind(' ').map_or(0, |space| space + 1);
        let (before, word) = typed.split_at(begin);
        let context = before.split_whitespace().map(str::to_ascii_uppercase).collect::<Vec<_>>().join(" ");
        let prefix = word.to_ascii_uppercase();
        let mut found: Vec<String> = match context.as_str() {
            "" => {
                let own = OWN_WORDS.iter().copied().filter(|own| own.starts_with(&prefix));
                own.chain(self.docs.names(&prefix)).map(str::to_owned).collect()
            }
            "HELP" if word.starts_with('@') => {
                let groups = self.docs.group_names();
                return (begin, groups.into_iter().filter(|group| group.starts_with(word)).collect());
            }
            "HELP" => self.docs.names(&prefix).map(str::to_owned).collect(),
            _ => {
                let context = context.strip_prefix("HELP ").unwrap_or(&context);
                let full = format!("{context} {prefix}");
                self.docs.names(&full).filter_map(|name| Some(name.split_once(' ')?.1.to_owned())).collect()
            }
        };
        found.sort();
        if word.starts_with(|first: char| first.is_ascii_lowercase()) {
            found.iter_mut().for_each(|name| name.make_ascii_lowercase());
        }
        (begin, found)
    }

    /// The arguments that are still to be typed.
    fn rest_of_syntax(&self, line: &str) -> Option<String> {
        let words: Vec<String> = split_inline(line.as_bytes())
            .ok()?
            .iter()
            .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase())
            .collect();
        let (doc, used) = self.docs.find(&words)?;
        let given = words.get(used..).unwrap_or_default();
        let open = doc.syntax.iter().enumerate().filter(|(place, part)| match part.strip_prefix('[') {
            // An option that was typed already is not shown again.
            Some(option) => !given.iter().any(|word| has_token(option, word)),
            None => *place >= given.len(),
        });
        let rest = open.map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(" ");
        let gap = if line.ends_with(' ') { "" } else { " " };
        (!rest.is_empty()).then(|| format!("{gap}{rest}"))
    }
}

/// Whether an option of the syntax, such as `EX seconds|PX milliseconds]`, begins with the word or names it.
fn has_token(option: &str, word: &str) -> bool {
    !word.is_empty() && option.split(['|', ' ', '[', ']']).any(|token| token == word)
}

impl Helper for Assist {}

impl Completer for Assist {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line.get(..position).unwrap_or(line)))
    }
}

impl Hinter for Assist {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<String> {
        if position < line.len() {
            return None;
        }
        self.rest_of_syntax(line)
    }
}

impl Highlighter for Assist {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl Validator for Assist {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let open = is_open(context.input());
        Ok(if open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Whether a quote is still open at the end of the line.
fn is_open(line: &str) -> bool {
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => {
                characters.next();
            }
            (Some(open), closing) if open == closing => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            _ => {}
        }
    }
    quote.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_client::Value;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn assist() -> Assist {
        let mut docs = CommandDocs::default();
        let set = Value::Map(vec![(bulk("syntax"), bulk("key value [NX|XX] [EX seconds|PX milliseconds]"))]);
        docs.add("", "set", &set);
        docs.add("", "setnx", &Value::Map(vec![]));
        let get = Value::Map(vec![(bulk("config|get"), Value::Map(vec![(bulk("syntax"), bulk("pattern"))]))]);
        docs.add("", "config", &Value::Map(vec![(bulk("subcommands"), get)]));
        Assist::new(docs)
    }

    #[test]
    fn commands_and_subcommands_are_completed_in_the_letters_that_were_typed() {
        let assist = assist();
        assert_eq!(assist.candidates("SE"), (0, vec!["SET".to_owned(), "SETNX".to_owned()]));
        assert_eq!(assist.candidates("se").1, ["set", "setnx"]);
        assert_eq!(assist.candidates("config g"), (7, vec!["get".to_owned()]));
        assert_eq!(assist.candidates("CONFIG ").1, ["GET"]);
        assert_eq!(assist.candidates("hel").1, ["help"]);
        assert_eq!(assist.candidates("help config g").1, ["get"]);
        assert!(assist.candidates("set ke").1.is_empty());
    }

    #[test]
    fn the_hint_is_what_is_still_to_be_typed() {
        let assist = assist();
        let hint = |line| assist.rest_of_syntax(line).unwrap_or_default();
        assert_eq!(hint("set"), " key value [NX|XX] [EX seconds|PX milliseconds]");
        assert_eq!(hint("set k "), "value [NX|XX] [EX seconds|PX milliseconds]");
        assert_eq!(hint("set k v ex 5 "), "[NX|XX]");
        assert_eq!(hint("config get "), "pattern");
        assert_eq!(hint("unknown "), "");
    }

    #[test]
    fn a_line_with_an_open_quote_goes_on() {
        assert!(is_open("set k \"a\nb"));
        assert!(is_open("set k 'it\\'s"));
        assert!(!is_open("set k \"a\\\"\" 'b\"'"));
    }
}
