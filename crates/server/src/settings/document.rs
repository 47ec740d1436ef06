//! What people read about the settings, derived from the table: the help, the example file, the table of the README.

use std::fmt::Write;

use super::table::{Changes, Setting, all};
use super::values::{Kind, short_bytes};

/// The settings that have an effect.
fn documented() -> impl Iterator<Item = &'static Setting> {
    all().filter(|setting| setting.has_effect())
}

/// The default as a person writes it.
fn default_text(setting: &Setting) -> String {
    match (setting.kind, setting.default.parse()) {
        (Kind::Bytes { .. }, Ok(bytes)) => short_bytes(bytes),
        _ => setting.default.to_owned(),
    }
}

fn other_names(setting: &Setting, separator: &str) -> String {
    let names: Vec<&str> = setting.aliases.iter().map(|alias| alias.name).collect();
    names.join(separator)
}

/// The text of `kv_server --help`.
pub fn help() -> String {
    let mut text = String::from(
        "\
kv_server: a key-value store that speaks the Redis protocol and keeps every acknowledged write

usage: kv_server [FILE.conf | -] [--name value | --name=value ...]
       kv_server --check DIR|FILE  verify a data directory, a backup or an archive, change nothing
       kv_server --restore FILE [--to-time 2026-11-20T10:15:00Z | --to-version N] --dir DIR [--archive-dir DIR]
                                   make a data directory from a backup and the archive, and end
       kv_server --inspect DIR     print what the block file is used for (a block file may be given too)
       kv_server --repair DIR [--yes]  say what is damaged and what would be lost, ask, then make of everything that can
                                   be read a new store in its place; the old files are kept as *.damaged-TIME
       kv_server --example-file    print a settings file with every setting at its default
       kv_server --settings-table  print the settings as a table in Markdown
       kv_server --help | --version

--check, --inspect and --repair take the settings that say where files are: --block-file, --wal_directory, --archive-dir.

Every setting can stand in the file (name=value, or name value as in redis.conf) and on the command line.
Flags rule over the environment (KV_HOST: bind, KV_PORT: port, KV_VERBOSE: loglevel), that over the file.
Settings of Redis that mean nothing here are accepted and have no effect.
",
    );
    let mut section = "";
    for setting in documented() {
        if setting.section != section {
            section = setting.section;
            text.push_str(&format!("\n{section}\n"));
        }
        let default = default_text(setting);
        let default = if default.is_empty() { "none".to_owned() } else { default };
        let live = if setting.changes == Changes::Live { "; CONFIG SET" } else { "" };
        let mut names = String::new();
        if !setting.aliases.is_empty() {
            names = format!("; also {}", other_names(setting, ", "));
        }
        let line = format!("  --{}\n      {} [{default}{live}{names}]\n", setting.name, setting.summary);
        text.push_str(&line);
    }
    text.push_str(
        "
signals: TERM, INT  answer what was read, close, end with 0; a second one ends at once
         HUP        read the settings again and open the message file anew
         USR1, USR2 tell more, tell less

exit codes: 0 all is well; 1 the start failed; 2 wrong arguments or settings; 3 another process uses the directory
            4 damage was found; 5 a repair was not agreed to; 74 the storage failed (a write or a sync)
",
    );
    text
}

/// A settings file with every setting at its default, commented out.
pub fn example_file() -> String {
    let mut text = String::from(
        "\
# Settings of kv_server. Every line that begins with # is a comment; the values shown are the defaults.
#
# A line is name=value, or name value as in redis.conf. Values with spaces stand in double quotes.
# Sizes may end in kb, mb or gb. 'include FILE' reads another file in its place.
# The environment (KV_HOST, KV_PORT, KV_VERBOSE) and flags (--name value) rule over this file.
# SIGHUP reads it again: settings marked 'live' change at once, the others with the next start.
",
    );
    let mut section = "";
    for setting in documented() {
        if setting.section != section {
            section = setting.section;
            let _ = write!(text, "\n\n# ---- {section} ----\n");
        }
        let live = if setting.changes == Changes::Live { ", live" } else { "" };
        let _ = writeln!(text, "\n# {}\n# ({}{live})", setting.summary, setting.kind.expected());
        if !setting.aliases.is_empty() {
            let _ = writeln!(text, "# Also: {}", other_names(setting, ", "));
        }
        let default = default_text(setting);
        let _ = writeln!(text, "#{}={}", setting.name, if default.is_empty() { "\"\"" } else { default.as_str() });
    }
    text
}

/// The settings as a table in Markdown.
pub fn markdown_table() -> String {
    let mut text = String::from("| setting | default | live | what it does |\n| --- | --- | --- | --- |\n");
    for setting in documented() {
        let default = default_text(setting);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let live = if setting.changes == Changes::Live { "yes" } else { "" };
        let mut names = format!("`{}`", setting.name);
        for alias in setting.aliases {
            let _ = write!(names, ", `{}`", alias.name);
        }
        let _ = writeln!(text, "| {names} | {default} | {live} | {} |", setting.summary);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FirstFile, Settings, Sources};

    #[test]
    fn the_example_file_in_the_repository_is_the_one_of_the_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kv_config.conf");
        let written = std::fs::read_to_string(file).expect("kv_config.conf at the root of the repository");
        assert!(
            written == example_file(),
            "write it anew: cargo run -p bowline-server -- --example-file > kv_config.conf"
        );
    }

    #[test]
    fn the_example_file_gives_the_defaults_also_when_its_lines_are_made_effective() {
        let names: Vec<String> = documented().map(|setting| format!("#{}=", setting.name)).collect();
        let effective: String = example_file()
            .lines()
            .map(|line| {
                let setting = names.iter().any(|name| line.starts_with(name));
                format!("{}\n", if setting { line.trim_start_matches('#') } else { line })
            })
            .collect();
        assert_eq!(effective.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count(), names.len());
        let sources = Sources { file: Some(FirstFile::StandardInput(effective.into_bytes())), ..Sources::default() };
        assert_eq!(sources.load().expect("valid"), Settings::default());
    }

    #[test]
    fn help_and_table_name_every_setting_that_has_an_effect() {
        let (help, table) = (help(), markdown_table());
        for setting in documented() {
            assert!(help.contains(&format!("--{}\n", setting.name)), "{}", setting.name);
            assert!(table.contains(&format!("`{}`", setting.name)), "{}", setting.name);
        }
    }
}
