//! The prompt: a line in, an answer out, until `exit`.
//!
//! The client library connects again by itself, so a restarted server is met by the next command. Lines with a password
//! are not written to the history file. Completion, hints and HELP come from the server (`command_docs`, `assist`).

mod assist;
mod command_docs;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bowline_client::{Client, Error, Value};
use bowline_resp::split_inline;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::failure::{Exit, Failure};
use crate::print::{self, Format};
use crate::verbs;
use assist::Assist;
use command_docs::CommandDocs;

/// Lines kept in the history file.
const HISTORY_LINES: usize = 5000;
/// An answer that took longer than this shows its time.
const SLOW: Duration = Duration::from_millis(500);

const WELCOME: &str = "\
Type a command, for instance: set greeting \"hello\"
  help              all commands of this server, by group
  help COMMAND      syntax and summary of one command
  connect HOST:PORT talk to another server
  clear             empty the screen
  exit              or Ctrl-D
Tab completes; a quote left open continues on the next line.";

/// Runs the conversation until its end.
pub(crate) fn run(client: Client, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(HISTORY_LINES)
        .and_then(|builder| builder.history_ignore_dups(true))
        .map_err(unusable_terminal)?
        .build();
    let editor = Editor::with_config(config).map_err(unusable_terminal)?;
    let mut conversation = Conversation { client, editor, format, out, history: history_file() };
    conversation.begin();
    let end = conversation.talk();
    conversation.remember();
    end
}

fn unusable_terminal(error: ReadlineError) -> Failure {
    Failure::Local { what: "use the terminal".to_owned(), source: std::io::Error::other(error) }
}

/// Where the history is kept; none when there is no home, or KV_HISTORY is empty.
fn history_file() -> Option<PathBuf> {
    match std::env::var_os("KV_HISTORY") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => Some(PathBuf::from(std::env::var_os("HOME")?).join(".kv_client_history")),
    }
}

struct Conversation<'a> {
    client: Client,
    editor: Editor<Assist, FileHistory>,
    format: Format,
    out: &'a mut dyn Write,
    history: Option<PathBuf>,
}

impl Conversation<'_> {
    fn begin(&mut self) {
        if let Some(path) = &self.history {
            let _ = self.editor.load_history(path);
        }
        if let Err(error) = self.client.connect_now() {
            self.show_error(&error);
        }
        self.learn();
    }

    /// Asks the server for its commands; without an answer there is no completion.
    fn learn(&mut self) {
        let docs = if self.client.is_connected() { CommandDocs::ask(&mut self.client) } else { CommandDocs::default() };
        self.editor.set_helper(Some(Assist::new(docs)));
    }

    fn talk(&mut self) -> Result<Exit, Failure> {
        loop {
            match self.editor.readline(&self.prompt()) {
                Ok(line) => {
                    if !self.handle(&line)? {
                        return Ok(Exit::Success);
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(Exit::Success),
                Err(error) => return Err(unusable_terminal(error)),
            }
        }
    }

    fn prompt(&self) -> String {
        if !self.client.is_connected() {
            return "not connected> ".to_owned();
        }
        let database = match self.client.database() {
            0 => String::new(),
            number => format!("[{number}]"),
        };
        let transaction = if self.client.in_transaction() { "(TX)" } else { "" };
        format!("{}{database}{transaction}> ", self.client.options().address)
    }

    /// Does what one line says; false ends the conversation.
    fn handle(&mut self, line: &str) -> Result<bool, Failure> {
        let Ok(args) = split_inline(line.trim().as_bytes()) else {
            self.say("(error) a quote is closed in the middle of a word; put a space after it\n")?;
            return Ok(true);
        };
        if args.is_empty() {
            return Ok(true);
        }
        if !is_secret(&args) {
            let _ = self.editor.add_history_entry(line);
        }
        let words: Vec<String> = args.iter().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["exit" | "quit"] => return Ok(false),
            ["clear"] => self.editor.clear_screen().map_err(unusable_terminal)?,
            ["help" | "?"] => self.say(&format!("{WELCOME}\n\n{}", self.docs().groups()))?,
            ["help" | "?", topic @ ..] => self.say(&self.docs().about(&topic.join(" ")))?,
            ["connect", address] => self.reconnect_to(address)?,
            _ => self.command(&args)?,
        }
        Ok(true)
    }

    fn docs(&self) -> &CommandDocs {
        static NONE: CommandDocs = CommandDocs::empty();
        self.editor.helper().map_or(&NONE, Assist::docs)
    }

    fn command(&mut self, args: &[Vec<u8>]) -> Result<(), Failure> {
        let unlearned = self.docs().is_empty();
        let begin = Instant::now();
        let answer = self.client.command(args);
        let took = begin.elapsed();
        match answer {
            Ok(value) => print::answer(self.out, self.format, args, &value).map_err(Failure::Output)?,
            Err(Error::Server(refusal)) => {
                let value = Value::Error(refusal.text().to_owned());
                print::answer(self.out, self.format, args, &value).map_err(Failure::Output)?;
            }
            Err(expected) if verbs::is_expected_end(&expected) => self.say("The server shuts down.\n")?,
            Err(error) => self.show_error(&error),
        }
        while let Some(push) = self.client.next_push() {
            print::answer(self.out, self.format, &[], &push).map_err(Failure::Output)?;
        }
        if took > SLOW {
            self.say(&format!("({:.2}s)\n", took.as_secs_f64()))?;
        }
        if unlearned && self.client.is_connected() && !self.client.in_transaction() {
            self.learn();
        }
        self.out.flush().map_err(Failure::Output)
    }

    fn reconnect_to(&mut self, address: &str) -> Result<(), Failure> {
        let options = match address.parse() {
            Ok(address) => bowline_client::Options { address, ..self.client.options().clone() },
            Err(error) => return self.say(&format!("(error) {error}\n")),
        };
        self.client = Client::new(options);
        if let Err(error) = self.client.connect_now() {
            self.show_error(&error);
        }
        self.learn();
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    fn show_error(&mut self, error: &Error) {
        let _ = self.out.flush();
        eprintln!("{}", print::printable(&error.to_string()));
    }

    /// Writes the history file, readable for its owner only.
    fn remember(&mut self) {
        let Some(path) = &self.history else { return };
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        if let Err(error) = made.map_err(ReadlineError::from).and_then(|_| self.editor.save_history(path)) {
            eprintln!(
                "kv_client: cannot write the history {}: {error}; set KV_HISTORY to another file",
                path.display()
            );
        }
    }
}

/// Whether the line carries a password.
fn is_secret(args: &[Vec<u8>]) -> bool {
    let words: Vec<String> = args.iter().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    match words.first().map(String::as_str) {
        Some("auth") => true,
        Some("hello" | "migrate") => has("auth") || has("auth2"),
        Some("acl") => has("setuser"),
        Some("config") => words.iter().any(|word| word.contains("pass") || word.contains("auth")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_password_are_not_kept() {
        let secret = |line: &str| is_secret(&split_inline(line.as_bytes()).expect("words"));
        for line in ["AUTH x", "hello 3 auth default x", "config set requirepass x", "ACL SETUSER ada >x"] {
            assert!(secret(line), "{line}");
        }
        for line in ["get auth", "set requirepass x", "hello 3", "config get maxmemory"] {
            assert!(!secret(line), "{line}");
        }
    }
}
