//! The settings in force, and how they change while the server runs.
//!
//! Readers take a snapshot (an `Arc`) and keep it as long as [`SettingsStore::generation`] stands still. Writers prepare
//! a changed copy, check all of it, and only then put it in place: a request changes everything it names, or nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::error::{Place, SettingsError, WrongValue, shown_value};
use super::rows::Settings;
use super::sources::{FirstFile, Sources, check};
use super::table::{Changes, Named, all, find, names, similar};
use super::values::Kind;
use super::{glob, rewrite};

type Subscriber = Box<dyn Fn(&Settings) + Send + Sync>;

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Settings that have a new value now.
    pub changed: Vec<&'static str>,
    /// Settings whose new value counts from the next start on.
    pub needs_restart: Vec<&'static str>,
}

/// The settings in force.
pub struct SettingsStore {
    current: RwLock<Arc<Settings>>,
    generation: AtomicU64,
    subscribers: RwLock<Vec<Subscriber>>,
    /// What the sources gave when they were last read. Whoever holds this lock may change settings.
    loaded: Mutex<Settings>,
    sources: Sources,
}

impl SettingsStore {
    /// Reads the sources and puts what they give in force.
    ///
    /// # Errors
    /// The first thing that is wrong, with the place where it was given.
    pub fn load(sources: Sources) -> Result<SettingsStore, SettingsError> {
        let settings = sources.load()?;
        Ok(SettingsStore {
            current: RwLock::new(Arc::new(settings.clone())),
            generation: AtomicU64::new(1),
            subscribers: RwLock::new(Vec::new()),
            loaded: Mutex::new(settings),
            sources,
        })
    }

    /// The settings as they are now. Cost: a read lock for a moment, and one counter.
    pub fn current(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read())
    }

    /// A number that rises with every change. Who sees a new one finds at least that change in [`Self::current`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file the server was started with.
    pub fn file(&self) -> Option<&Path> {
        match &self.sources.file {
            Some(FirstFile::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// Has `changed` called after every change, on the thread that made it. It must not change settings itself.
    pub fn subscribe(&self, changed: Subscriber) {
        self.subscribers.write().push(changed);
    }

    /// CONFIG SET: changes all the settings named, or none. Returns the own names of those that have another value now.
    ///
    /// # Errors
    /// An unknown name, a name twice, a setting that is fixed at the start, a wrong value.
    pub fn set(&self, pairs: &[(&str, &str)]) -> Result<Vec<&'static str>, SettingsError> {
        let _may_change = self.loaded.lock();
        let before = self.current();
        let mut after = Settings::clone(&before);
        let mut given = BTreeSet::new();
        for &(name, text) in pairs {
            let Some(named) = find(name).filter(|named| named.setting.kind != Kind::Directive) else {
                let (place, name, similar) = (Place::Request, name.to_owned(), similar(name));
                return Err(SettingsError::Unknown { place, name, similar });
            };
            if named.setting.changes == Changes::Start {
                return Err(SettingsError::Fixed { name: name.to_owned() });
            }
            if !given.insert(named.setting.name) {
                return Err(SettingsError::Duplicate { name: name.to_owned() });
            }
            named.set(&mut after, text).map_err(|problem| WrongValue {
                place: Place::Request,
                name: name.to_owned(),
                expected: named.setting.kind.expected(),
                found: shown_value(text),
                problem,
            })?;
        }
        check(&after).map_err(|conflict| conflict.at(Place::Request))?;
        let changed = differing(&before, &after).collect();
        self.put(after);
        Ok(changed)
    }

    /// CONFIG REWRITE: writes the settings in force into the file the server was started with. Comments and lines that
    /// are right stay as they are. The file is replaced in one step and is on disk when this returns.
    ///
    /// # Errors
    /// Without a file, and when it cannot be written; the old file is unchanged then.
    pub fn rewrite(&self) -> Result<(), SettingsError> {
        let Some(path) = self.file() else { return Err(SettingsError::NoFile) };
        let _may_change = self.loaded.lock();
        rewrite::rewrite(&self.sources, path, &self.current())
    }

    /// Reads the sources again. What they give differently than the last time is put in force, where that is possible
    /// without a restart; what CONFIG SET changed in the meantime stays, unless the sources changed it too.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, SettingsError> {
        let mut loaded = self.loaded.lock();
        let fresh = self.sources.load()?;
        let mut after = Settings::clone(&self.current());
        let mut reloaded = Reloaded::default();
        for name in differing(&loaded, &fresh) {
            let Some(named) = find(name) else { continue };
            let value = named.get(&fresh);
            if named.setting.changes == Changes::Start {
                if named.get(&after) != value {
                    reloaded.needs_restart.push(name);
                }
                continue;
            }
            if named.get(&after) != value {
                let wrong = |problem| WrongValue {
                    place: Place::Default,
                    name: name.to_owned(),
                    expected: named.setting.kind.expected(),
                    found: shown_value(&value),
                    problem,
                };
                named.set(&mut after, &value).map_err(wrong)?;
                reloaded.changed.push(name);
            }
        }
        // Fixed settings keep their old value in force, so this checks the mixture that will be.
        check(&after).map_err(|conflict| conflict.at(Place::Default))?;
        *loaded = fresh;
        self.put(after);
        Ok(reloaded)
    }

    fn put(&self, settings: Settings) {
        let settings = Arc::new(settings);
        *self.current.write() = Arc::clone(&settings);
        self.generation.fetch_add(1, Ordering::Release);
        for subscriber in self.subscribers.read().iter() {
            subscriber(&settings);
        }
    }
}

/// The own names of the settings that differ.
pub(super) fn differing<'a>(left: &'a Settings, right: &'a Settings) -> impl Iterator<Item = &'static str> + 'a {
    all().filter(|setting| setting.get(left) != setting.get(right)).map(|setting| setting.name)
}

impl Settings {
    /// CONFIG GET: the names that match any of the patterns, with their values, each once, in the order of the table.
    /// Paths are shown absolute.
    pub fn matching(&self, patterns: &[&str]) -> Vec<(String, String)> {
        let shown = |named: &Named| named.setting.kind != Kind::Directive;
        let asked = |named: &Named| patterns.iter().any(|pattern| glob::matches(pattern, named.name));
        let pair = |named: Named| (named.name.to_owned(), shown_in_full(&named, self));
        names().filter(shown).filter(asked).map(pair).collect()
    }
}

fn shown_in_full(named: &Named, settings: &Settings) -> String {
    let value = named.get(settings);
    if named.setting.kind != Kind::Path || value.is_empty() || settings.base.as_os_str().is_empty() {
        return value;
    }
    settings.placed(Path::new(&value)).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn store(text: &str) -> SettingsStore {
        let file = Some(FirstFile::StandardInput(text.as_bytes().to_vec()));
        SettingsStore::load(Sources { file, base: "/srv".into(), ..Sources::default() }).expect("valid")
    }

    fn value(store: &SettingsStore, name: &str) -> String {
        match store.current().matching(&[name]).as_slice() {
            [(_, value)] => value.clone(),
            other => panic!("expected one {name}, found {other:?}"),
        }
    }

    #[test]
    fn get_answers_every_name_that_matches_once() {
        let store = store("");
        let pairs = store.current().matching(&["max*ions", "maxclients", "MAXCLIENTS"]);
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["max_connections", "maxclients"]);
        assert!(store.current().matching(&["nothing-like-it"]).is_empty());
        assert!(store.current().matching(&["*"]).len() > 200);
        assert!(store.current().matching(&["user"]).is_empty(), "a line of redis.conf that is no setting");
    }

    #[test]
    fn paths_are_shown_absolute() {
        assert_eq!(value(&store(""), "dir"), "/srv/data");
        assert_eq!(value(&store("dir /x"), "dir"), "/x");
        assert_eq!(value(&store(""), "logfile"), "");
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let store = store("");
        let before = store.generation();
        let error = store.set(&[("timeout", "5"), ("maxclients", "0")]).expect_err("out of range");
        assert!(error.reply().contains("'maxclients') - argument must be between 1 and 4294967295 inclusive"));
        assert_eq!((value(&store, "timeout"), store.generation()), ("0".to_owned(), before));

        let changed = store.set(&[("timeout", "5"), ("hz", "10"), ("maxclients", "77")]).expect("valid");
        assert_eq!(changed, ["max_connections", "timeout"], "hz had this value before");
        assert_eq!((store.current().timeout, store.current().max_connections), (5, 77));
        assert!(store.generation() > before);
    }

    #[test]
    fn refusals_are_worded_as_redis_words_them() {
        let store = store("");
        for (pairs, reply) in [
            (vec![("nosuch", "1")], "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
            (vec![("user", "x")], "ERR Unknown option or number of arguments for CONFIG SET - 'user'"),
            (
                vec![("daemonize", "yes")],
                "ERR CONFIG SET failed (possibly related to argument 'daemonize') - can't set immutable config",
            ),
            (
                vec![("timeout", "1"), ("TIMEOUT", "2")],
                "ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter",
            ),
            (
                vec![("timeout", "abc")],
                "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer",
            ),
            (
                vec![("timeout", "-1")],
                "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive",
            ),
            (
                vec![("maxmemory", "1kk")],
                "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory or percent value",
            ),
            (
                vec![("protected-mode", "1")],
                "ERR CONFIG SET failed (possibly related to argument 'protected-mode') - argument must be 'yes' or 'no'",
            ),
            (
                vec![("appendonly", "maybe")],
                "ERR CONFIG SET failed (possibly related to argument 'appendonly') - argument must be 'yes' or 'no'",
            ),
            (
                vec![("save", "abc")],
                "ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters",
            ),
            (
                vec![("client-output-buffer-limit", "abc")],
                "ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Wrong number of arguments in buffer limit configuration.",
            ),
        ] {
            assert_eq!(store.set(&pairs).expect_err("refused").reply(), reply);
        }
    }

    #[test]
    fn what_the_valkey_suite_overrides_is_accepted_and_returned() {
        let store = store("");
        for (name, text) in [
            ("hash-max-listpack-entries", "512"),
            ("list-max-listpack-size", "-1"),
            ("zset-max-ziplist-entries", "0"),
            ("stream-node-max-entries", "1"),
            ("notify-keyspace-events", "KEA"),
            ("maxmemory", "200000"),
            ("lua-time-limit", "100"),
            ("save", ""),
            ("appendonly", "yes"),
        ] {
            store.set(&[(name, text)]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(value(&store, name), text, "{name}");
        }
        assert_eq!(value(&store, "zset-max-listpack-entries"), "0", "two names of one setting");
    }

    #[test]
    fn subscribers_are_told_after_the_change() {
        let store = store("");
        let seen = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&seen);
        store.subscribe(Box::new(move |settings| shared.store(settings.timeout as usize, Ordering::Relaxed)));
        store.set(&[("timeout", "5")]).expect("valid");
        assert_eq!(seen.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_reload_takes_over_what_changed_in_the_file_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.conf");
        fs::write(&path, "timeout 1\nport 7000\n").expect("written");
        let sources = Sources { file: Some(FirstFile::Path(path.clone())), ..Sources::default() };
        let store = SettingsStore::load(sources).expect("valid");
        store.set(&[("maxclients", "50")]).expect("valid");

        fs::write(&path, "timeout 2\nport 7001\n").expect("written");
        let reloaded = store.reload().expect("valid");
        assert_eq!(reloaded, Reloaded { changed: vec!["timeout"], needs_restart: vec!["port"] });
        let current = store.current();
        assert_eq!((current.timeout, current.port, current.max_connections), (2, 7000, 50));
        assert_eq!(store.reload().expect("valid"), Reloaded::default());
    }

    #[test]
    fn a_reload_of_a_wrong_file_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.conf");
        fs::write(&path, "timeout 1\n").expect("written");
        let store = SettingsStore::load(Sources { file: Some(FirstFile::Path(path.clone())), ..Sources::default() });
        let store = store.expect("valid");
        fs::write(&path, "timeout 2\nmaxclients nobody\n").expect("written");
        let message = store.reload().expect_err("wrong").to_string();
        assert!(message.contains("kv.conf:2: maxclients: expected"), "{message}");
        assert_eq!(store.current().timeout, 1);
    }
}
