//! One row for each setting, and how a name finds its row.
//!
//! Flags, files, the environment, CONFIG GET and SET, the help, the example file and the documentation are all derived
//! from these rows. The rows themselves stand in [`super::rows`]; names of Redis that mean nothing here stand in
//! [`super::remembered`].

use super::rows::{ROWS, Settings};
use super::values::{Kind, Problem};

/// When a setting may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Only when the server starts.
    Start,
    /// At any time, by CONFIG SET or a reload of the file.
    Live,
}

/// Another name for a setting, with words of its own where they differ.
#[derive(Debug, Clone, Copy)]
pub struct Alias {
    /// The other name.
    pub name: &'static str,
    /// Pairs of a word under this name and the same under the setting's own name.
    pub words: &'static [(&'static str, &'static str)],
}

impl Alias {
    pub(super) const fn of(name: &'static str) -> Alias {
        Alias { name, words: &[] }
    }
}

/// Where a setting's value lives.
#[derive(Clone, Copy)]
pub(super) enum Binding {
    /// In a field of [`Settings`].
    Field { get: fn(&Settings) -> String, set: fn(&mut Settings, &Kind, &str) -> Result<(), Problem> },
    /// Beside the fields, by its name: it has no effect.
    Remembered,
}

/// One row of the table.
pub struct Setting {
    /// Its own name, which is its flag without the dashes.
    pub name: &'static str,
    /// Its other names.
    pub aliases: &'static [Alias],
    /// The heading it stands under in the documentation.
    pub section: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as a text.
    pub default: &'static str,
    /// When it may change.
    pub changes: Changes,
    /// One sentence.
    pub summary: &'static str,
    pub(super) binding: Binding,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Setting").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Setting {
    /// Whether it has an effect, or is only remembered for tools that set it.
    pub fn has_effect(&self) -> bool {
        matches!(self.binding, Binding::Field { .. })
    }

    /// Its value as a text.
    pub fn get(&self, settings: &Settings) -> String {
        match self.binding {
            Binding::Field { get, .. } => get(settings),
            Binding::Remembered => {
                settings.remembered.get(self.name).map_or_else(|| self.default.to_owned(), String::clone)
            }
        }
    }

    /// Takes over a value; a value of parts takes over the parts that are named.
    ///
    /// # Errors
    /// What is wrong with `text`; nothing has changed then.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), Problem> {
        match self.binding {
            Binding::Field { set, .. } => set(settings, &self.kind, text),
            Binding::Remembered => {
                let value = self.kind.canonical(text)?;
                if value == self.default {
                    settings.remembered.remove(self.name);
                } else {
                    settings.remembered.insert(self.name, value);
                }
                Ok(())
            }
        }
    }
}

/// A row as one of its names reaches it.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// The row.
    pub setting: &'static Setting,
    /// The name.
    pub name: &'static str,
    words: &'static [(&'static str, &'static str)],
}

impl Named {
    /// The value in the words of this name.
    pub fn get(&self, settings: &Settings) -> String {
        let value = self.setting.get(settings);
        match self.words.iter().find(|(_, own)| *own == value) {
            Some((word, _)) => (*word).to_owned(),
            None => value,
        }
    }

    /// Takes over a value in the words of this name.
    ///
    /// # Errors
    /// As [`Setting::set`].
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), Problem> {
        let word = self.words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        self.setting.set(settings, word.map_or(text, |(_, own)| own))
    }
}

/// All rows: first those that have an effect, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    ROWS.iter().chain(super::remembered::ROWS)
}

/// Every name with its row: the row's own name first, then its aliases.
pub fn names() -> impl Iterator<Item = Named> {
    all().flat_map(|setting| {
        let own = Named { setting, name: setting.name, words: &[] };
        let others = setting.aliases.iter().map(move |alias| Named { setting, name: alias.name, words: alias.words });
        std::iter::once(own).chain(others)
    })
}

/// Finds the row a name belongs to. Upper and lower case are the same, and so are `-` and `_`.
pub fn find(name: &str) -> Option<Named> {
    names().find(|named| same_name(named.name, name))
}

fn same_name(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.bytes().map(folded).eq(right.bytes().map(folded))
}

/// A byte of a name with its differences in spelling taken away.
pub(super) fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// The known name that an unknown one most resembles, if it is near enough to have been meant.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    // A name that is longer than any known one by more than the limit resembles none.
    if name.len() > 64 {
        return None;
    }
    let distance = |named: &Named| edit_distance(named.name.as_bytes(), name.as_bytes());
    let nearest = names().map(|named| (distance(&named), named.name)).min_by_key(|(distance, _)| *distance)?;
    (nearest.0 <= 1 + name.len() / 4).then_some(nearest.1)
}

/// How many bytes must be put in, taken out or exchanged to make one name of the other (Levenshtein).
fn edit_distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (done, left_byte) in left.iter().enumerate() {
        let mut diagonal = done;
        let mut last = done + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(last);
        for (above, right_byte) in row.iter().skip(1).zip(right) {
            let exchanged = diagonal + usize::from(folded(*left_byte) != folded(*right_byte));
            last = exchanged.min(last + 1).min(above + 1);
            diagonal = *above;
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_finds_its_own_row() {
        let mut seen = HashSet::new();
        for named in names() {
            let folded_name: Vec<u8> = named.name.bytes().map(folded).collect();
            assert!(seen.insert(folded_name), "{} is there twice", named.name);
            assert_eq!(find(named.name).map(|found| found.setting.name), Some(named.setting.name));
        }
        assert!(seen.len() > 200, "only {} names", seen.len());
    }

    #[test]
    fn every_default_is_accepted_and_written_as_it_stands() {
        for named in names().filter(|named| named.setting.kind != Kind::Directive) {
            let mut settings = Settings::default();
            let text = named.get(&settings);
            assert_eq!(named.set(&mut settings, &text), Ok(()), "{}", named.name);
            assert_eq!(named.get(&settings), text, "{}", named.name);
            assert_eq!(settings, Settings::default(), "{}", named.name);
        }
    }

    #[test]
    fn every_bound_of_a_range_fits_the_field_it_is_for() {
        for setting in all() {
            let (min, max) = match setting.kind {
                Kind::Integer { min, max }
                | Kind::PowerOfTwo { min, max }
                | Kind::Bytes { min, max }
                | Kind::BytesOrAuto { min, max } => (min, max),
                _ => continue,
            };
            for bound in [min, max] {
                let mut settings = Settings::default();
                assert_eq!(setting.set(&mut settings, &bound.to_string()), Ok(()), "{} {bound}", setting.name);
                assert_eq!(setting.get(&settings), bound.to_string(), "{}", setting.name);
            }
        }
    }

    #[test]
    fn every_row_with_an_effect_has_a_sentence() {
        for setting in ROWS {
            assert!(setting.summary.ends_with('.') && setting.summary.len() > 10, "{}", setting.name);
            assert!(setting.summary.len() <= 220, "{} says too much", setting.name);
        }
    }

    #[test]
    fn case_and_the_kind_of_dash_do_not_matter() {
        assert_eq!(find("MAX-Connections").map(|named| named.name), Some("max_connections"));
        assert_eq!(find("LogLevel").map(|named| named.name), Some("loglevel"));
        assert!(find("max connections").is_none());
        assert!(find("").is_none());
    }

    #[test]
    fn redis_and_bowline_words_for_durability_mean_the_same() {
        let mut settings = Settings::default();
        for (name, text, durability, appendfsync, sync_wal) in [
            ("sync_wal", "no", "none", "no", "no"),
            ("sync_wal", "YES", "always", "always", "yes"),
            ("appendfsync", "no", "none", "no", "no"),
            ("appendfsync", "everysec", "everysec", "everysec", "everysec"),
            ("durability", "always", "always", "always", "yes"),
        ] {
            find(name).expect("known").set(&mut settings, text).expect("valid");
            let shown = ["durability", "appendfsync", "sync_wal"].map(|name| find(name).expect("known").get(&settings));
            assert_eq!(shown, [durability, appendfsync, sync_wal], "after {name} {text}");
        }
    }

    #[test]
    fn a_mistyped_name_finds_the_one_that_was_meant() {
        assert_eq!(similar("prot"), Some("port"));
        assert_eq!(similar("porrt"), Some("port"));
        assert_eq!(similar("max_conections"), Some("max_connections"));
        assert_eq!(similar("durabilty"), Some("durability"));
        assert_eq!(similar("something-else-entirely"), None);
    }
}
