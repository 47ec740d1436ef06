//! From where settings come, and which rules: defaults < file < environment < flags.
//!
//! A file may `include` others; a relative path starts at the directory of the file that includes it. Later lines rule
//! over earlier ones, an included file stands where its line stands. The sources are kept, so that a reload reads them
//! again. Not here: the syntax of a line ([`super::syntax`]) and of flags ([`super::arguments`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{Place, SettingsError, WrongValue, shown_value};
use super::limits::{FILE_BYTES_MAX, INCLUDE_DEPTH_MAX, LINES_MAX, SOCKET_PATH_BYTES_MAX};
use super::rows::Settings;
use super::syntax::{Directive, parse_text};
use super::table::{find, similar};
use super::values::{Kind, Problem};

/// The first file of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstFile {
    /// A file; the path is absolute.
    Path(PathBuf),
    /// What was read from the standard input, which can be read once only.
    StandardInput(Vec<u8>),
}

/// A variable of the environment that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The variable.
    pub variable: &'static str,
    /// The setting it stands for.
    pub name: &'static str,
    /// Its value as the setting takes it.
    pub value: String,
}

/// Everything that settings come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file, where there is one.
    pub file: Option<FirstFile>,
    /// The environment.
    pub environment: Vec<Variable>,
    /// The flags in their order.
    pub arguments: Vec<Directive>,
    /// The directory that relative paths start at.
    pub base: PathBuf,
}

impl Sources {
    /// Reads the variables that the server knows: KV_HOST is `bind`, KV_PORT is `port`, KV_VERBOSE is `loglevel` (1 or
    /// yes for debug, 2 for trace, 0 or no for the default). Empty ones count as not set.
    pub fn read_environment(&mut self, variable: &dyn Fn(&str) -> Option<String>) {
        for (name, setting) in [("KV_HOST", "bind"), ("KV_PORT", "port"), ("KV_VERBOSE", "loglevel")] {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
            let value = match (setting, value.to_ascii_lowercase().as_str()) {
                ("loglevel", "0" | "no" | "false") => continue,
                ("loglevel", "1" | "yes" | "true") => "debug".to_owned(),
                ("loglevel", "2") => "trace".to_owned(),
                _ => value,
            };
            self.environment.push(Variable { variable: name, name: setting, value });
        }
    }

    /// Reads all sources and checks that the settings fit each other.
    ///
    /// # Errors
    /// The first thing that is wrong, with the place where it was given.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        let mut loading = Loading::new(&self.base);
        match &self.file {
            Some(FirstFile::Path(path)) => loading.file(path, 0)?,
            Some(FirstFile::StandardInput(text)) => loading.text(text, Path::new("-"), &self.base, 0)?,
            None => {}
        }
        loading.next_source();
        for Variable { variable, name, value } in &self.environment {
            let values = vec![value.clone()];
            let directive = Directive { line: 0, name: (*name).to_owned(), values };
            loading.directive(&directive, &Place::Environment(variable))?;
        }
        loading.next_source();
        for directive in &self.arguments {
            loading.directive(directive, &Place::CommandLine)?;
        }
        let Loading { settings, places, .. } = loading;
        check(&settings).map_err(|conflict| {
            let place = places.get(conflict.name).cloned().unwrap_or(Place::Default);
            conflict.at(place)
        })?;
        Ok(settings)
    }

    /// Reads one text as if it were the file at `path`, with the files it includes, over the defaults.
    pub(super) fn load_text(&self, text: &[u8], path: &Path) -> Result<Settings, SettingsError> {
        let mut loading = Loading::new(&self.base);
        loading.text(text, path, path.parent().unwrap_or(&self.base), 0)?;
        Ok(loading.settings)
    }
}

/// Settings that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    name: &'static str,
    expected: String,
    found: String,
}

impl Conflict {
    pub(super) fn at(self, place: Place) -> SettingsError {
        let problem = Problem::Conflict(format!("expected {}", self.expected));
        WrongValue { place, name: self.name.to_owned(), expected: self.expected, found: self.found, problem }.into()
    }
}

/// Checks what no row can check alone.
pub(super) fn check(settings: &Settings) -> Result<(), Conflict> {
    if settings.port == 0 && settings.text_port == 0 && settings.unixsocket.as_os_str().is_empty() {
        let expected = "something to listen on (port, text-port or unixsocket)".to_owned();
        return Err(Conflict { name: "port", expected, found: "0 and nothing else".to_owned() });
    }
    if settings.port != 0 && settings.port == settings.text_port {
        let expected = "another port than the Redis protocol has".to_owned();
        return Err(Conflict { name: "text-port", expected, found: shown_value(&settings.text_port.to_string()) });
    }
    if let Some(path) = settings.unix_socket() {
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let expected = format!("a path of at most {SOCKET_PATH_BYTES_MAX} bytes");
            return Err(Conflict { name: "unixsocket", expected, found: format!("{length} bytes") });
        }
    }
    Ok(())
}

/// Settings while they are put together.
struct Loading {
    settings: Settings,
    /// Where each setting was last given, by its own name. Kept between sources.
    places: BTreeMap<&'static str, Place>,
    /// The settings that the present source has given already.
    given: Vec<&'static str>,
    lines: usize,
}

impl Loading {
    fn new(base: &Path) -> Loading {
        let settings = Settings { base: base.to_owned(), ..Settings::default() };
        Loading { settings, places: BTreeMap::new(), given: Vec::new(), lines: 0 }
    }

    fn next_source(&mut self) {
        self.given.clear();
    }

    fn file(&mut self, path: &Path, depth: usize) -> Result<(), SettingsError> {
        let unreadable = |source| SettingsError::Unreadable { path: path.to_owned(), source };
        let text = read_bounded(File::open(path).map_err(unreadable)?).map_err(unreadable)?;
        self.text(&text, path, path.parent().unwrap_or(Path::new("/")), depth)
    }

    fn text(&mut self, text: &[u8], path: &Path, directory: &Path, depth: usize) -> Result<(), SettingsError> {
        let place = |line| Place::File { path: path.to_owned(), line };
        let syntax = |line, what: &str| SettingsError::Syntax { place: place(line), what: what.to_owned() };
        let directives = parse_text(text).map_err(|error| syntax(error.line, error.what))?;
        self.lines = self.lines.saturating_add(text.iter().filter(|byte| **byte == b'\n').count() + 1);
        for directive in &directives {
            if !directive.name.eq_ignore_ascii_case("include") {
                self.directive(directive, &place(directive.line))?;
                continue;
            }
            if depth >= INCLUDE_DEPTH_MAX || self.lines > LINES_MAX {
                let what = "include: expected a file that does not include itself, found too many levels or lines";
                return Err(syntax(directive.line, what));
            }
            for included in &directive.values {
                self.file(&directory.join(included), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Takes over one setting.
    fn directive(&mut self, directive: &Directive, place: &Place) -> Result<(), SettingsError> {
        let name = &directive.name;
        let Some(named) = find(name) else {
            return Err(SettingsError::Unknown { place: place.clone(), name: name.clone(), similar: similar(name) });
        };
        let kind = named.setting.kind;
        let wrong = |found: String, problem: Problem| {
            let (place, name, expected) = (place.clone(), name.clone(), kind.expected());
            SettingsError::from(WrongValue { place, name, expected, found, problem })
        };
        let mut text = match directive.values.as_slice() {
            [] => return Err(wrong("nothing".to_owned(), Problem::WrongCount)),
            [value] => value.clone(),
            values if kind.takes_several() => values.join(" "),
            values => return Err(wrong(format!("{} words", values.len()), Problem::WrongCount)),
        };
        let again = self.given.contains(&named.setting.name);
        if kind == Kind::SavePoints && again && !text.is_empty() {
            text = format!("{} {text}", named.get(&self.settings));
        }
        named.set(&mut self.settings, &text).map_err(|problem| wrong(shown_value(&text), problem))?;
        self.places.insert(named.setting.name, place.clone());
        if !again {
            self.given.push(named.setting.name);
        }
        Ok(())
    }
}

/// Reads a file of settings, and not more of it than one may have.
pub(super) fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("expected at most {FILE_BYTES_MAX} bytes of settings, found more");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::settings::words::{Durability, LogLevel};

    fn flag(name: &str, values: &[&str]) -> Directive {
        Directive { line: 0, name: name.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let file = Some(FirstFile::StandardInput(text.as_bytes().to_vec()));
        Sources { file, base: PathBuf::from("/srv"), ..Sources::default() }.load()
    }

    fn refusal(text: &str) -> String {
        load(text).expect_err("should be refused").to_string()
    }

    #[test]
    fn nothing_at_all_gives_the_defaults() {
        let settings = load("").expect("valid");
        assert_eq!(Settings { base: PathBuf::new(), ..settings }, Settings::default());
    }

    #[test]
    fn flags_rule_over_the_environment_over_the_file() {
        let mut sources = Sources {
            file: Some(FirstFile::StandardInput(b"port 1\ntext-port 2\nloglevel error\ntimeout 7\n".to_vec())),
            arguments: vec![flag("port", &["4"])],
            ..Sources::default()
        };
        sources.read_environment(&|variable| match variable {
            "KV_PORT" => Some("3".to_owned()),
            "KV_VERBOSE" => Some("1".to_owned()),
            _ => None,
        });
        let settings = sources.load().expect("valid");
        assert_eq!((settings.port, settings.text_port, settings.timeout), (4, 2, 7));
        assert_eq!(settings.loglevel, LogLevel::Debug);
    }

    #[test]
    fn bowline_and_redis_lines_may_be_mixed() {
        let settings = load("server_port=7000\nmaxclients 55\nappendfsync everysec\nsave 900 1\nbind * -::*\n");
        let settings = settings.expect("valid");
        assert_eq!((settings.port, settings.max_connections), (7000, 55));
        assert_eq!(settings.durability, Durability::EverySecond);
        assert_eq!(settings.bind.hosts(), ["*", "-::*"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_line_name_expectation_and_finding() {
        for (text, message) in [
            ("\nport abc", "-:2: port: expected a whole number from 0 to 65535, found \"abc\""),
            ("port 1 2", "-:1: port: expected a whole number from 0 to 65535, found 2 words"),
            ("port", "-:1: port: expected a whole number from 0 to 65535, found nothing"),
            ("daemonize maybe", "-:1: daemonize: expected yes or no, found \"maybe\""),
            ("appendfsync x", "-:1: appendfsync: expected one of always, everysec, none, found \"x\""),
            ("num_segments 3", "-:1: num_segments: expected a power of two from 1 to 256, found \"3\""),
            (
                "wal_file_size 1",
                "-:1: wal_file_size: expected a number of bytes from 1mb to 16gb, such as 64mb, found \"1\"",
            ),
            (
                "durabilty always",
                "-:1: durabilty: expected the name of a setting, found an unknown one (did you mean durability?)",
            ),
            ("port \"1", "-:1: expected a closing quote, found the end of the line"),
            ("logfile \"a\\nb\"", "-:1: logfile: expected a path, in quotes if it has spaces, found \"a\\nb\""),
        ] {
            assert_eq!(refusal(text), message);
        }
    }

    #[test]
    fn a_server_that_listens_nowhere_is_refused_where_the_port_was_given() {
        let message = refusal("\n\nport 0");
        assert_eq!(
            message,
            "-:3: port: expected something to listen on (port, text-port or unixsocket), found 0 and nothing else"
        );
        assert!(load("port 0\nunixsocket /tmp/s").is_ok());
    }

    #[test]
    fn two_listeners_on_one_port_are_refused() {
        assert!(refusal("text-port 6379").contains("text-port: expected another port"));
    }

    #[test]
    fn a_socket_path_that_the_kernel_would_cut_is_refused() {
        assert!(refusal(&format!("unixsocket /{}", "x".repeat(107))).contains("at most 107 bytes, found 108 bytes"));
    }

    #[test]
    fn snapshot_points_of_several_lines_add_up_and_an_empty_one_clears_them() {
        let saved = |text: &str| find("save").expect("known").get(&load(text).expect("valid"));
        assert_eq!(saved(""), "3600 1 300 100 60 10000");
        assert_eq!(saved("save 900 1\nsave 60 5"), "900 1 60 5");
        assert_eq!(saved("save 900 1\nsave \"\""), "");
        assert_eq!(saved("save \"\""), "");
    }

    #[test]
    fn an_included_file_stands_where_its_line_stands() {
        let directory = tempfile::tempdir().expect("a directory");
        let (main, inner) = (directory.path().join("main.conf"), directory.path().join("inner.conf"));
        fs::write(&main, "port 1\ntimeout 1\ninclude inner.conf\ntimeout 3\n").expect("written");
        fs::write(&inner, "port 2\ntimeout 2\nhz x\n").expect("written");
        let sources = Sources { file: Some(FirstFile::Path(main)), ..Sources::default() };
        let message = sources.load().expect_err("wrong").to_string();
        assert_eq!(
            message,
            format!(
                "{}:3: hz: expected {}, found \"x\"",
                inner.display(),
                find("hz").expect("known").setting.kind.expected()
            )
        );
        fs::write(&inner, "port 2\ntimeout 2\n").expect("written");
        let settings = sources.load().expect("valid");
        assert_eq!((settings.port, settings.timeout), (2, 3));
    }

    #[test]
    fn a_file_that_includes_itself_ends_with_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("loop.conf");
        fs::write(&path, "include loop.conf loop.conf\n").expect("written");
        let sources = Sources { file: Some(FirstFile::Path(path)), ..Sources::default() };
        let message = sources.load().expect_err("endless").to_string();
        assert!(message.contains("does not include itself"), "{message}");
    }

    #[test]
    fn files_that_include_each_other_twice_end_with_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |level: usize| directory.path().join(format!("{level}.conf"));
        for level in 0..7 {
            fs::write(path(level), format!("include {next}.conf {next}.conf\n", next = level + 1)).expect("written");
        }
        // 128 times 10,000 lines.
        fs::write(path(7), "#\n".repeat(10_000)).expect("written");
        let sources = Sources { file: Some(FirstFile::Path(path(0))), ..Sources::default() };
        let message = sources.load().expect_err("too many lines").to_string();
        assert!(message.contains("found too many levels or lines"), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let sources = Sources { file: Some(FirstFile::Path("/nowhere/kv.conf".into())), ..Sources::default() };
        let message = sources.load().expect_err("missing").to_string();
        assert!(message.contains("/nowhere/kv.conf") && message.contains("No such file"), "{message}");
    }

    #[test]
    fn a_file_over_the_limit_is_refused_before_it_is_read() {
        let endless = io::repeat(b'#');
        assert!(read_bounded(endless).is_err());
    }

    /// Lines of a real file, to be damaged.
    const VALID: &str = "port=7000\nbind 127.0.0.1 -::1\nrequirepass \"a\\x20b\"\nsave 900 1\nloglevel debug\n\
        client-output-buffer-limit normal 1mb 0 0 pubsub 1 2 3\nmaxmemory 1gb\nunixsocketperm 0700\ninclude /dev/null\n";

    proptest! {
        #[test]
        fn damaged_files_give_settings_or_an_error_and_nothing_else(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 0..12)
        ) {
            let mut text = VALID.as_bytes().to_vec();
            for (index, byte, change) in changes {
                let at = index.index(text.len());
                match change {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => drop(text.remove(at)),
                }
            }
            // A damaged include must not make the test read files of this machine.
            let text = String::from_utf8_lossy(&text).replace("include", "hz");
            let sources = Sources { file: Some(FirstFile::StandardInput(text.into_bytes())), ..Sources::default() };
            if let Err(error) = sources.load() {
                let message = error.to_string();
                prop_assert!(!message.chars().any(char::is_control), "{message:?}");
                prop_assert!(message.len() < 1000);
            }
        }

        #[test]
        fn any_value_of_any_setting_is_taken_or_refused(
            index in any::<prop::sample::Index>(),
            text in prop_oneof![any::<String>(), "[0-9a-z -]{0,20}"],
        ) {
            let all: Vec<_> = crate::settings::table::names().collect();
            let named = index.get(&all);
            let mut settings = Settings::default();
            if named.set(&mut settings, &text).is_ok() {
                let shown = named.get(&settings);
                let mut again = settings.clone();
                prop_assert_eq!(named.set(&mut again, &shown), Ok(()));
                prop_assert_eq!(again, settings);
            } else {
                prop_assert_eq!(settings, Settings::default());
            }
        }
    }
}
