//! Every limit of the engine, why it is there, and what happens when it is reached.

pub use crate::keyspace::DATABASES_MAX;
use crate::keyspace::checkpoint::TakeLimits;

/// Longest key or value, bytes: lengths are kept in 32 bits and a value must fit in one frame of the log. Settings may
/// lower it. Reached: the command is refused with an error before anything changes.
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Most bytes of effects that one command, batch or transaction may log: they are one frame, held in memory until it is
/// durable. Reached: the whole of it is refused with an error before anything changes.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Most pipelined commands that share one hold of their segments. More would help prefetching little and make other
/// threads wait longer. Reached: the next hold begins.
pub const GROUP_COMMANDS_MAX: usize = 32;

/// Most argument bytes of the commands that share one hold, for the same reason.
pub const GROUP_BYTES_MAX: usize = 64 * 1024;

/// Most expired entries removed in one hold by the background: other commands of the segment wait that long.
pub const EXPIRE_SLICE: usize = 64;

/// Most entries evicted in one hold: each takes a look at some 16 others, so this is about ten microseconds.
pub const EVICT_SLICE: usize = 8;

/// Entries that are compared to find the one that goes. With more of them the oldest are found more surely, and what was
/// used rarely has less time to be used again.
pub const EVICT_WINDOW: usize = 16;

/// Most buckets that are looked at for a full window, once there is a candidate. Reached: the best one so far goes.
pub const EVICT_BUCKETS_MAX: usize = 256;

/// Holds in which a write evicts before it runs itself while memory is over its limit. Reached: the write runs once it has
/// made as much room as it takes, and the background evicts the rest.
pub const EVICT_SLICES: usize = 8;

/// How often the allocator is asked how much memory is in use. What is written in between is counted by the tables.
pub const MEMORY_LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// The same while memory is at its limit, so that what clients and buffers gave back is not evicted for.
pub const MEMORY_LOOK_AT_LIMIT: std::time::Duration = std::time::Duration::from_millis(10);

/// Unused parts of the allocator's pages count as used memory up to this part of what is allocated. Beyond, evicting would go
/// on and on: a page becomes free only when all that lie in it have gone. Entries are moved together instead.
pub const UNUSED_PARTS_COUNTED: usize = 8;

/// From so many bytes of unused parts on, beyond those that count, entries are moved together.
pub const UNUSED_PARTS_MIN: usize = 4 * 1024 * 1024;

/// Entries that are moved in one hold, some ten microseconds.
pub const MOVE_SLICE: usize = 128;

/// Entries over this size are not moved, bytes: they have pages of their own, which they leave to nobody.
pub const MOVE_BYTES_MAX: usize = 8 * 1024;

/// How long entries are moved between two looks at memory: a quarter of a core, while it is needed at all; three times as
/// long while an eighth of the memory or more is wasted.
pub const MOVE_TIME: std::time::Duration = std::time::Duration::from_millis(25);

/// How long it is left at that when all entries were moved and it did not help.
pub const MOVE_PAUSE: std::time::Duration = std::time::Duration::from_secs(30);

/// With the policy "tier" values begin to leave memory when all but this part of the limit is in use.
pub const TIER_STARTS_AT_PART: usize = 32;

/// They go on leaving until this part of the limit is free.
pub const TIER_STOPS_AT_PART: usize = 16;

/// With the policy "tier" a checkpoint begins when this part of the limit was logged since the last one, once half of the
/// limit is in use: only what a checkpoint has published can leave memory.
pub const TIER_CHECKPOINT_PART: usize = 8;

/// Most values that leave memory in one hold of their segment.
pub const TIER_SLICE: usize = 64;

/// Most buckets that are looked at in one hold for values that may leave memory: some ten microseconds. Reached: the next
/// hold goes on there.
pub const TIER_SLICE_BUCKETS: usize = 1024;

/// A value leaves memory if that gives back so many bytes: less is not worth a read. So it has more than 44 bytes, for which
/// Redis has another encoding. A shorter one stays.
pub const TIER_VALUE_BYTES_MIN: usize = 48;

/// Segments in which values are let go to make room for one that is read back. Reached: it comes nevertheless.
pub const TIER_STEPS_FOR_VALUE: usize = 4;

/// Most buckets that are looked at in each of them. Reached: values go that came back before it.
pub const TIER_BUCKETS_FOR_VALUE: usize = 64;

/// Where that found nothing, one in so many values that come back looks again; the others take the place of what came before
/// them at once.
pub const TIER_LOOK_ONE_IN: usize = 16;

/// Most values that came back and go again to make room for others that do, in one hold.
pub const TIER_WARMED_SLICE: usize = 16;

/// Values that came back which each table remembers, 8 bytes for each. Reached: the oldest is forgotten and found like any.
pub const TIER_WARMED_MAX: usize = 1024;

/// Of so many values that came back the least used goes.
pub const TIER_WARMED_WINDOW: usize = 4;

/// While a checkpoint runs and all values were looked at in vain, so many must come back before all are looked at again.
pub const TIER_LOOK_AGAIN_VALUES: u64 = 1024;

/// Threads that read values back from the block file, so many reads at once.
pub const FETCH_THREADS: usize = 8;

/// Most values that one wake-up of a client asks for at once. Reached: the rest is asked for when these are there.
pub const FETCH_VALUES_MAX: usize = 256;

/// Most threads that load entries; fewer where there are fewer cores.
pub const LOAD_THREADS_MAX: usize = 8;

/// Threads more, in a lazy start, that load only what a command waits for, so that it never waits for what nobody wants.
pub const LOAD_WANTED_THREADS: usize = 2;

/// While a checkpoint runs, writers who wait are woken so often, beside those who wait for what was handed to it.
pub const CHECKPOINT_WAKE: std::time::Duration = std::time::Duration::from_millis(5);

/// A value that the system could not read is tried again after so long. Sooner, commands answer with the error.
pub const UNREADABLE_AGAIN: std::time::Duration = std::time::Duration::from_secs(3);

/// A command that has waited for values so often has them left in memory until it has run.
pub const FETCH_URGENT_AFTER: u8 = 2;

/// An entry of this size or more is freed in the background, bytes: returning its pages takes the kernel a while.
pub const FREE_LATER_BYTES: usize = 64 * 1024;

/// Room kept in the last log file for removals, bytes: when the disk is full, deletes must still be possible.
pub const LOG_RESERVE_BYTES: u64 = 1024 * 1024;

/// When a small frame proves to a later recovery that the last commit was durable, if nothing else follows. Short, because
/// until then a rotten last frame looks like a torn one; not shorter, so that a busy log writes none.
pub const LOG_MARK_AFTER: std::time::Duration = std::time::Duration::from_millis(5);

/// Most bytes of the reply to one command or transaction. Reached: the command is answered with an error in its place.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Most bytes of effects in one hold of the background's removal of expired entries. A single longer key gets more.
pub const EXPIRE_SLICE_BYTES: usize = 16 * 1024;

/// How much of a segment a checkpoint copies in one hold: commands on the segment wait that long, some ten microseconds.
pub const CHECKPOINT_SLICE: TakeLimits = TakeLimits { entries: 128, bytes: 64 * 1024 };

/// How long the checkpoint's thread works before it asks whether somebody else waits for its core. A system does not take a
/// core away from a thread that has just got it, whatever their priorities, for up to a few milliseconds: a client's command
/// would wait as long.
pub const CHECKPOINT_TURN: std::time::Duration = std::time::Duration::from_micros(50);

/// Slots that it looks through in one hold, for entries or to settle them: 256 KiB of memory. Reached: the next hold goes on.
pub const CHECKPOINT_SLICE_SLOTS: usize = 32 * 1024;

/// Removed keys that it takes in one hold, by the piece. Reached: the next hold goes on.
pub const CHECKPOINT_SLICE_REMOVALS: usize = 4 * 1024;

/// What a value in chunks counts for among the bytes of a hold: nothing of it is copied, but pointers are.
pub const LONG_VALUE_COUNTS_FOR: usize = 8 * 1024;

/// When the keys removed since the last checkpoint take this many bytes, the next one begins.
pub const CHECKPOINT_REMOVAL_BYTES: usize = 64 * 1024 * 1024;

/// How long after a failed checkpoint the next one is tried, unless somebody asks for it; and after any while the disk is full.
pub const CHECKPOINT_RETRY: std::time::Duration = std::time::Duration::from_secs(10);

/// Most bytes of entries that writers have handed to a running checkpoint and that it has not written. Reached: writes
/// wait, for milliseconds, until it has.
pub const CHECKPOINT_HANDED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How many times longer than the policy's length the log may become while checkpoints cannot keep up. Reached: writes
/// wait for the checkpoint; where checkpoints fail they are refused.
pub const CHECKPOINT_LOG_FACTOR: u64 = 4;

/// Frames of a snapshot, 1 MiB each, that are read ahead of whoever takes them. Reached: the snapshot's thread waits.
pub const SNAPSHOT_QUEUE: usize = 4;

/// How much a snapshot's thread stands back for the others, as `nice` counts it.
pub const SNAPSHOT_NICE: i32 = 10;
