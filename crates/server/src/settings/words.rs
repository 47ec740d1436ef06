//! The settings whose values are words, each with the enum that the server works with.

use super::values::{Kind, Problem, Value};

/// Defines an enum whose values are words; a word may have further names that are accepted and never written.
macro_rules! words {
    (
        $(#[$about:meta])*
        $type:ident { $( $(#[$variant_about:meta])* $variant:ident = $word:literal $(| $other:literal)* ),* $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $( $(#[$variant_about])* $variant, )* }

        impl $type {
            /// The words as they are written.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl Value for $type {
            fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
                match text.to_ascii_lowercase().as_str() {
                    $( $word $(| $other)* => Ok($type::$variant), )*
                    _ => Err(Problem::NotAWord($type::WORDS)),
                }
            }

            fn render(&self) -> String {
                match self { $( $type::$variant => $word, )* }.to_owned()
            }
        }
    };
}

words! {
    /// When a reply to a write leaves the server.
    Durability {
        /// After the write is on disk.
        Always = "always",
        /// At once; the log is synced every second.
        EverySecond = "everysec",
        /// At once; the log is synced in the background, as far as the system finds time.
        None = "none" | "no",
    }
}

words! {
    /// How values are compressed in the block file.
    Compression {
        /// Not at all.
        None = "none" | "no",
        /// LZ4.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }
}

words! {
    /// When a start brings the data into memory.
    Restart {
        /// Before it serves.
        Eager = "eager",
        /// While it serves: what a command needs at once, the rest in the background.
        Lazy = "lazy",
    }
}

words! {
    /// How much the log tells. Redis's names stand beside ours; each keeps the name it was given.
    LogLevel {
        /// Everything; only in builds for debugging.
        Trace = "trace",
        /// What helps to find an error.
        Debug = "debug",
        /// Redis's name for a little less than debug: taken as debug.
        Verbose = "verbose",
        /// What an operator wants to have read once.
        Info = "info",
        /// Redis's name for info.
        Notice = "notice",
        /// What needs attention.
        Warn = "warn",
        /// Redis's name for warn.
        Warning = "warning",
        /// What failed.
        Error = "error",
        /// Redis's name for silence.
        Nothing = "nothing",
    }
}

words! {
    /// The form of a line in the log.
    LogFormat {
        /// One line of text for each event.
        Text = "text",
        /// One JSON object for each event.
        Json = "json",
    }
}

words! {
    /// Whether a service supervisor is told when the server is ready.
    Supervised {
        /// Never.
        No = "no",
        /// systemd is told; without its socket in the environment that is an error.
        Systemd = "systemd",
        /// systemd is told where it asks for it.
        Auto = "auto",
    }
}

words! {
    /// From where a dangerous command is allowed.
    LocalAccess {
        /// From nowhere.
        No = "no",
        /// From this machine.
        Local = "local",
        /// From everywhere.
        Yes = "yes",
    }
}

words! {
    /// What happens when memory reaches `maxmemory`.
    MaxmemoryPolicy {
        /// Evicts those of the keys that expire which were not used lately.
        VolatileLru = "volatile-lru",
        /// Evicts, of the keys that expire, those used the least over a long time.
        VolatileLfu = "volatile-lfu",
        /// Evicts any of the keys that expire.
        VolatileRandom = "volatile-random",
        /// Evicts the keys that expire next.
        VolatileTtl = "volatile-ttl",
        /// Evicts keys that were not used lately.
        AllkeysLru = "allkeys-lru",
        /// Evicts the keys that were used the least over a long time.
        AllkeysLfu = "allkeys-lfu",
        /// Evicts any keys.
        AllkeysRandom = "allkeys-random",
        /// Refuses writes.
        NoEviction = "noeviction",
        /// Keeps every key; values that were not used lately are in the block file only.
        Tier = "tier",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_others_refused() {
        assert_eq!(MaxmemoryPolicy::parse("TIER", &Kind::Text), Ok(MaxmemoryPolicy::Tier));
        assert!(matches!(MaxmemoryPolicy::parse("lru", &Kind::Text), Err(Problem::NotAWord(_))));
    }

    #[test]
    fn durability_takes_rediss_no_as_none() {
        assert_eq!(Durability::parse("NO", &Kind::Text), Ok(Durability::None));
        assert_eq!(Durability::None.render(), "none");
    }
}
