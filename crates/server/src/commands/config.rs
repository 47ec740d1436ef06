//! CONFIG: the settings table over the wire.

use bowline::command::{Arity, Flags};

use super::row::{Call, ServerCommand, container, help};
use crate::net::accept::connections_accepted;
use crate::settings::limits::PATTERNS_BYTES_MAX;
use crate::settings::{Kind, Settings, SettingsStore, find, names};

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] =
    &[ServerCommand::new("config", Arity::AtLeast(2), "", "Shows and changes settings.", container)
        .flags(Flags::ADMIN.with(Flags::DANGEROUS))
        .container(SUBCOMMANDS)];

const ADMIN: Flags = Flags::ADMIN.with(Flags::DANGEROUS);

static SUBCOMMANDS: &[ServerCommand] = &[
    ServerCommand::new(
        "config|get",
        Arity::AtLeast(3),
        "parameter [parameter ...]",
        "Answers the settings whose names match the patterns.",
        get,
    )
    .flags(ADMIN),
    ServerCommand::new(
        "config|set",
        Arity::AtLeast(4),
        "parameter value [parameter value ...]",
        "Changes settings, all or none.",
        set,
    )
    .flags(ADMIN),
    ServerCommand::new(
        "config|resetstat",
        Arity::Exactly(2),
        "",
        "Sets the counters of INFO to zero.",
        reset_statistics,
    )
    .flags(ADMIN),
    ServerCommand::new("config|rewrite", Arity::Exactly(2), "", "Writes the settings into their file.", rewrite)
        .flags(ADMIN),
    ServerCommand::new("config|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

/// The arguments from `index` on as text; a setting's name or value is never anything else.
fn texts(call: &Call<'_>, index: usize) -> Option<Vec<String>> {
    call.args.from(index).iter().map(|word| std::str::from_utf8(word).ok().map(str::to_owned)).collect()
}

/// The settings as they count: of `max_connections` no more than are accepted.
fn in_force(settings: &SettingsStore) -> Settings {
    let mut shown = Settings::clone(&settings.current());
    shown.max_connections = connections_accepted(shown.max_connections);
    shown
}

fn get(call: &mut Call<'_>) {
    let bytes: usize = call.args.from(2).iter().map(|pattern| pattern.len() + 1).sum();
    if bytes > PATTERNS_BYTES_MAX {
        return call.error(&format!(
            "ERR too many patterns: CONFIG GET takes {PATTERNS_BYTES_MAX} bytes of them at once; ask for fewer, or for *"
        ));
    }
    let patterns = texts(call, 2).unwrap_or_default();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let found = in_force(&call.bench.server.settings).matching(&patterns);
    let mut reply = call.reply();
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn set(call: &mut Call<'_>) {
    if !call.args.len().is_multiple_of(2) {
        return call.syntax_error();
    }
    let unknown = |at: &usize| !std::str::from_utf8(call.args.at(*at)).is_ok_and(is_setting);
    // Of more names than there are, one is a second time: that is found below.
    if let Some(index) = (2..call.args.len()).step_by(2).take(names().count() + 1).find(unknown) {
        return call.error_about("ERR Unknown option or number of arguments for CONFIG SET - '", index, "'");
    }
    let Some(words) = texts(call, 2) else { return call.syntax_error() };
    let pairs: Vec<(&str, &str)> =
        words.chunks_exact(2).filter_map(|pair| Some((pair.first()?.as_str(), pair.last()?.as_str()))).collect();
    match call.bench.server.settings.set(&pairs) {
        Ok(changed) => {
            tracing::info!(settings = changed.join(" "), client = call.session.client.id, "settings changed");
            call.bench.refresh_settings();
            call.reply().ok();
        }
        Err(error) => call.error(&error.reply()),
    }
}

fn is_setting(name: &str) -> bool {
    find(name).is_some_and(|named| named.setting.kind != Kind::Directive)
}

fn reset_statistics(call: &mut Call<'_>) {
    call.bench.server.metrics.reset();
    call.reply().ok();
}

fn rewrite(call: &mut Call<'_>) {
    match call.bench.server.settings.rewrite() {
        Ok(()) => call.reply().ok(),
        Err(error) => call.error(&error.reply()),
    }
}
