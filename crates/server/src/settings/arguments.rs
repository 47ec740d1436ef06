//! The command line: `kv_server [FILE.conf | -] [--name value ...]`.
//!
//! A flag is the name of a setting behind two dashes. Its value is the rest of the argument after `=`, or the arguments
//! up to the next that begins with two dashes, as redis-server reads them. Everything here is derived from the table.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use bowline::snapshot::Moment;
use bowline::{Target, Version};

use super::error::{Place, SettingsError};
use super::sources::{FirstFile, Sources, read_bounded};
use super::syntax::Directive;
use super::table::find;
use super::values::Kind;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the server.
    Run(Sources),
    /// Restore a backup into the data directory.
    Restore(Sources, RestoreArguments),
    /// Verify the files of a data directory and change nothing.
    Check(Sources, PathBuf),
    /// Print what the blocks of a block file are used for.
    Inspect(Sources, PathBuf),
    /// Say what is damaged in a data directory and what a repair would lose, and repair it after a yes.
    Repair(Sources, RepairArguments),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Print an example of a settings file.
    ExampleFile,
    /// Print the settings as a table in Markdown.
    SettingsTable,
}

/// What a restore is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreArguments {
    /// The backup.
    pub snapshot: PathBuf,
    /// Up to where the archive is replayed.
    pub target: Target,
}

/// What a repair is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairArguments {
    /// The data directory.
    pub directory: PathBuf,
    /// Whether the answer is yes already.
    pub yes: bool,
}

/// Where arguments, environment and standard input come from; tests give their own.
pub struct Surroundings<'a> {
    /// The arguments without the name of the program.
    pub arguments: Vec<OsString>,
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The current directory.
    pub directory: PathBuf,
    /// The standard input.
    pub standard_input: &'a mut dyn io::Read,
}

/// Reads the command line, and the standard input when `-` stands for the file.
///
/// # Errors
/// An argument that is neither flag nor file, or a standard input that cannot be read. Names and values of settings are
/// checked by [`Sources::load`].
pub fn read(surroundings: Surroundings<'_>) -> Result<Invocation, SettingsError> {
    let Surroundings { arguments, variable, directory, standard_input } = surroundings;
    let arguments: Vec<String> = arguments.into_iter().map(as_text).collect::<Result<_, _>>()?;
    let mut rest = arguments.as_slice();
    let mut sources = Sources { base: directory, ..Sources::default() };
    match rest {
        [file, others @ ..] if file == "-" => {
            let unreadable = |source| SettingsError::Unreadable { path: PathBuf::from("-"), source };
            sources.file = Some(FirstFile::StandardInput(read_bounded(standard_input).map_err(unreadable)?));
            rest = others;
        }
        [file, others @ ..] if !file.starts_with('-') => {
            sources.file = Some(FirstFile::Path(absolute(&sources.base, file)));
            rest = others;
        }
        _ => {}
    }
    let (mut restore, mut files) = (RestoreFlags::default(), FileFlags::default());
    while let [flag, others @ ..] = rest {
        let (name, inline) = match flag.strip_prefix("--") {
            Some(flag) => flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value))),
            None if flag == "-h" => ("help", None),
            None if flag == "-v" => ("version", None),
            None => return Err(unexpected(flag)),
        };
        let count = match inline {
            Some(_) => 0,
            None => others.iter().take_while(|argument| !argument.starts_with("--")).count(),
        };
        let (following, others) = others.split_at(count);
        let values: Vec<String> = inline.map_or_else(|| following.to_vec(), |value| vec![value.to_owned()]);
        if let Some(invocation) = other_than_run(name, &values)? {
            return Ok(invocation);
        }
        if !restore.take(name, &values, &sources.base)? && !files.take(name, &values, &sources.base)? {
            sources.arguments.push(directive(name, values));
        }
        rest = others;
    }
    sources.read_environment(variable);
    match (restore.finish()?, files.finish()?) {
        (Some(_), Some(_)) => {
            let what = "--restore stands without --check, --inspect and --repair".to_owned();
            Err(SettingsError::Syntax { place: Place::CommandLine, what })
        }
        (Some(restore), None) => Ok(Invocation::Restore(sources, restore)),
        (None, Some((FilePurpose::Check, path, _))) => Ok(Invocation::Check(sources, path)),
        (None, Some((FilePurpose::Inspect, path, _))) => Ok(Invocation::Inspect(sources, path)),
        (None, Some((FilePurpose::Repair, directory, yes))) => {
            Ok(Invocation::Repair(sources, RepairArguments { directory, yes }))
        }
        (None, None) => Ok(Invocation::Run(sources)),
    }
}

/// The flags of a restore, as far as they were read.
#[derive(Default)]
struct RestoreFlags {
    snapshot: Option<PathBuf>,
    target: Option<Target>,
}

impl RestoreFlags {
    /// Takes a flag that is about a restore; false for others.
    fn take(&mut self, name: &str, values: &[String], base: &Path) -> Result<bool, SettingsError> {
        let wrong = |expected: &str| {
            let found = values.join(" ");
            let what = format!("--{name}: expected {expected}, found {found:?}");
            SettingsError::Syntax { place: Place::CommandLine, what }
        };
        let value = match values {
            [value] => value.as_str(),
            _ => "",
        };
        let target = match name {
            "restore" if value.is_empty() => return Err(wrong("the file of a backup")),
            "restore" => {
                self.snapshot = Some(absolute(base, value));
                return Ok(true);
            }
            "to-time" => {
                let moment: Moment = value.parse().map_err(|_| wrong("a time such as 2026-11-20T10:15:00Z"))?;
                Target::TimeMs(moment.0)
            }
            "to-version" => Target::Version(Version(value.parse().map_err(|_| wrong("the number of a version"))?)),
            _ => return Ok(false),
        };
        if self.target.is_some_and(|before| before != target) {
            return Err(wrong("one target, --to-time or --to-version"));
        }
        self.target = Some(target);
        Ok(true)
    }

    fn finish(self) -> Result<Option<RestoreArguments>, SettingsError> {
        match (self.snapshot, self.target) {
            (Some(snapshot), target) => {
                Ok(Some(RestoreArguments { snapshot, target: target.unwrap_or(Target::Newest) }))
            }
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let what = "--to-time and --to-version belong to --restore FILE".to_owned();
                Err(SettingsError::Syntax { place: Place::CommandLine, what })
            }
        }
    }
}

/// What is done with the files of a server that is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FilePurpose {
    Check,
    Inspect,
    Repair,
}

/// The flags about files, as far as they were read.
#[derive(Default)]
struct FileFlags {
    purpose: Option<(FilePurpose, PathBuf)>,
    yes: bool,
}

impl FileFlags {
    /// Takes a flag that is about files; false for others.
    fn take(&mut self, name: &str, values: &[String], base: &Path) -> Result<bool, SettingsError> {
        let wrong = |what: String| Err(SettingsError::Syntax { place: Place::CommandLine, what });
        let purpose = match name {
            "check" => FilePurpose::Check,
            "inspect" => FilePurpose::Inspect,
            "repair" => FilePurpose::Repair,
            "yes" => {
                self.yes = true;
                return values.first().map_or(Ok(true), |value| Err(unexpected(value)));
            }
            _ => return Ok(false),
        };
        let [path] = values else {
            return wrong(format!("--{name}: expected one directory, such as --{name} ./data"));
        };
        if self.purpose.is_some() {
            return wrong("give one of --check, --inspect and --repair, once".to_owned());
        }
        self.purpose = Some((purpose, absolute(base, path)));
        Ok(true)
    }

    fn finish(self) -> Result<Option<(FilePurpose, PathBuf, bool)>, SettingsError> {
        let is_for_repair = matches!(self.purpose, Some((FilePurpose::Repair, _)));
        if self.yes && !is_for_repair {
            let what = "--yes belongs to --repair DIR".to_owned();
            return Err(SettingsError::Syntax { place: Place::CommandLine, what });
        }
        Ok(self.purpose.map(|(purpose, path)| (purpose, path, self.yes)))
    }
}

/// The flags that are no settings and stand alone.
fn other_than_run(name: &str, values: &[String]) -> Result<Option<Invocation>, SettingsError> {
    let alone = match name {
        "help" => Invocation::Help,
        "version" => Invocation::Version,
        "example-file" => Invocation::ExampleFile,
        "settings-table" => Invocation::SettingsTable,
        _ => return Ok(None),
    };
    match values {
        [] => Ok(Some(alone)),
        [value, ..] => Err(unexpected(value)),
    }
}

fn directive(name: &str, mut values: Vec<String>) -> Directive {
    // `--daemonize` alone says yes.
    if values.is_empty() && find(name).is_some_and(|named| named.setting.kind == Kind::Flag) {
        values.push("yes".to_owned());
    }
    Directive { line: 0, name: name.to_owned(), values }
}

fn unexpected(argument: &str) -> SettingsError {
    let what = format!("expected --name value, found {argument:?}; see kv_server --help");
    SettingsError::Syntax { place: Place::CommandLine, what }
}

fn as_text(argument: OsString) -> Result<String, SettingsError> {
    argument.into_string().map_err(|argument| {
        let what = format!("expected UTF-8, found {argument:?}");
        SettingsError::Syntax { place: Place::CommandLine, what }
    })
}

fn absolute(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::rows::Settings;
    use crate::settings::words::LocalAccess;

    fn read_arguments(arguments: &[&str], input: &str) -> Result<Invocation, SettingsError> {
        read(Surroundings {
            arguments: arguments.iter().map(OsString::from).collect(),
            variable: &|_| None,
            directory: PathBuf::from("/srv/kv"),
            standard_input: &mut input.as_bytes(),
        })
    }

    fn settings(arguments: &[&str]) -> Result<Settings, SettingsError> {
        match read_arguments(arguments, "timeout 9\n")? {
            Invocation::Run(sources) => sources.load(),
            other => panic!("expected a run, found {other:?}"),
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        settings(arguments).expect_err("should be refused").to_string()
    }

    #[test]
    fn a_value_follows_its_flag_or_an_equals_sign() {
        assert_eq!(settings(&["--port", "7", "--text-port=8"]).map(|it| (it.port, it.text_port)).ok(), Some((7, 8)));
        assert_eq!(settings(&["--requirepass=--a=b"]).map(|it| it.requirepass).ok(), Some("--a=b".to_owned()));
    }

    #[test]
    fn a_list_takes_the_arguments_up_to_the_next_flag() {
        let several = settings(&["--bind", "127.0.0.1", "::1", "--port", "1"]).expect("valid");
        assert_eq!(several.bind.hosts(), ["127.0.0.1", "::1"]);
        let one = settings(&["--bind", "127.0.0.1 ::1"]).expect("valid");
        assert_eq!(one.bind.hosts(), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn what_the_suite_of_redis_rs_passes_is_accepted() {
        let settings = settings(&[
            "--save",
            "",
            "--logfile",
            "/tmp/it.log",
            "--enable-debug-command",
            "yes",
            "--port",
            "0",
            "--unixsocket",
            "/tmp/it.sock",
            "--tls-port",
            "1",
            "--tls-cert-file",
            "c",
            "--tls-key-file",
            "k",
            "--tls-ca-cert-file",
            "a",
            "--tls-auth-clients",
            "no",
            "--bind",
            "127.0.0.1",
        ])
        .expect("valid");
        assert_eq!(settings.enable_debug_command, LocalAccess::Yes);
        assert_eq!(find("tls-port").map(|named| named.get(&settings)), Some("1".to_owned()));
        assert_eq!(find("save").map(|named| named.get(&settings)), Some(String::new()));
    }

    #[test]
    fn a_first_argument_without_dashes_is_the_file_and_one_dash_the_standard_input() {
        let Ok(Invocation::Run(sources)) = read_arguments(&["kv.conf", "--port", "1"], "") else { panic!("a run") };
        assert_eq!(sources.file, Some(FirstFile::Path(PathBuf::from("/srv/kv/kv.conf"))));
        assert_eq!(settings(&["-", "--port", "1"]).map(|it| (it.port, it.timeout)).ok(), Some((1, 9)));
    }

    #[test]
    fn a_flag_of_yes_or_no_alone_says_yes() {
        assert_eq!(settings(&["--daemonize", "--port", "1"]).map(|it| it.daemonize).ok(), Some(true));
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_named() {
        assert_eq!(
            refusal(&["--port", "x"]),
            "command line: port: expected a whole number from 0 to 65535, found \"x\""
        );
        assert!(refusal(&["--port"]).ends_with("found nothing"));
        assert!(refusal(&["--port", "1", "2"]).ends_with("found 2 words"));
        assert!(refusal(&["-x"]).contains("expected --name value, found \"-x\""));
        assert!(refusal(&["--"]).contains("expected the name of a setting"));
        assert!(refusal(&["--max_conections", "1"]).contains("did you mean max_connections?"));
    }

    #[test]
    fn flags_that_are_no_settings_are_told_apart() {
        for (arguments, expected) in [
            (vec!["--help"], Invocation::Help),
            (vec!["-h"], Invocation::Help),
            (vec!["--version"], Invocation::Version),
            (vec!["-v"], Invocation::Version),
            (vec!["--example-file"], Invocation::ExampleFile),
        ] {
            assert_eq!(read_arguments(&arguments, "").ok(), Some(expected), "{arguments:?}");
        }
        let read = |arguments: &[&str]| read_arguments(arguments, "").expect("valid");
        assert!(matches!(read(&["--check", "data"]), Invocation::Check(_, path) if path == Path::new("/srv/kv/data")));
        let Invocation::Inspect(sources, path) = read(&["--inspect=/x", "--block-file", "b"]) else {
            panic!("inspect")
        };
        assert_eq!((path, sources.arguments.len()), ("/x".into(), 1));
        for (arguments, yes) in [(&["--repair", "/x"][..], false), (&["--yes", "--repair", "/x", "--port", "1"], true)]
        {
            let Invocation::Repair(_, repair) = read(arguments) else { panic!("{arguments:?}") };
            assert_eq!(repair, RepairArguments { directory: "/x".into(), yes });
        }
        for arguments in [
            &["--repair"][..],
            &["--yes"],
            &["--check", "x", "--yes"],
            &["--check", "x", "--repair", "x"],
            &["--repair", "x", "--restore", "y"],
        ] {
            assert!(read_arguments(arguments, "").is_err(), "{arguments:?}");
        }
        let targets = [
            (vec!["--to-time", "2026-11-20T10:15:00Z"], Target::TimeMs(1_795_169_700_000)),
            (vec!["--to-version=77"], Target::Version(Version(77))),
            (vec![], Target::Newest),
        ];
        for (more, target) in targets {
            let arguments = [vec!["--restore", "base.bowline", "--port", "7"], more].concat();
            let Ok(Invocation::Restore(_, restore)) = read_arguments(&arguments, "") else { panic!("{arguments:?}") };
            assert_eq!(restore, RestoreArguments { snapshot: "/srv/kv/base.bowline".into(), target });
        }
        for arguments in [
            vec!["--restore"],
            vec!["--to-version", "7"],
            vec!["--restore", "x", "--to-time", "now"],
            vec!["--restore", "x", "--to-version", "-1"],
            vec!["--restore", "x", "--to-version", "1", "--to-time", "2026-11-20T10:15:00Z"],
        ] {
            assert!(read_arguments(&arguments, "").is_err(), "{arguments:?}");
        }
        assert!(read_arguments(&["--check"], "").is_err());
        assert!(read_arguments(&["--help", "me"], "").is_err());
    }
}
