//! Commands that read a whole database one segment after another, so that nobody waits for more than one segment's worth.
//!
//! ```text
//!  hold segment 0, look, let go -> hold segment 1, look, let go -> ... -> the reply waits for the last version of all
//! ```
//!
//! Every segment is seen at a moment of its own. A key that is in the database all the time is shown, and one that is shown
//! was there at some moment; what is shown was never there all at once, if others write meanwhile. What the last version
//! assigned covers after the last segment covers all that was seen before, present and missing. In a transaction the same
//! commands see one moment, as a unit does (`unit`).

use super::{Executor, Planned, Replies, Request, TransactionEnd, context, finish, run_one};
use crate::command::{CommandError, Flags};
use crate::keyspace::SegmentSet;
use crate::log::Admission;

/// Whether a command is one of these.
pub(super) fn is_by_segment(planned: &Planned) -> bool {
    planned.command.info.flags.has(Flags::BY_SEGMENT)
}

impl Executor {
    /// Runs one such command that is not part of a transaction.
    pub(super) fn run_by_segment(
        &mut self,
        request: &Request<'_>,
        planned: &Planned,
        replies: &mut Replies,
    ) -> TransactionEnd {
        let store = self.store.clone();
        let start = replies.end();
        loop {
            // Nothing is held: the view takes a segment at a time.
            let mut hold = store.keyspace().hold(SegmentSet::EMPTY, SegmentSet::EMPTY);
            let mut context = context(&store, request, &[], self.told.random);
            let told = (&mut self.told, &mut *replies);
            let outcome = run_one(planned, request, &mut hold, &mut context, &mut self.pending, told);
            if outcome == Err(CommandError::MetExpired) {
                replies.rollback(start);
                match store.remove_due_everywhere(request.now_ms) {
                    Ok(_) => continue,
                    Err(Admission::DiskFull | Admission::Poisoned) => {
                        replies.writer(request.caller.protocol).error(&store.no_room_text());
                        return TransactionEnd::Done;
                    }
                    Err(Admission::Wait | Admission::Admitted) => return TransactionEnd::Room,
                }
            }
            let (depends, own_version_at) = self.told.note(context);
            let depends = depends.max(store.log().last_version());
            finish(store.log(), request, &mut hold, &mut self.pending, (depends, &own_version_at), start, replies);
            return TransactionEnd::Done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, Caller, Durability, Request, context};
    use super::*;
    use crate::command::View;
    use crate::store::{Options, Store};
    use bowline_resp::Protocol;
    use std::ops::ControlFlow;

    #[test]
    fn no_other_segment_is_held_while_one_is_shown() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut options = Options::new(directory.path());
        (options.segments, options.threads) = (8, false);
        let store = Store::open(options).expect("a new store");
        (0..100u8).for_each(|number| _ = store.put(&[number], b"value").expect("a put"));
        let keyspace = store.keyspace();
        let caller =
            Caller { database: 0, protocol: Protocol::Resp2, level: Durability::Always, no_touch: false, waited: 0 };
        let arguments = Arguments { buffer: &[], ranges: &[], chunked: &[] };
        let request = Request { caller: &caller, arguments, databases: &[], now_ms: store.now_ms() };
        let hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::EMPTY);
        let mut context = context(&store, &request, &[], 1);
        let mut keys = 0;
        let shown = View { hold: &hold, context: &mut context }.visit_tables(0, |segment, table| {
            keys += table.entries().len();
            // Would wait for ever if the view held any of them.
            drop(keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment().without(SegmentSet::one(segment))));
            ControlFlow::Continue(())
        });
        assert_eq!((shown, keys), (Ok(()), 100));
    }
}
