//! BL.BACKUP without sockets: when it waits, what it answers, when it ends.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::session::limits::{BACKUP_IDLE_SECONDS_MAX, BACKUPS_MAX};

impl Talk {
    /// Sends a request and lets the session go on whenever what it waits for may be there.
    fn finish(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        while self.session.waits() == Waits::Checkpoint {
            std::thread::yield_now();
            self.session.stop_waiting();
            self.session.resume(&mut self.bench);
        }
        let commit = self.bench.server.commit();
        let reply = self.session.output(commit).to_vec();
        self.session.sent(reply.len());
        reply
    }

    /// Begins a backup of one key; the checkpoint that it waits for comes at once.
    fn begin_backup(&mut self) -> String {
        self.ask(b"SET key value\r\n");
        self.send(b"BL.BACKUP BEGIN\r\n");
        assert_eq!(self.session.waits(), Waits::Checkpoint, "the checkpoint has not come yet");
        self.bench.server.store().checkpoint().unwrap();
        String::from_utf8(self.finish(b"")).unwrap()
    }

    fn running(&self) -> u64 {
        self.bench.server.backups.running.load(Relaxed)
    }
}

#[test]
fn a_backup_waits_for_its_checkpoint_and_is_read_piece_by_piece_to_an_empty_one() {
    let mut talk = talk();
    let begun = talk.begin_backup();
    assert!(begun.starts_with("*10\r\n$2\r\nid\r\n:1\r\n$7\r\nversion\r\n:"), "{begun}");
    assert!(begun.contains("$7\r\nentries\r\n:1\r\n"), "{begun}");
    let mut pieces = 0;
    while talk.finish(b"BL.BACKUP READ 1\r\n") != b"$0\r\n\r\n" {
        pieces += 1;
    }
    assert_eq!(pieces, 3, "header, records, end");
    assert_eq!(talk.finish(b"BL.BACKUP READ 1\r\n"), b"$0\r\n\r\n", "the end stays the end");
    assert_eq!(talk.finish(b"BL.BACKUP END 1\r\n"), b"+OK\r\n");
    assert!(talk.finish(b"BL.BACKUP END 1\r\n").starts_with(b"-ERR this connection has no backup"));
    assert_eq!(talk.running(), 0);
}

#[test]
fn a_backup_that_nobody_reads_ends() {
    let mut talk = talk();
    talk.begin_backup();
    let begun_ms = talk.bench.now_ms;
    talk.session.end_idle_backup(begun_ms + BACKUP_IDLE_SECONDS_MAX * 1000);
    assert_eq!(talk.running(), 1);
    talk.session.end_idle_backup(begun_ms + BACKUP_IDLE_SECONDS_MAX * 1000 + 1);
    assert_eq!(talk.running(), 0);
    assert!(talk.finish(b"BL.BACKUP READ 1\r\n").starts_with(b"-ERR this connection has no backup"));
}

#[test]
fn a_backup_ends_with_its_connection() {
    let mut talk = talk();
    talk.begin_backup();
    let Talk { session, bench, .. } = talk;
    drop(session);
    assert_eq!(bench.server.backups.running.load(Relaxed), 0);
}

#[test]
fn only_so_many_backups_run_at_a_time() {
    let mut talk = talk();
    talk.bench.server.backups.running.store(BACKUPS_MAX, Relaxed);
    assert!(talk.begin_backup().starts_with("-ERR 4 backups are running"));
    assert_eq!(talk.running(), BACKUPS_MAX);
}
