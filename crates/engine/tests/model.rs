//! Random commands on a store and on a `BTreeMap`: after each step, and after reopening, both hold the same.

mod support;

use bowline::Store;
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{HandClock, Session, options};

#[derive(Clone, Debug)]
enum Step {
    Set { key: u8, value: String, lifetime_ms: Option<u64> },
    Delete { key: u8 },
    Append { key: u8, value: String },
    SetRange { key: u8, offset: usize },
    Increment { key: u8, by: i64 },
    Expire { key: u8, lifetime_ms: u64 },
    Persist { key: u8 },
    Rename { from: u8, to: u8 },
    Copy { from: u8, to: u8, database: u32 },
    Move { key: u8, database: u32 },
    Select { database: u32 },
    FlushDatabase,
    FlushAll,
    Swap,
    Wait { ms: u64 },
    Transaction { keys: Vec<u8> },
    FlushInTransaction { key: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u8..12;
    let value = || prop_oneof!["[a-z]{0,40}", "-?[1-9][0-9]{0,6}", "[x]{300,400}"];
    prop_oneof![
        8 => (key(), value(), proptest::option::of(1u64..300))
            .prop_map(|(key, value, lifetime_ms)| Step::Set { key, value, lifetime_ms }),
        2 => key().prop_map(|key| Step::Delete { key }),
        2 => (key(), value()).prop_map(|(key, value)| Step::Append { key, value }),
        1 => (key(), prop_oneof![9 => 0usize..100, 1 => 60_000usize..200_000])
            .prop_map(|(key, offset)| Step::SetRange { key, offset }),
        3 => (key(), -100i64..100).prop_map(|(key, by)| Step::Increment { key, by }),
        2 => (key(), 0u64..300).prop_map(|(key, lifetime_ms)| Step::Expire { key, lifetime_ms }),
        1 => key().prop_map(|key| Step::Persist { key }),
        2 => (key(), key()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => (key(), key(), 0u32..3).prop_map(|(from, to, database)| Step::Copy { from, to, database }),
        1 => (key(), 0u32..3).prop_map(|(key, database)| Step::Move { key, database }),
        1 => (0u32..3).prop_map(|database| Step::Select { database }),
        1 => Just(Step::FlushDatabase),
        1 => Just(Step::FlushAll),
        1 => Just(Step::Swap),
        2 => (1u64..200).prop_map(|ms| Step::Wait { ms }),
        1 => proptest::collection::vec(key(), 0..5).prop_map(|keys| Step::Transaction { keys }),
        1 => key().prop_map(|key| Step::FlushInTransaction { key }),
        1 => Just(Step::Reopen),
    ]
}

type Entry = (Vec<u8>, Option<u64>);

/// What the store should hold: by database and key, value and expiry.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(u32, String), Entry>,
    database: u32,
    now_ms: u64,
}

impl Model {
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        self.entries.retain(|_, (_, at)| at.is_none_or(|at| at > now_ms));
    }

    fn at(&self, key: u8) -> (u32, String) {
        (self.database, name(key))
    }

    fn apply(&mut self, step: &Step) {
        self.expire();
        match step {
            Step::Set { key, value, lifetime_ms } => {
                let at = lifetime_ms.map(|ms| self.now_ms + ms);
                self.entries.insert(self.at(*key), (value.clone().into_bytes(), at));
            }
            Step::Delete { key } => {
                self.entries.remove(&self.at(*key));
            }
            Step::Append { key, value } => {
                self.entries.entry(self.at(*key)).or_default().0.extend_from_slice(value.as_bytes());
            }
            Step::SetRange { key, offset } => {
                let old = &mut self.entries.entry(self.at(*key)).or_default().0;
                old.resize(old.len().max(offset + 2), 0);
                old[*offset..offset + 2].copy_from_slice(b"<>");
            }
            Step::Increment { key, by } => self.increment(*key, *by),
            Step::Expire { key, lifetime_ms } => {
                let at = self.now_ms + lifetime_ms;
                if let Some((_, expiry)) = self.entries.get_mut(&(self.database, name(*key))) {
                    *expiry = Some(at);
                }
            }
            Step::Persist { key } => {
                if let Some((_, expiry)) = self.entries.get_mut(&(self.database, name(*key))) {
                    *expiry = None;
                }
            }
            Step::Rename { from, to } => self.rename(self.at(*from), self.at(*to), true),
            Step::Copy { from, to, database } => {
                let to = (*database, name(*to));
                if let Some(entry) = self.entries.get(&self.at(*from)).cloned()
                    && to != self.at(*from)
                {
                    self.entries.insert(to, entry);
                }
            }
            Step::Move { key, database } => self.rename(self.at(*key), (*database, name(*key)), false),
            Step::Select { database } => self.database = *database,
            Step::FlushDatabase => self.entries.retain(|(database, _), _| *database != self.database),
            Step::FlushAll => self.entries.clear(),
            Step::Swap => {
                let swapped = |database: u32| [1, 0, 2][database as usize];
                let entries = std::mem::take(&mut self.entries);
                self.entries = entries.into_iter().map(|((db, key), entry)| ((swapped(db), key), entry)).collect();
            }
            Step::Wait { ms } => self.now_ms += ms,
            Step::Transaction { keys } => keys.iter().for_each(|key| self.increment(*key, 1)),
            Step::FlushInTransaction { key } => {
                self.entries.clear();
                self.increment(*key, 1);
            }
            Step::Reopen => {}
        }
        self.expire();
    }

    fn increment(&mut self, key: u8, by: i64) {
        let at = self.at(key);
        let old = self.entries.get(&at).map_or(Some(0), |(value, _)| {
            let text = std::str::from_utf8(value).ok()?;
            text.parse::<i64>().ok().filter(|number| number.to_string() == text)
        });
        if let Some(new) = old.and_then(|old| old.checked_add(by)) {
            self.entries.entry(at).or_default().0 = new.to_string().into_bytes();
        }
    }

    fn rename(&mut self, from: (u32, String), to: (u32, String), replace: bool) {
        if from != to
            && (replace || !self.entries.contains_key(&to))
            && let Some(entry) = self.entries.remove(&from)
        {
            self.entries.insert(to, entry);
        }
    }
}

fn name(key: u8) -> String {
    format!("key:{key}")
}

fn command(step: &Step) -> Option<String> {
    Some(match step {
        Step::Set { key, value, lifetime_ms: None } => format!("set {} {}", name(*key), word(value)),
        Step::Set { key, value, lifetime_ms: Some(ms) } => format!("set {} {} px {ms}", name(*key), word(value)),
        Step::Delete { key } => format!("del {}", name(*key)),
        Step::Append { key, value } => format!("append {} {}", name(*key), word(value)),
        Step::SetRange { key, offset } => format!("setrange {} {offset} <>", name(*key)),
        Step::Increment { key, by } => format!("incrby {} {by}", name(*key)),
        Step::Expire { key, lifetime_ms } => format!("pexpire {} {lifetime_ms}", name(*key)),
        Step::Persist { key } => format!("persist {}", name(*key)),
        Step::Rename { from, to } => format!("rename {} {}", name(*from), name(*to)),
        Step::Copy { from, to, database } => format!("copy {} {} db {database} replace", name(*from), name(*to)),
        Step::Move { key, database } => format!("move {} {database}", name(*key)),
        Step::FlushDatabase => "flushdb".to_owned(),
        Step::FlushAll => "flushall".to_owned(),
        Step::Swap => "swapdb 0 1".to_owned(),
        Step::Select { .. } | Step::Wait { .. } | Step::Reopen => return None,
        Step::Transaction { .. } | Step::FlushInTransaction { .. } => return None,
    })
}

fn word(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

/// Everything in the store, read through commands.
fn contents(session: &mut Session) -> BTreeMap<(u32, String), Entry> {
    let own = session.caller.database;
    let mut contents = BTreeMap::new();
    for database in 0..3 {
        session.caller.database = database;
        let size = session.run(&["dbsize"]);
        let before = contents.len();
        for key in (0..12).map(name) {
            let value = session.run(&[&format!("get {key}")]);
            let Some((_, value)) = value.split_once("\r\n").filter(|_| value != "$-1\r\n") else { continue };
            let expiry = session.run(&[&format!("pexpiretime {key}")]);
            let at = expiry.trim_start_matches(':').trim_end().parse::<i64>().expect("a number");
            contents.insert((database, key), (value[..value.len() - 2].into(), u64::try_from(at).ok()));
        }
        assert_eq!(size, format!(":{}\r\n", contents.len() - before), "DBSIZE of database {database}");
    }
    session.caller.database = own;
    contents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_store_does_what_a_map_does(steps in proptest::collection::vec(step(), 1..80)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = HandClock::at(1_700_000_000_000);
        let mut session = Session::new(&Store::open(options(directory.path(), &clock)).expect("a new store"));
        let mut model = Model { now_ms: 1_700_000_000_000, ..Model::default() };
        for step in &steps {
            match (step, command(step)) {
                (_, Some(command)) => {
                    session.run(&[&command]);
                }
                (Step::Select { database }, _) => session.caller.database = *database,
                (Step::Wait { ms }, _) => clock.advance(*ms),
                (Step::Transaction { keys }, _) => {
                    let commands: Vec<String> = keys.iter().map(|key| format!("incr {}", name(*key))).collect();
                    session.transaction(&commands.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
                }
                (Step::FlushInTransaction { key }, _) => {
                    let change = format!("incr {}", name(*key));
                    session.transaction(&[&change, &format!("del {}", name(*key)), "flushall", &change], &[]);
                }
                (Step::Reopen, _) => {
                    let database = session.caller.database;
                    let store = session.store.clone();
                    drop(session);
                    store.close().expect("a close");
                    session = Session::new(&Store::open(options(directory.path(), &clock)).expect("the same store"));
                    session.caller.database = database;
                }
                _ => unreachable!("every other step is a command"),
            }
            model.apply(step);
        }
        prop_assert_eq!(&contents(&mut session), &model.entries);
        let store = session.store.clone();
        drop(session);
        store.close().expect("a close");
        let mut session = Session::new(&Store::open(options(directory.path(), &clock)).expect("the same store"));
        prop_assert_eq!(&contents(&mut session), &model.entries);
    }
}
