//! The words on the command line.
//!
//! Options stand before the first word that is none. Everything after it belongs to the command, also when it begins
//! with a dash, so that `kv_client put key "$value"` is right for every value.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bowline_client::{Address, DEFAULT_PORT, Event, Options, Protocol, Retry};
use clap::{ArgAction, Args, Parser, ValueEnum};

use crate::bench::{Distribution, Mix};
use crate::failure::Failure;

const WORDS: &str = "\
Commands:
  put KEY VALUE    set a key (with -x: VALUE is read from stdin)   prints OK
  get KEY          print the value of a key                        exit 1 if there is none
  delete KEY       remove a key                                    exit 1 if there is none
  exists KEY       print true or false                             exit 1 if false
  size             print the number of keys of the database
  ping             print PONG
  flush            delete EVERY key of the database in use (-n), at once
  stats            print the server's figures
  test             write, read and delete a temporary key, and check each answer
  backup FILE|-    write a verified backup of the server; see: kv_client backup --help
  export FILE|-    write the server's state as an RDB for Redis; see: kv_client export --help
  bench            measure the server; see: kv_client bench --help
  import PATH      load Redis' files (.rdb, .aof, appendonlydir, - for stdin); see: kv_client import --help
  any other word   is sent as a command, for instance: kv_client incr counter
Without a word: a prompt on a terminal; from a pipe, one command per line (kv_client < commands.txt).

Exit codes: 0 done, 1 not found, 2 wrong usage, 3 no clear answer from the server, 4 the server answered with an error.

Environment: KV_HOST, KV_PORT, KV_PASSWORD, KV_VERBOSE (1 tells connection attempts and timings), KV_HISTORY (file).";

/// Talks to Bowline, or to any server with the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "kv_client", version, disable_help_flag = true, after_help = WORDS, args_override_self = true)]
#[command(override_usage = "kv_client [OPTIONS] [COMMAND [ARGUMENT]...]")]
pub(crate) struct Arguments {
    /// Read the last argument of the command from stdin, any bytes up to its end
    #[arg(short = 'x')]
    pub(crate) value_from_stdin: bool,
    /// Print bytes as they are; `get` then adds no newline
    #[arg(long, conflicts_with_all = ["json", "no_raw"])]
    pub(crate) raw: bool,
    /// Print as for a terminal, with types and quotes, also into a pipe
    #[arg(long)]
    pub(crate) no_raw: bool,
    /// Print JSON; bytes that are no text become {"base64": "..."}
    #[arg(long, conflicts_with = "no_raw")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) words: Vec<OsString>,
}

/// How to reach the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArguments {
    /// Where the server listens: host:port, `[ipv6]:port` or unix:/path; wins over -h, -p and the environment
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<Address>,
    /// Host, when --server is not given [default: 127.0.0.1]
    #[arg(short = 'h', long, env = "KV_HOST")]
    host: Option<String>,
    /// Port, when --server is not given [default: 6379]
    #[arg(short = 'p', long, env = "KV_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// UNIX socket of the server; wins over host and port
    #[arg(short = 's', long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Password; better in KV_PASSWORD, because other users can see the command line
    #[arg(short = 'a', long, env = "KV_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// User name that belongs to the password
    #[arg(long)]
    user: Option<String>,
    /// Number of the database
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    database: u32,
    /// When a write is answered (BL.DURABILITY); default: as the server is set
    #[arg(long)]
    durability: Option<Durability>,
    /// Speak RESP2, in which maps come as flat lists
    #[arg(short = '2', long, conflicts_with = "resp3")]
    resp2: bool,
    /// Speak RESP3 (the default, where the server knows it)
    #[arg(short = '3', long)]
    resp3: bool,
    /// Longest silence while waiting for an answer, in seconds; 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    /// Longest time for one attempt to connect, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    connect_timeout: f64,
    /// Further attempts to connect, and to repeat a lost read
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u32,
    /// Tell connection attempts and timings on stderr
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print help
    #[arg(long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

impl ConnectionArguments {
    /// The same for the library.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let address = match (&self.socket, &self.server) {
            (Some(path), _) => Address::Unix(path.clone()),
            (None, Some(server)) => server.clone(),
            (None, None) => Address::Tcp {
                host: self.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned()),
                port: self.port.unwrap_or(DEFAULT_PORT),
            },
        };
        if self.user.is_some() && self.password.is_none() {
            return Err(Failure::Usage("--user needs a password: give -a or KV_PASSWORD".to_owned()));
        }
        let timeout = (self.timeout > 0.0).then(|| Duration::from_secs_f64(self.timeout));
        Ok(Options {
            address,
            user: self.user.clone(),
            password: self.password.clone(),
            database: self.database,
            setup: self
                .durability
                .iter()
                .map(|level| vec!["BL.DURABILITY".to_owned(), level.word().to_owned()])
                .collect(),
            protocol: if self.resp2 { Protocol::Resp2 } else { Protocol::Resp3 },
            connect_timeout: Duration::from_secs_f64(self.connect_timeout.max(0.001)),
            read_timeout: timeout,
            write_timeout: timeout,
            retry: Retry { retries: self.retries, ..Retry::default() },
        })
    }

    /// The database that was asked for.
    pub(crate) fn database(&self) -> u32 {
        self.database
    }

    /// Whether the flag or the environment asks for attempts and timings.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose || std::env::var_os("KV_VERBOSE").is_some_and(|value| !value.is_empty() && value != "0")
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0 to 1000000000".to_owned()),
    }
}

/// Measures a server: many connections, one or more threads, latencies from an HDR histogram.
#[derive(Debug, Parser)]
#[command(
    name = "kv_client bench",
    bin_name = "kv_client bench",
    version,
    disable_help_flag = true,
    args_override_self = true
)]
pub(crate) struct BenchArguments {
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the latency plot as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Title of the plot and the report
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
}

/// Where a stream of the server goes, and how fast.
#[derive(Debug, Args)]
pub(crate) struct DownloadArguments {
    /// The file to write; - for stdout
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Most bytes per second, such as 50mb
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
}

/// Writes a backup of the server into a file: its state at one moment, while it goes on serving. The file gets its name
/// only when it was read back and every checksum is right.
#[derive(Debug, Parser)]
#[command(
    name = "kv_client backup",
    bin_name = "kv_client backup",
    version,
    disable_help_flag = true,
    args_override_self = true
)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    pub(crate) download: DownloadArguments,
}

/// Writes the server's state of one moment into an RDB, which Redis from 7.0 on and Valkey load, while it goes on serving.
/// All databases, values and expiries are in it. The file gets its name only when it was read back.
#[derive(Debug, Parser)]
#[command(
    name = "kv_client export",
    bin_name = "kv_client export",
    version,
    disable_help_flag = true,
    args_override_self = true
)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) download: DownloadArguments,
}

const IMPORT: &str = "\
Strings with their expiries go into the databases they come from and replace what is there. A file is checked as a whole
before its first key is sent; what comes from a pipe cannot be. Entries that have expired are left out. A last command
that is cut off is left out and told, as Redis does. When a connection is lost, the import stops: an RDB may be imported
again, an append-only file only into an empty server.

Exit codes: 0 imported, 2 wrong usage or a file that cannot be read, 3 the connection was lost, 4 the server refused
something or cannot hold it.

Examples:
  kv_client import /var/lib/redis/dump.rdb
  kv_client import /var/lib/redis/appendonlydir
  redis-cli -h old --rdb - | kv_client import -";

/// Loads the files of a Redis or Valkey server into the running server.
#[derive(Debug, Parser)]
#[command(
    name = "kv_client import",
    bin_name = "kv_client import",
    version,
    disable_help_flag = true,
    args_override_self = true,
    after_help = IMPORT
)]
pub(crate) struct ImportArguments {
    /// An RDB, an append-only file, an appendonlydir or its manifest; - reads an RDB or an append-only file from stdin
    pub(crate) path: PathBuf,
    /// Leave out what the server cannot hold (lists, hashes, unknown commands, ...) and name it; without this, the first
    /// of it ends the import
    #[arg(long)]
    pub(crate) skip_unsupported: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
}

/// What load to make.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArguments {
    /// Connections in all
    #[arg(short = 'c', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) connections: u32,
    /// Threads of this program; connections are spread over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// Requests that a connection sends before it waits for answers
    #[arg(short = 'P', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) pipeline: u32,
    /// Bytes of a value
    #[arg(short = 'd', long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=512 * 1024 * 1024))]
    pub(crate) value_bytes: u32,
    /// Bytes of a key
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) key_bytes: u32,
    /// Different keys
    #[arg(short = 'r', long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) keys: u64,
    /// Which keys are used how often: uniform, or `zipf[:EXPONENT]` (a few keys get most requests)
    #[arg(long, default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// Commands and their weights; of get, set, delete, exists, incr, append, strlen, ping
    #[arg(long, default_value = "get:90,set:10")]
    pub(crate) mix: Mix,
    /// Requests per second in all; latency then counts from when a request should have been sent (no coordinated
    /// omission). Without it, each connection sends again as soon as it is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How long to measure [default: 10]
    #[arg(long, conflicts_with = "requests", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// How many requests to send in all, instead of --seconds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// Seconds of load before the measuring starts
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Set every key once before measuring
    #[arg(long)]
    pub(crate) fill: bool,
    /// Seed of the random choices; the same seed makes the same requests
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// After it is on disk.
    Always,
    /// At once; on disk within a second.
    Everysec,
    /// At once; on disk some time.
    None,
}

impl Durability {
    /// The word the server knows.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Durability::Always => "always",
            Durability::Everysec => "everysec",
            Durability::None => "none",
        }
    }
}

/// A number of bytes with a unit, as the server's settings take it: kb = 1024, k = 1000.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return Err("must be a number of bytes such as 50mb".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "must be a number of bytes above 0, such as 50mb".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("must be a number of requests per second from 0.001 to 1000000000".to_owned()),
    }
}

/// Prints what happened on the way to an answer.
pub(crate) fn tell(event: &Event<'_>) {
    match event {
        Event::Connecting { address, attempt } => eprintln!("kv_client: connecting to {address} (attempt {attempt})"),
        Event::Connected { address, protocol, took } => {
            eprintln!("kv_client: connected to {address} in {took:.1?}, {protocol:?}");
        }
        Event::Retrying { error, wait } => eprintln!("kv_client: {error}; next attempt in {wait:.1?}"),
        Event::Answered { command, requests: 1, took } => eprintln!("kv_client: {command} answered in {took:.1?}"),
        Event::Answered { command, requests, took } => {
            eprintln!("kv_client: {requests} requests from {command} on answered in {took:.1?}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        BenchArguments::command().debug_assert();
        ImportArguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_first_word_is_never_an_option() {
        let arguments = Arguments::parse_from(["kv_client", "--raw", "put", "-k", "--json", "--", "-x"]);
        assert!(arguments.raw && !arguments.json && !arguments.value_from_stdin);
        assert_eq!(arguments.words, ["put", "-k", "--json", "--", "-x"]);
    }

    #[test]
    fn the_server_flag_wins_over_host_and_port() {
        let given = ["kv_client", "--server=db:7000", "-h", "other", "-p", "1", "ping"];
        let options = Arguments::parse_from(given).connection.options().expect("options");
        assert_eq!(options.address, Address::Tcp { host: "db".to_owned(), port: 7000 });
    }

    #[test]
    fn a_user_without_a_password_is_wrong_usage() {
        let arguments = Arguments::parse_from(["kv_client", "--user", "ada", "ping"]);
        if std::env::var_os("KV_PASSWORD").is_none() {
            assert!(matches!(arguments.connection.options(), Err(Failure::Usage(_))));
        }
    }
}
