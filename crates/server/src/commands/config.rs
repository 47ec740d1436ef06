//! CONFIG: the settings table over the wire.

use bowline::command::{Arity, Flags};

use super::row::{Call, ServerCommand, container, help};

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

fn get(call: &mut Call<'_>) {
    let patterns = texts(call, 2).unwrap_or_default();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let found = call.bench.server.settings.get_matching(&patterns);
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
    let settings = &call.bench.server.settings;
    let unknown = |at: &usize| match std::str::from_utf8(call.args.at(*at)) {
        Ok(name) => settings.get_matching(&[name]).is_empty(),
        Err(_) => true,
    };
    if let Some(index) = (2..call.args.len()).step_by(2).find(unknown) {
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
