//! What the server says of its commands, from `COMMAND DOCS`.
//!
//! The syntax of a command comes either as one string (`syntax`, as Bowline sends it) or as Redis's tree of arguments,
//! which is rendered here in the notation of its manual: `[ ]` optional, `|` one of, `...` again and again.
//! A server without COMMAND DOCS is asked for its names alone.

use std::collections::{BTreeMap, BTreeSet};

use bowline_client::{Client, Value};

/// One command, or one subcommand.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct CommandDoc {
    /// Its arguments, each as one part: `key`, `[EX seconds|PX milliseconds]`.
    pub(super) syntax: Vec<String>,
    /// One sentence.
    summary: String,
    /// The release that brought it.
    since: String,
    /// What it belongs to.
    group: String,
}

/// All commands by name in capitals; a subcommand's name is `CONFIG GET`.
#[derive(Debug, Default)]
pub(super) struct CommandDocs {
    commands: BTreeMap<String, CommandDoc>,
}

impl CommandDocs {
    /// No command at all.
    pub(super) const fn empty() -> Self {
        CommandDocs { commands: BTreeMap::new() }
    }

    /// Asks the server. What it does not answer is left out.
    pub(super) fn ask(client: &mut Client) -> Self {
        let mut docs = CommandDocs::default();
        if let Ok(answer) = client.command(&["COMMAND", "DOCS"]) {
            pairs(&answer).into_iter().for_each(|(name, doc)| docs.add("", &text(name), doc));
        }
        if docs.is_empty()
            && let Ok(Value::Array(commands)) = client.command(&["COMMAND"])
        {
            for command in commands {
                if let Value::Array(fields) = command
                    && let Some(name) = fields.first()
                {
                    docs.commands.insert(text(name).to_ascii_uppercase(), CommandDoc::default());
                }
            }
        }
        docs
    }

    /// Adds a command with its subcommands; `parent` is the name of the command that it is a subcommand of.
    pub(super) fn add(&mut self, parent: &str, name: &str, doc: &Value) {
        let name = name.rsplit('|').next().unwrap_or(name).to_ascii_uppercase();
        let name = if parent.is_empty() { name } else { format!("{parent} {name}") };
        let mut command = CommandDoc::default();
        let mut is_container = false;
        for (field, value) in pairs(doc) {
            match text(field).as_str() {
                "summary" => command.summary = text(value),
                "since" => command.since = text(value),
                "group" => command.group = text(value),
                "syntax" => command.syntax = split_syntax(&text(value)),
                "arguments" if command.syntax.is_empty() => command.syntax = items(value).iter().map(render).collect(),
                "subcommands" => {
                    let subcommands = pairs(value);
                    is_container = !subcommands.is_empty();
                    subcommands.into_iter().for_each(|(sub, doc)| self.add(&name, &text(sub), doc));
                }
                _ => {}
            }
        }
        if is_container && command.syntax.is_empty() {
            command.syntax = vec!["SUBCOMMAND".to_owned()];
        }
        self.commands.insert(name, command);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The names that begin with `prefix`, which is in capitals, and go no deeper than its words.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let depth = prefix.matches(' ').count();
        self.commands
            .range(prefix.to_owned()..)
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(prefix))
            .filter(move |name| name.matches(' ').count() == depth)
    }

    /// The command that the words (in capitals) call, and how many of them are its name.
    pub(super) fn find(&self, words: &[String]) -> Option<(&CommandDoc, usize)> {
        let with_subcommand = words.get(..2).and_then(|two| self.commands.get(&two.join(" ")));
        with_subcommand.map(|doc| (doc, 2)).or_else(|| Some((self.commands.get(words.first()?)?, 1)))
    }

    /// The groups and their commands.
    pub(super) fn groups(&self) -> String {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, doc) in self.commands.iter().filter(|(name, _)| !name.contains(' ')) {
            groups.entry(&doc.group).or_default().push(name);
        }
        let mut shown = String::new();
        for (group, names) in groups {
            let group = if group.is_empty() { "commands" } else { group };
            shown.push_str(&format!("@{group}\n{}", wrapped(&names)));
        }
        shown
    }

    /// Names of the groups, each with its `@`.
    pub(super) fn group_names(&self) -> BTreeSet<String> {
        self.commands.values().filter(|doc| !doc.group.is_empty()).map(|doc| format!("@{}", doc.group)).collect()
    }

    /// What HELP prints about a command, its subcommands, or a group.
    pub(super) fn about(&self, topic: &str) -> String {
        if let Some(group) = topic.strip_prefix('@') {
            let of_group = self.commands.iter().filter(|(_, doc)| doc.group.eq_ignore_ascii_case(group));
            return or_unknown(topic, of_group.map(|(name, doc)| doc.shown(name)).collect());
        }
        let topic = topic.to_ascii_uppercase();
        let inner = format!("{topic} ");
        let matching = self.commands.iter().filter(|(name, _)| **name == topic || name.starts_with(&inner));
        or_unknown(&topic, matching.map(|(name, doc)| doc.shown(name)).collect())
    }
}

fn or_unknown(topic: &str, shown: String) -> String {
    if shown.is_empty() { format!("{topic} is not known to this server; help alone lists what is\n") } else { shown }
}

impl CommandDoc {
    fn shown(&self, name: &str) -> String {
        let mut shown = format!("{name} {}", self.syntax.join(" ")).trim_end().to_owned() + "\n";
        let of_group = if self.group.is_empty() { String::new() } else { format!(", group @{}", self.group) };
        if !self.summary.is_empty() {
            shown.push_str(&format!("    {}\n", self.summary));
        }
        if !self.since.is_empty() {
            shown.push_str(&format!("    since {}{of_group}\n", self.since));
        }
        shown
    }
}

/// Names in lines of at most 78 characters.
fn wrapped(names: &[&str]) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for name in names {
        if column == 0 || column + name.len() + 1 > 78 {
            lines.push_str(if column == 0 { "  " } else { "\n  " });
            column = 2;
        } else {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(name);
        column += name.len();
    }
    lines.push('\n');
    lines
}

/// One argument of Redis's tree, in the notation of its manual.
fn render(argument: &Value) -> String {
    let (mut name, mut kind, mut token, mut flags, mut parts) =
        (String::new(), String::new(), None, Vec::new(), Vec::new());
    for (field, value) in pairs(argument) {
        match text(field).as_str() {
            "name" if name.is_empty() => name = text(value),
            "display_text" => name = text(value),
            "type" => kind = text(value),
            "token" => token = Some(text(value)),
            "flags" => flags = items(value).iter().map(text).collect(),
            "arguments" => parts = items(value).iter().map(render).collect(),
            _ => {}
        }
    }
    let has = |flag: &str| flags.iter().any(|other| other == flag);
    let base = match kind.as_str() {
        "oneof" => parts.join("|"),
        "block" => parts.join(" "),
        "pure-token" => String::new(),
        _ => name,
    };
    let mut shown = match &token {
        Some(token) if base.is_empty() => token.clone(),
        Some(token) => format!("{token} {base}"),
        None => base.clone(),
    };
    if has("multiple") {
        let again = if has("multiple_token") || base.is_empty() { shown.clone() } else { base };
        shown = format!("{shown} [{again} ...]");
    }
    if has("optional") { format!("[{shown}]") } else { shown }
}

/// Splits a syntax at the spaces outside brackets.
fn split_syntax(syntax: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut depth = 0_usize;
    let mut open = false;
    for character in syntax.chars() {
        match character {
            '[' | '<' | '(' => depth += 1,
            ']' | '>' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character == ' ' && depth == 0 {
            open = false;
            continue;
        }
        match parts.last_mut() {
            Some(part) if open => part.push(character),
            _ => parts.push(character.to_string()),
        }
        open = true;
    }
    parts
}

/// A map of either protocol as pairs.
fn pairs(value: &Value) -> Vec<(&Value, &Value)> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(key, value)| (key, value)).collect(),
        Value::Array(items) => items.chunks_exact(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?))).collect(),
        _ => Vec::new(),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

/// A string of the server, made harmless for the terminal.
fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) | Value::Verbatim { text: bytes, .. } => {
            crate::print::printable(&String::from_utf8_lossy(bytes))
        }
        Value::Simple(text) => crate::print::printable(text),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn map(fields: Vec<(&str, Value)>) -> Value {
        Value::Map(fields.into_iter().map(|(name, value)| (bulk(name), value)).collect())
    }

    fn flags(flags: &[&str]) -> Value {
        Value::Set(flags.iter().map(|flag| Value::Simple((*flag).to_owned())).collect())
    }

    #[test]
    fn a_tree_of_arguments_is_written_as_in_the_manual() {
        let seconds = map(vec![("name", bulk("seconds")), ("type", bulk("integer")), ("token", bulk("EX"))]);
        let keep = map(vec![("name", bulk("keepttl")), ("type", bulk("pure-token")), ("token", bulk("KEEPTTL"))]);
        let expiry = map(vec![
            ("name", bulk("expiration")),
            ("type", bulk("oneof")),
            ("flags", flags(&["optional"])),
            ("arguments", Value::Array(vec![seconds, keep])),
        ]);
        assert_eq!(render(&expiry), "[EX seconds|KEEPTTL]");
        let keys = map(vec![("name", bulk("key")), ("type", bulk("key")), ("flags", flags(&["multiple"]))]);
        assert_eq!(render(&keys), "key [key ...]");
    }

    #[test]
    fn a_syntax_is_split_outside_its_brackets() {
        let parts = split_syntax("key value [NX | XX] [EX seconds [a b]]");
        assert_eq!(parts, ["key", "value", "[NX | XX]", "[EX seconds [a b]]"]);
    }

    #[test]
    fn subcommands_and_both_protocols_are_understood() {
        let get = Value::Array(vec![bulk("summary"), bulk("Returns settings."), bulk("syntax"), bulk("pattern ...")]);
        let config = Value::Array(vec![
            bulk("group"),
            bulk("server"),
            bulk("subcommands"),
            Value::Array(vec![bulk("config|get"), get]),
        ]);
        let mut docs = CommandDocs::default();
        docs.add("", "config", &config);
        let words: Vec<String> = ["CONFIG", "GET", "x"].map(str::to_owned).to_vec();
        let (doc, used) = docs.find(&words).expect("known");
        assert_eq!((doc.syntax.join(" ").as_str(), used), ("pattern ...", 2));
        assert_eq!(docs.names("CONFIG ").collect::<Vec<_>>(), ["CONFIG GET"]);
        assert_eq!(docs.names("CO").collect::<Vec<_>>(), ["CONFIG"]);
        assert!(docs.about("config get").contains("Returns settings."));
        assert!(docs.about("@server").starts_with("CONFIG"));
        assert!(docs.about("nothing").contains("not known"));
    }
}
