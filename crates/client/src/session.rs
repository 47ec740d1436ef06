//! What a connection was told that a new connection would not know.
//!
//! When the client connects again by itself, the new connection must mean the same: the same database, user, durability
//! level. Every answered command that sets one of these is remembered here and told to the next connection. MULTI and
//! WATCH cannot be carried over: they end with their connection, and the caller is told so instead of being reconnected
//! silently, because an EXEC after a lost WATCH would no longer be guarded.

use bowline_resp::Value;

use crate::command::capitals;

/// What a connection was told so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// The last request for each kind of setting, in the order to repeat them.
    settings: Vec<(&'static str, Vec<Vec<u8>>)>,
    /// Settings within a MULTI that has not been executed yet.
    queued: Vec<(&'static str, Vec<Vec<u8>>)>,
    in_multi: bool,
    watching: bool,
}

impl Session {
    /// Takes note of a request and its answer.
    pub(crate) fn observe<A: AsRef<[u8]>>(&mut self, args: &[A], reply: &Value) {
        let refused = matches!(reply, Value::Error(_));
        let name = capitals(args.first());
        match name.as_str() {
            "MULTI" if !refused => self.in_multi = true,
            "WATCH" if !refused => self.watching = true,
            "UNWATCH" if !refused && !self.in_multi => self.watching = false,
            "DISCARD" if !refused => self.end_transaction(),
            "EXEC" => {
                let queued = std::mem::take(&mut self.queued);
                if !refused && *reply != Value::Null {
                    queued.into_iter().for_each(|(kind, args)| self.remember(kind, args));
                }
                self.end_transaction();
            }
            "RESET" if !refused => *self = Session::default(),
            _ if refused => {}
            _ => {
                if let Some(kind) = setting_kind(&name, args) {
                    let args = args.iter().map(|argument| argument.as_ref().to_vec()).collect();
                    if self.in_multi { self.queued.push((kind, args)) } else { self.remember(kind, args) }
                }
            }
        }
    }

    fn remember(&mut self, kind: &'static str, args: Vec<Vec<u8>>) {
        self.settings.retain(|(known, _)| *known != kind);
        self.settings.push((kind, args));
    }

    /// The requests that make a new connection mean the same.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &[Vec<u8>]> {
        self.settings.iter().map(|(_, args)| args.as_slice())
    }

    /// The database that a SELECT asked for last.
    pub(crate) fn database(&self) -> Option<u32> {
        let (_, args) = self.settings.iter().find(|(kind, _)| *kind == "SELECT")?;
        std::str::from_utf8(args.get(1)?).ok()?.parse().ok()
    }

    /// MULTI was answered, and EXEC or DISCARD not yet.
    pub(crate) fn in_multi(&self) -> bool {
        self.in_multi
    }

    /// A transaction is open or prepared, which ends with the connection.
    pub(crate) fn holds_transaction(&self) -> bool {
        self.in_multi || self.watching
    }

    /// Forgets MULTI and WATCH, as the server does when the connection ends.
    pub(crate) fn end_transaction(&mut self) {
        self.in_multi = false;
        self.watching = false;
        self.queued.clear();
    }

    /// True when a fresh connection would mean the same.
    pub(crate) fn is_fresh(&self) -> bool {
        *self == Session::default()
    }
}

/// Which setting of the connection a request changes, if any; a later request of the same kind replaces an earlier one.
fn setting_kind<A: AsRef<[u8]>>(name: &str, args: &[A]) -> Option<&'static str> {
    match name {
        "AUTH" => Some("AUTH"),
        "BL.DURABILITY" if args.len() > 1 => Some("BL.DURABILITY"),
        "HELLO" if args.len() > 1 => Some("HELLO"),
        "SELECT" => Some("SELECT"),
        "READONLY" | "READWRITE" => Some("READONLY"),
        "CLIENT" => match capitals(args.get(1)).as_str() {
            "SETNAME" => Some("CLIENT SETNAME"),
            "NO-EVICT" => Some("CLIENT NO-EVICT"),
            "NO-TOUCH" => Some("CLIENT NO-TOUCH"),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok() -> Value {
        Value::Simple("OK".to_owned())
    }

    fn told(session: &Session) -> Vec<String> {
        session.settings().map(|args| String::from_utf8_lossy(&args.join(&b' ')).into_owned()).collect()
    }

    #[test]
    fn the_last_request_of_each_kind_is_repeated() {
        let mut session = Session::default();
        session.observe(&["select", "3"], &ok());
        session.observe(&["BL.DURABILITY", "everysec"], &ok());
        session.observe(&["SELECT", "5"], &ok());
        session.observe(&["SELECT", "99"], &Value::Error("ERR DB index is out of range".to_owned()));
        assert_eq!(told(&session), ["BL.DURABILITY everysec", "SELECT 5"]);
        assert_eq!(session.database(), Some(5));
    }

    #[test]
    fn a_select_within_multi_counts_only_once_it_is_executed() {
        let mut session = Session::default();
        let queued = Value::Simple("QUEUED".to_owned());
        session.observe(&["MULTI"], &ok());
        session.observe(&["SELECT", "2"], &queued);
        assert!(session.in_multi() && session.database().is_none());
        session.observe(&["EXEC"], &Value::Array(vec![ok()]));
        assert!(!session.in_multi());
        assert_eq!(session.database(), Some(2));

        session.observe(&["MULTI"], &ok());
        session.observe(&["SELECT", "7"], &queued);
        session.observe(&["DISCARD"], &ok());
        assert_eq!(session.database(), Some(2));
    }

    #[test]
    fn a_watch_lasts_until_exec_and_reset_forgets_all() {
        let mut session = Session::default();
        session.observe(&["WATCH", "k"], &ok());
        assert!(session.holds_transaction());
        session.observe(&["MULTI"], &ok());
        session.observe(&["EXEC"], &Value::Null);
        assert!(!session.holds_transaction());
        session.observe(&["SELECT", "1"], &ok());
        session.observe(&["RESET"], &Value::Simple("RESET".to_owned()));
        assert!(session.is_fresh());
    }
}
