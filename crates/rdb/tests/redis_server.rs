//! A file of ours, loaded by redis-server, saved by it again, and read back. Passed over where redis-server is missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bowline_rdb::{Entry, Item, Reader, Writer};
use bowline_resp::encode_request;

/// A redis-server on a directory of its own; ended when it is dropped.
struct RedisServer {
    process: Child,
    socket: PathBuf,
}

impl RedisServer {
    /// `None` where it is not installed.
    fn start(directory: &Path) -> Option<Self> {
        let socket = directory.join("redis.sock");
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let printed: Vec<String> =
            lines.map_while(Result::ok).take_while(|line| !line.contains("eady to accept connections")).collect();
        let server = RedisServer { process, socket };
        assert!(server.socket.exists(), "redis-server did not load the file: {printed:#?}");
        Some(server)
    }

    fn connect(&self) -> Client {
        Client { stream: BufReader::new(UnixStream::connect(&self.socket).expect("a connection")) }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// The bytes of a string, or the text of any other answer.
    fn ask(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = Vec::new();
        encode_request(&mut request, args);
        self.stream.get_mut().write_all(&request).expect("a request");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        let Some(length) = line.strip_prefix('$') else { return line.trim_end().as_bytes().to_vec() };
        let length: usize = length.trim_end().parse().expect("the key is there");
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).expect("an answer");
        bytes.truncate(length);
        bytes
    }
}

/// Bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..length).map(|_| step(&mut state)).collect()
}

fn entries() -> Vec<Entry> {
    let values: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        (0..=255).collect(),
        b"0".to_vec(),
        b"-128".to_vec(),
        b"32767".to_vec(),
        b"-2147483648".to_vec(),
        b"2147483648".to_vec(),
        b"007".to_vec(),
        b"ab".repeat(30_000),
        noise(63),
        noise(64),
        noise(16_384),
        noise(1 << 20),
        [noise(20_000), noise(20_000)].concat(),
    ];
    let mut entries = Vec::new();
    for database in [0, 5, 15] {
        for (place, value) in values.iter().enumerate() {
            let key = if place == 0 { b"12".to_vec() } else { format!("key \u{e9} {place}").into_bytes() };
            let expires_at_ms = (place % 3 == 1).then_some(4_102_444_800_000 + place as i64);
            entries.push(Entry { database, key, value: value.clone(), expires_at_ms });
        }
    }
    entries
}

fn write(entries: &[Entry], path: &Path) {
    let mut writer = Writer::new(std::fs::File::create(path).expect("a file")).expect("a file");
    for (name, value) in [("redis-ver", "7.0.0"), ("redis-bits", "64"), ("ctime", "1795000000"), ("made-by", "a test")]
    {
        writer.auxiliary(name, value).expect("a file");
    }
    let mut database = None;
    for entry in entries {
        if database != Some(entry.database) {
            database = Some(entry.database);
            let mine = entries.iter().filter(|other| other.database == entry.database);
            writer.database(entry.database).expect("a file");
            writer
                .sizes(mine.clone().count() as u64, mine.filter(|other| other.expires_at_ms.is_some()).count() as u64)
                .expect("a file");
        }
        writer.entry(&entry.key, &entry.value, entry.expires_at_ms).expect("a file");
    }
    writer.finish().expect("a file");
}

fn read(path: &Path) -> Vec<Entry> {
    let file = BufReader::new(std::fs::File::open(path).expect("a file"));
    let items = Reader::new(file).expect("a header").map(|item| item.expect("a whole file"));
    let mut entries: Vec<Entry> =
        items.filter_map(|item| if let Item::Entry(entry) = item { Some(entry) } else { None }).collect();
    entries.sort_by(|one, other| (one.database, &one.key).cmp(&(other.database, &other.key)));
    entries
}

#[test]
fn redis_loads_what_is_written_here_and_the_other_way_round() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dump.rdb");
    let mut expected = entries();
    write(&expected, &path);
    let Some(server) = RedisServer::start(directory.path()) else {
        eprintln!("redis-server is not installed: nothing was compared");
        return;
    };
    let mut client = server.connect();
    for entry in &expected {
        client.ask(&[b"SELECT", entry.database.to_string().as_bytes()]);
        assert!(client.ask(&[b"GET", &entry.key]) == entry.value, "the value of {:?}", entry.key);
        let expiry = entry.expires_at_ms.unwrap_or(-1);
        assert_eq!(client.ask(&[b"PEXPIRETIME", &entry.key]), format!(":{expiry}").into_bytes());
        assert_eq!(client.ask(&[b"DBSIZE"]), b":14");
    }
    std::fs::remove_file(&path).expect("our file");
    assert_eq!(client.ask(&[b"SAVE"]), b"+OK");
    expected.sort_by(|one, other| (one.database, &one.key).cmp(&(other.database, &other.key)));
    assert!(read(&path) == expected, "what Redis saved is what was written");
}
