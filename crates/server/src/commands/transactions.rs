//! MULTI, EXEC, DISCARD, WATCH, UNWATCH: the words; what they do to a session is in `session::transaction`.

use bowline::command::{Arity, Flags, Group, KeyPositions};

use super::row::{Call, ServerCommand};

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new("multi", Arity::Exactly(1), "", "Begins a transaction.", multi)
        .of(Group::Transactions)
        .flags(Flags::FAST)
        .at_once(),
    ServerCommand::new("exec", Arity::Exactly(1), "", "Runs the transaction.", exec)
        .of(Group::Transactions)
        .needs_data()
        .at_once(),
    ServerCommand::new("discard", Arity::Exactly(1), "", "Drops the transaction.", discard)
        .of(Group::Transactions)
        .flags(Flags::FAST)
        .at_once(),
    ServerCommand::new(
        "watch",
        Arity::AtLeast(2),
        "key [key ...]",
        "Makes the next transaction depend on the keys staying unchanged.",
        watch,
    )
    .of(Group::Transactions)
    .flags(Flags::FAST.with(Flags::NO_MULTI))
    .keys(KeyPositions::EVERY)
    .needs_data()
    .at_once(),
    ServerCommand::new("unwatch", Arity::Exactly(1), "", "Forgets the watched keys.", unwatch)
        .of(Group::Transactions)
        .flags(Flags::FAST),
];

fn multi(call: &mut Call<'_>) {
    if call.session.begin_transaction() {
        call.reply().ok();
    } else {
        call.error("ERR MULTI calls can not be nested");
    }
}

fn exec(call: &mut Call<'_>) {
    call.session.exec(call.bench);
}

fn discard(call: &mut Call<'_>) {
    if call.session.in_transaction() {
        call.session.discard();
        call.reply().ok();
    } else {
        call.error("ERR DISCARD without MULTI");
    }
}

fn watch(call: &mut Call<'_>) {
    if call.session.in_transaction() {
        return call.error("ERR WATCH inside MULTI is not allowed");
    }
    if !call.session.load_watched(call.bench, call.args.from(1).iter()) {
        return;
    }
    for key in call.args.from(1).iter() {
        if !call.session.watch(call.bench, key) {
            return call.error("ERR too many keys are watched: UNWATCH, or EXEC first");
        }
    }
    call.reply().ok();
}

fn unwatch(call: &mut Call<'_>) {
    call.session.unwatch();
    call.reply().ok();
}
