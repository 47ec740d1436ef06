//! What the client must know of a command before it sends it.
//!
//! Three questions, each answered from a short table: may it be sent twice, does it wait on purpose, and does it break
//! the rule "one request, one answer". A command that no table names counts as a write: then it is never sent twice,
//! which is always safe. Not here: arity, syntax and summaries; those come from the server (`COMMAND DOCS`).

/// Commands that change nothing, in order, so that a lost answer lets them be sent again.
const READS: &[&str] = &[
    "BITCOUNT",
    "BITFIELD_RO",
    "BITPOS",
    "BL.ENTRY",
    "COMMAND",
    "DBSIZE",
    "DUMP",
    "ECHO",
    "EVALSHA_RO",
    "EVAL_RO",
    "EXISTS",
    "EXPIRETIME",
    "FCALL_RO",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GEOSEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "LCS",
    "LINDEX",
    "LLEN",
    "LOLWUT",
    "LPOS",
    "LRANGE",
    "MGET",
    "OBJECT",
    "PEXPIRETIME",
    "PFCOUNT",
    "PING",
    "PTTL",
    "RANDOMKEY",
    "ROLE",
    "SCAN",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SIZE",
    "SMEMBERS",
    "SMISMEMBER",
    "SORT_RO",
    "SRANDMEMBER",
    "SSCAN",
    "STATS",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TIME",
    "TTL",
    "TYPE",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZDIFF",
    "ZINTER",
    "ZINTERCARD",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
    "ZUNION",
];

/// Subcommands that change nothing, of commands that can also change something.
const READING_SUBCOMMANDS: &[(&str, &str)] = &[
    ("CLIENT", "GETNAME"),
    ("CLIENT", "ID"),
    ("CLIENT", "INFO"),
    ("CLIENT", "LIST"),
    ("CONFIG", "GET"),
    ("LATENCY", "HISTOGRAM"),
    ("LATENCY", "LATEST"),
    ("MEMORY", "USAGE"),
    ("SLOWLOG", "GET"),
    ("SLOWLOG", "LEN"),
];

/// Commands that set up the connection and nothing else; sending them twice is the same as once.
const CONNECTION_SETTINGS: &[&str] = &["AUTH", "BL.DURABILITY", "HELLO", "READONLY", "READWRITE", "SELECT"];

/// Commands that wait for something other than the server's own work, for as long as they were told to.
const BLOCKING: &[&str] = &[
    "BL.BACKUP",
    "BL.SYNC",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "DEBUG",
    "SHUTDOWN",
    "WAIT",
    "WAITAOF",
    "XREAD",
    "XREADGROUP",
];

/// Commands that are answered by a stream of messages or not at all.
const STREAMING: &[&str] = &[
    "MONITOR",
    "PSUBSCRIBE",
    "PSYNC",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
];

/// What the client must know of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Traits {
    /// The command's name in capitals, made printable.
    pub(crate) name: String,
    /// It changes no data, so it may be sent again when its answer is lost.
    pub(crate) repeatable: bool,
    /// It waits on purpose, so silence says nothing.
    pub(crate) blocking: bool,
    /// It does not give exactly one answer, so this client cannot send it.
    pub(crate) streaming: bool,
}

impl Traits {
    /// Looks up the command that `args` call. No arguments give an empty name.
    pub(crate) fn of<A: AsRef<[u8]>>(args: &[A]) -> Traits {
        let name = capitals(args.first());
        let subcommand = capitals(args.get(1));
        let listed = |table: &[&str]| table.contains(&name.as_str());
        let reads_by_subcommand =
            READING_SUBCOMMANDS.iter().any(|(command, sub)| *command == name && *sub == subcommand);
        let silent = name == "CLIENT" && subcommand == "REPLY" && capitals(args.get(2)) != "ON";
        Traits {
            repeatable: READS.binary_search(&name.as_str()).is_ok()
                || listed(CONNECTION_SETTINGS)
                || reads_by_subcommand,
            blocking: listed(BLOCKING),
            streaming: listed(STREAMING) || silent,
            name,
        }
    }
}

/// An argument as printable capitals; missing gives the empty string.
pub(crate) fn capitals<A: AsRef<[u8]>>(argument: Option<&A>) -> String {
    argument.map(|bytes| bytes.as_ref().escape_ascii().to_string().to_ascii_uppercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_reads_is_in_order() {
        assert!(READS.is_sorted());
    }

    #[test]
    fn only_what_changes_nothing_may_be_sent_twice() {
        for args in [&["get", "k"][..], &["CONFIG", "get", "*"], &["SELECT", "1"], &["dbsize"]] {
            assert!(Traits::of(args).repeatable, "{args:?}");
        }
        for args in [
            &["set", "k", "v"][..],
            &["config", "set", "a", "b"],
            &["getdel", "k"],
            &["no-such-command"],
            &["incr", "n"],
        ] {
            assert!(!Traits::of(args).repeatable, "{args:?}");
        }
    }

    #[test]
    fn a_command_without_exactly_one_answer_is_seen() {
        assert!(Traits::of(&["subscribe", "news"]).streaming);
        assert!(Traits::of(&["client", "reply", "off"]).streaming);
        assert!(!Traits::of(&["client", "reply", "on"]).streaming);
        assert!(!Traits::of(&["client", "list"]).streaming);
    }

    #[test]
    fn bytes_in_a_name_are_made_printable() {
        assert_eq!(Traits::of(&[b"\x1b[2J"]).name, "\\X1B[2J");
    }
}
