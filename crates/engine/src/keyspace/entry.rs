//! An entry: key, value, version, creation time and expiry in one allocation.
//!
//! ```text
//!  byte  0         8        12      13        14          16
//!        +---------+--------+-------+---------+-----------+------------------+-----------+-----+-------+
//!        | version | created| flags | key len | value len | wide lengths     | expiry    | key | value |
//!        | u64     | u32 s  | u8    | u8      | u16       | u32 + u32 if WIDE| u64 if set|     |       |
//!        +---------+--------+-------+---------+-----------+------------------+-----------+-----+-------+
//! ```
//!
//! The allocation is rounded up to 8 bytes. A key of 16 bytes with a value of 32 takes 64 bytes, one more bit of
//! expiry costs 8. For keys over 255 bytes the lengths move to two u32 fields (`WIDE`); the short ones are then 0.
//! A value that is the canonical text of an `i64` is kept as 1 to 8 little-endian bytes (`INTEGER`). A value of
//! `CHUNKED_FROM` bytes or more is kept in chunks outside the allocation (`CHUNKED`), and the address of a boxed [`Chunks`]
//! stands in its place: 8 bytes. It stays so for as long as the value only grows.
//!
//! Flags: bit 0 `INTEGER`, bit 1 `EXPIRES`, bit 2 `WIDE`; bits 3 to 5 count how often the entry was used (`uses`), for
//! eviction; bit 6 `COLD`: the value is in the block file only, and 8 bytes in its place say where (u32 block, u8 size
//! code) and how long it is (u24, in KiB, rounded up); bit 7 `CHUNKED`. What checkpoints know of an entry is in its slot
//! (`mark`).
//!
//! Invariants: the pointer comes from the global allocator with alignment 8 and `allocated_bytes()`; every field that
//! the flags announce is initialised; an `Entry` owns its allocation and is the only one that does; with `CHUNKED`, and never
//! together with `INTEGER` or `COLD`, it owns the box as well, whose address came from `Box::into_raw`. Whoever has only
//! borrowed an entry reads it, and may change the uses in its flags: so that byte is read and written atomically, and
//! no other byte is ever written through a borrow. Safe face: nothing outside this file reads through the pointer. Not
//! here: where entries are found (`table`), which are evicted (`eviction`).
#![allow(unsafe_code)]

pub use super::value::{CHUNKED_FROM, Value, parse_canonical};
use crate::version::Version;
use bowline_resp::{Bulk, Chunks};
use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

const VERSION: usize = 0;
const CREATED: usize = 8;
const FLAGS: usize = 12;
const KEY_LEN: usize = 13;
const VALUE_LEN: usize = 14;
const HEADER_BYTES: usize = 16;
const ALIGN: usize = 8;

const INTEGER: u8 = 1 << 0;
const EXPIRES: u8 = 1 << 1;
const WIDE: u8 = 1 << 2;
const CHUNKED: u8 = 1 << 7;
/// The flags that say where the other fields lie.
const SHAPE: u8 = INTEGER | EXPIRES | WIDE | CHUNKED;
const COLD: u8 = 1 << 6;
/// What stands in place of a value in chunks: an address.
const ADDRESS_BYTES: usize = 8;
/// What stands in place of a cold value: u32 block, u8 size code, u24 KiB.
const COLD_BYTES: usize = 8;
/// Longest value that these can tell, KiB: far beyond any.
const COLD_KIB_MAX: usize = 0xff_ffff;
const USES_SHIFT: u32 = 3;

/// Most that is counted of an entry's uses.
pub const USES_MAX: u8 = 7;

/// The creation time of a new entry until it has its version.
pub const CREATED_UNKNOWN: u32 = u32::MAX;

/// Where a record stands in the block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The block that it starts in.
    pub block: u32,
    /// Its size as the index keeps it.
    pub size_code: u8,
}

/// An owned entry; see the head of this file for its layout.
pub struct Entry(NonNull<u8>);

/// An entry borrowed for reading.
#[derive(Clone, Copy)]
pub struct EntryRef<'a>(NonNull<u8>, PhantomData<&'a [u8]>);

// SAFETY: an Entry owns its allocation alone, like a Box<[u8]>.
unsafe impl Send for Entry {}
// SAFETY: through a shared reference the allocation is only read, but for the flags, which are atomic.
unsafe impl Sync for Entry {}
// SAFETY: like `&[u8]` and a `&AtomicU8`.
unsafe impl Send for EntryRef<'_> {}
// SAFETY: like `&[u8]` and a `&AtomicU8`.
unsafe impl Sync for EntryRef<'_> {}

/// Where the parts of an entry lie, worked out from its flags and lengths.
#[derive(Clone, Copy)]
struct Shape {
    flags: u8,
    key: usize,
    value: usize,
}

impl Shape {
    fn new(key: usize, value: Value<'_>, expires: bool) -> Shape {
        let (mut stored, mut flags) = (value.stored_bytes(), 0);
        assert!(u32::try_from(key).is_ok() && u32::try_from(stored).is_ok(), "keys and values are below 4 GiB");
        if stored >= CHUNKED_FROM || matches!(value, Value::Chunks(_)) {
            (stored, flags) = (ADDRESS_BYTES, CHUNKED);
        }
        if matches!(value, Value::Integer(_)) {
            flags |= INTEGER;
        }
        if expires {
            flags |= EXPIRES;
        }
        if key > usize::from(u8::MAX) || stored > usize::from(u16::MAX) {
            flags |= WIDE;
        }
        Shape { flags, key, value: stored }
    }

    fn expiry_at(self) -> usize {
        HEADER_BYTES + if self.flags & WIDE != 0 { 8 } else { 0 }
    }

    fn key_at(self) -> usize {
        self.expiry_at() + if self.flags & EXPIRES != 0 { 8 } else { 0 }
    }

    fn value_at(self) -> usize {
        self.key_at() + self.key
    }

    fn allocated_bytes(self) -> usize {
        (self.value_at() + self.value).next_multiple_of(ALIGN)
    }

    fn layout(self) -> Layout {
        // Lengths are below 4 GiB each, so the sum is far from the limit of a layout.
        Layout::from_size_align(self.allocated_bytes(), ALIGN).unwrap_or_else(|_| unreachable!("bounded lengths"))
    }
}

impl<'a> EntryRef<'a> {
    /// Borrows an entry by its address.
    ///
    /// # Safety
    /// `pointer` came from [`Entry::into_raw`], and for `'a` the entry is neither dropped nor changed.
    pub(super) unsafe fn from_raw(pointer: NonNull<u8>) -> EntryRef<'a> {
        EntryRef(pointer, PhantomData)
    }

    /// The key.
    pub fn key(self) -> &'a [u8] {
        let shape = self.shape();
        self.bytes(shape.key_at(), shape.key)
    }

    /// The value, which must not be cold: whoever reads values looks at [`EntryRef::is_cold`] first.
    ///
    /// # Panics
    /// If it is cold.
    pub fn value(self) -> Value<'a> {
        assert!(!self.is_cold(), "a cold value is fetched before it is read");
        let shape = self.shape();
        let stored = self.bytes(shape.value_at(), shape.value);
        if shape.flags & (INTEGER | CHUNKED) == 0 {
            return Value::Bytes(stored);
        }
        if let Some(chunks) = self.chunks() {
            return Value::Chunks(chunks);
        }
        Value::from_integer_bytes(stored).unwrap_or_else(|| unreachable!("an integer has 1 to 8 bytes"))
    }

    /// The chunks of a value that is kept in some.
    #[inline]
    fn chunks(self) -> Option<&'a Chunks> {
        let shape = self.shape();
        if shape.flags & CHUNKED == 0 {
            return None;
        }
        let address = usize::from_ne_bytes(self.array(shape.value_at()));
        // SAFETY: the address came from `Box::into_raw`, the entry owns the box, and for `'a` it is neither dropped nor changed.
        Some(unsafe { &*std::ptr::with_exposed_provenance::<Chunks>(address) })
    }

    /// Whether the value is in the block file only.
    #[inline]
    pub fn is_cold(self) -> bool {
        self.flags().load(Ordering::Relaxed) & COLD != 0
    }

    /// Where a cold value's record stands in the block file; `None` when the value is in memory.
    pub fn location(self) -> Option<Location> {
        let [a, b, c, d, size_code, ..] = self.cold_bytes()?;
        Some(Location { block: u32::from_ne_bytes([a, b, c, d]), size_code })
    }

    /// About how long a cold value is, bytes: up to 1 KiB more; `None` when the value is in memory.
    pub fn cold_value_bytes(self) -> Option<usize> {
        let [.., a, b, c] = self.cold_bytes()?;
        Some(u32::from_ne_bytes([a, b, c, 0]) as usize * 1024)
    }

    fn cold_bytes(self) -> Option<[u8; COLD_BYTES]> {
        self.is_cold().then(|| self.array(self.shape().value_at()))
    }

    /// Bytes of memory that the entry gives back when its value becomes cold; 0 when it is, or is a number.
    pub(super) fn bytes_in_value(self) -> usize {
        let shape = self.shape();
        if self.is_cold() || shape.flags & INTEGER != 0 {
            return 0;
        }
        let cold = Shape { value: COLD_BYTES, ..shape };
        self.allocated_bytes().saturating_sub(cold.allocated_bytes())
    }

    /// The version of the entry's last change.
    pub fn version(self) -> Version {
        Version(u64::from_ne_bytes(self.array(VERSION)))
    }

    /// When the key was first written, seconds since the Unix epoch.
    pub fn created(self) -> u32 {
        u32::from_ne_bytes(self.array(CREATED))
    }

    /// When the entry expires, milliseconds since the Unix epoch.
    pub fn expire_at(self) -> Option<u64> {
        let shape = self.shape();
        (shape.flags & EXPIRES != 0).then(|| u64::from_ne_bytes(self.array(shape.expiry_at())))
    }

    /// Whether the entry must no longer be seen at `now_ms`.
    pub fn is_expired(self, now_ms: u64) -> bool {
        self.expire_at().is_some_and(|at| at <= now_ms)
    }

    /// A copy of the entry with its value in the block file.
    pub(super) fn with_cold_value(self, location: Location) -> Entry {
        let bytes = self.chunks().map_or(self.shape().value, Chunks::len);
        let mut copy = Entry::cold(self.key(), (location, bytes), self.version(), self.created(), self.expire_at());
        copy.take_uses_of(self);
        copy
    }

    /// A copy of the entry under another key. Chunks are shared.
    pub fn with_key(self, key: &[u8]) -> Entry {
        let mut copy = Entry::new(key, self.value(), self.version(), self.created(), self.expire_at());
        copy.take_uses_of(self);
        copy
    }

    /// Memory of the entry in bytes, chunks counted in full.
    pub fn allocated_bytes(self) -> usize {
        self.shape().allocated_bytes() + self.chunks().map_or(0, Chunks::memory_bytes)
    }

    /// Memory in bytes that a copy takes: its chunks are shared.
    pub(super) fn copied_bytes(self) -> usize {
        self.shape().allocated_bytes() + self.chunks().map_or(0, Chunks::list_bytes)
    }

    /// How often the entry was used, roughly: each further number stands for twice the uses, up to [`USES_MAX`].
    #[inline]
    pub fn uses(self) -> u8 {
        self.flags().load(Ordering::Relaxed) >> USES_SHIFT & USES_MAX
    }

    /// Counts a use; `random` decides whether it is one of those that count. Writes nothing where the number stays.
    #[inline]
    pub(crate) fn note_use(self, random: impl FnOnce() -> u64) {
        let uses = self.uses();
        // The first two count, then every second, fourth, eighth ...
        let one_in = 1u64 << uses.saturating_sub(1);
        if uses < USES_MAX && (one_in == 1 || random() & (one_in - 1) == 0) {
            self.change_uses(uses, uses + 1);
        }
    }

    /// Takes one use away, as entries age that are not used.
    pub(super) fn forget_use(self) {
        let uses = self.uses();
        if uses > 0 {
            self.change_uses(uses, uses - 1);
        }
    }

    #[cold]
    fn change_uses(self, from: u8, to: u8) {
        let flags = self.flags().load(Ordering::Relaxed);
        let others = flags & !(USES_MAX << USES_SHIFT);
        // Where another reader was faster, its count stands for both.
        let (before, after) = (others | from << USES_SHIFT, others | to << USES_SHIFT);
        let _ = self.flags().compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn flags(self) -> &'a AtomicU8 {
        // SAFETY: the byte lies inside the allocation for `'a`; while it is borrowed it is only accessed atomically.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr().add(FLAGS)) }
    }

    fn shape(self) -> Shape {
        let flags = self.flags().load(Ordering::Relaxed) & SHAPE;
        if flags & WIDE == 0 {
            let key = usize::from(self.array::<1>(KEY_LEN)[0]);
            let value = usize::from(u16::from_ne_bytes(self.array(VALUE_LEN)));
            return Shape { flags, key, value };
        }
        let key = u32::from_ne_bytes(self.array(HEADER_BYTES)) as usize;
        let value = u32::from_ne_bytes(self.array(HEADER_BYTES + 4)) as usize;
        Shape { flags, key, value }
    }

    fn bytes(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: callers pass ranges of the entry's own shape, which lie inside the allocation and are initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at), len) }
    }

    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        // SAFETY: callers pass fields of the entry's own shape; a byte array has no alignment.
        unsafe { self.0.as_ptr().add(at).cast::<[u8; N]>().read_unaligned() }
    }
}

impl Entry {
    /// A new entry. `created` is in seconds, `expire_at` in milliseconds since the Unix epoch.
    pub fn new(key: &[u8], value: Value<'_>, version: Version, created: u32, expire_at: Option<u64>) -> Entry {
        let shape = Shape::new(key.len(), value, expire_at.is_some());
        let layout = shape.layout();
        // SAFETY: the layout has at least HEADER_BYTES bytes.
        let pointer = unsafe { alloc::alloc(layout) };
        let Some(pointer) = NonNull::new(pointer) else { alloc::handle_alloc_error(layout) };
        let mut entry = Entry(pointer);
        // `write_lengths` looks at the flags that stay, and there are none yet.
        entry.write(FLAGS, &[0]);
        entry.write_lengths(shape);
        entry.write(VERSION, &version.0.to_ne_bytes());
        entry.write(CREATED, &created.to_ne_bytes());
        if let Some(at) = expire_at {
            entry.write(shape.expiry_at(), &at.to_ne_bytes());
        }
        entry.write(shape.key_at(), key);
        entry.write_value(shape, value);
        entry
    }

    /// A new entry whose value, of so many bytes, is in the block file only; the other arguments as for [`Entry::new`].
    pub fn cold(
        key: &[u8],
        (location, value_bytes): (Location, usize),
        version: Version,
        created: u32,
        expire_at: Option<u64>,
    ) -> Entry {
        let mut stored = [0; COLD_BYTES];
        stored[..4].copy_from_slice(&location.block.to_ne_bytes());
        stored[4] = location.size_code;
        let kib = value_bytes.div_ceil(1024).min(COLD_KIB_MAX) as u32;
        stored[5..].copy_from_slice(&kib.to_ne_bytes()[..3]);
        let mut entry = Entry::new(key, Value::Bytes(&stored), version, created, expire_at);
        *entry.flags_mut() |= COLD;
        entry
    }

    /// Changes the block in which the record of a cold value starts.
    ///
    /// # Panics
    /// If the value is not cold.
    pub(super) fn set_block(&mut self, block: u32) {
        assert!(self.borrow().is_cold(), "only a cold value has a location");
        self.write(self.shape().value_at(), &block.to_ne_bytes());
    }

    /// Takes an allocation of the same size anew, and gives the old one back.
    pub(super) fn move_allocation(&mut self) {
        let layout = self.shape().layout();
        // SAFETY: the layout has at least HEADER_BYTES bytes.
        let pointer = unsafe { alloc::alloc(layout) };
        let Some(pointer) = NonNull::new(pointer) else { alloc::handle_alloc_error(layout) };
        // SAFETY: both allocations have `layout`, the new one is nobody else's; the old one is given back once.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.as_ptr(), pointer.as_ptr(), layout.size());
            alloc::dealloc(self.0.as_ptr(), layout);
        }
        self.0 = pointer;
    }

    /// Lets a new entry begin with some uses.
    pub(super) fn set_uses(&mut self, uses: u8) {
        let flags = self.flags_mut();
        *flags = *flags & !(USES_MAX << USES_SHIFT) | uses.min(USES_MAX) << USES_SHIFT;
    }

    /// Takes over how often another entry was used: that of the same key, which this one replaces.
    pub(super) fn take_uses_of(&mut self, other: EntryRef<'_>) {
        self.set_uses(other.uses());
    }

    /// Sets the version of the last change.
    pub fn set_version(&mut self, version: Version) {
        self.write(VERSION, &version.0.to_ne_bytes());
    }

    /// Gives the entry the version of its last change and, where it is new, its creation time: the version's.
    pub fn stamp(&mut self, version: Version) {
        self.set_version(version);
        if self.borrow().created() == CREATED_UNKNOWN {
            self.write(CREATED, &((version.time_ms() / 1000) as u32).to_ne_bytes());
        }
    }

    /// Puts a value and an expiry in place of the old ones without a new allocation, where they fit exactly.
    /// Returns whether it did.
    #[must_use]
    pub fn overwrite(&mut self, value: Value<'_>, expire_at: Option<u64>) -> bool {
        let (old, new) = (self.shape(), Shape::new(self.shape().key, value, expire_at.is_some()));
        let fits = old.key_at() == new.key_at() && old.allocated_bytes() == new.allocated_bytes();
        // Chunks that are replaced take long to free: that is the caller's to do, with the whole entry.
        if !fits || (old.flags | new.flags) & CHUNKED != 0 {
            return false;
        }
        self.write_lengths(new);
        if let Some(at) = expire_at {
            self.write(new.expiry_at(), &at.to_ne_bytes());
        }
        self.write_value(new, value);
        true
    }

    /// Changes the time of an expiry that the entry already has.
    ///
    /// # Panics
    /// If the entry has none.
    pub fn set_expire_at(&mut self, at: u64) {
        let shape = self.shape();
        assert!(shape.flags & EXPIRES != 0, "the entry has an expiry");
        self.write(shape.expiry_at(), &at.to_ne_bytes());
    }

    /// Writes `bytes` into the value at `offset`, with zeros before them where that is beyond its end. The value becomes plain
    /// bytes, or is kept in chunks when it is long. Cost: one reallocation; of chunks those that are written. Returns the
    /// bytes of chunks that were copied because others share them.
    pub fn write_value_at(&mut self, offset: usize, bytes: Bulk<'_>) -> usize {
        assert!(!self.borrow().is_cold(), "a cold value is fetched before it is changed");
        let shape = self.shape();
        if shape.flags & CHUNKED != 0 {
            return self.change_chunks(|chunks| write_into(chunks, offset, bytes));
        }
        let len = self.borrow().value().len().max(offset + bytes.len());
        match bytes {
            Bulk::Bytes(bytes) if len < CHUNKED_FROM => {
                self.grow_value(len, |value| value[offset..offset + bytes.len()].copy_from_slice(bytes));
            }
            _ => {
                let now = self.borrow();
                let mut chunks = now.value().to_chunks();
                write_into(&mut chunks, offset, bytes);
                let value = Value::Chunks(&chunks);
                let mut grown = Entry::new(now.key(), value, now.version(), now.created(), now.expire_at());
                grown.take_uses_of(now);
                *self = grown;
            }
        }
        0
    }

    fn change_chunks<R>(&mut self, change: impl FnOnce(&mut Chunks) -> R) -> R {
        let address = usize::from_ne_bytes(self.borrow().array(self.shape().value_at()));
        // SAFETY: the caller has seen that the value is in chunks: the address came from `Box::into_raw`, the entry owns the
        // box, and `&mut self` means nobody else looks.
        change(unsafe { &mut *std::ptr::with_exposed_provenance_mut::<Chunks>(address) })
    }

    /// Makes the value `len` bytes long (never shorter than it is, and below `CHUNKED_FROM`), new bytes zero, and hands it to
    /// `change`. Moves the allocation where it must; the value becomes plain bytes.
    fn grow_value(&mut self, len: usize, change: impl FnOnce(&mut [u8])) {
        let old = self.shape();
        let new = Shape { flags: old.flags & !INTEGER, key: old.key, value: len };
        assert!(len < CHUNKED_FROM, "a long value is in chunks");
        if old.flags & INTEGER != 0 {
            // Its text is longer than what it is kept as: build anew.
            let mut bytes = self.borrow().value().to_vec();
            assert!(len >= bytes.len(), "a value never shrinks here");
            bytes.resize(len, 0);
            change(&mut bytes);
            let now = self.borrow();
            let mut grown = Entry::new(now.key(), Value::Bytes(&bytes), now.version(), now.created(), now.expire_at());
            grown.take_uses_of(now);
            *self = grown;
            return;
        }
        assert!(len >= old.value, "a value only grows");
        if new.allocated_bytes() != old.allocated_bytes() {
            // SAFETY: the pointer was allocated with `old.layout()`, the new size is not zero and below isize::MAX.
            let pointer = unsafe { alloc::realloc(self.0.as_ptr(), old.layout(), new.allocated_bytes()) };
            let Some(pointer) = NonNull::new(pointer) else { alloc::handle_alloc_error(new.layout()) };
            self.0 = pointer;
        }
        self.write_lengths(new);
        // SAFETY: the allocation holds value_at + len bytes, and we have it alone.
        let value = unsafe {
            self.0.as_ptr().add(new.value_at() + old.value).write_bytes(0, len - old.value);
            std::slice::from_raw_parts_mut(self.0.as_ptr().add(new.value_at()), len)
        };
        change(value);
    }

    /// Borrows the entry for reading.
    pub fn borrow(&self) -> EntryRef<'_> {
        EntryRef(self.0, PhantomData)
    }

    /// Gives the allocation away; [`Entry::from_raw`] takes it back.
    pub(super) fn into_raw(self) -> NonNull<u8> {
        let pointer = self.0;
        std::mem::forget(self);
        pointer
    }

    /// Takes back what [`Entry::into_raw`] gave.
    ///
    /// # Safety
    /// `pointer` came from `into_raw`, and nothing else owns it for as long as this value is dropped or used mutably.
    pub(super) unsafe fn from_raw(pointer: NonNull<u8>) -> Entry {
        Entry(pointer)
    }

    fn shape(&self) -> Shape {
        self.borrow().shape()
    }

    fn flags_mut(&mut self) -> &mut u8 {
        // SAFETY: the byte lies inside the allocation and is initialised; `&mut self` means nobody else looks.
        unsafe { &mut *self.0.as_ptr().add(FLAGS) }
    }

    /// Writes the flags that say where the other fields lie, and the lengths; the uses stay, and the value is not cold.
    fn write_lengths(&mut self, shape: Shape) {
        let flags = self.flags_mut();
        *flags = *flags & !(SHAPE | COLD) | shape.flags;
        if shape.flags & WIDE == 0 {
            self.write(KEY_LEN, &[shape.key as u8]);
            self.write(VALUE_LEN, &(shape.value as u16).to_ne_bytes());
        } else {
            self.write(KEY_LEN, &[0, 0, 0]);
            self.write(HEADER_BYTES, &(shape.key as u32).to_ne_bytes());
            self.write(HEADER_BYTES + 4, &(shape.value as u32).to_ne_bytes());
        }
    }

    fn write_value(&mut self, shape: Shape, value: Value<'_>) {
        if shape.flags & CHUNKED != 0 {
            let address = Box::into_raw(Box::new(value.to_chunks())).expose_provenance();
            return self.write(shape.value_at(), &address.to_ne_bytes());
        }
        match value {
            Value::Chunks(_) => unreachable!("chunks are flagged"),
            Value::Bytes(bytes) => self.write(shape.value_at(), bytes),
            Value::Integer(number) => self.write(shape.value_at(), &number.to_le_bytes()[..shape.value]),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers write fields of the shape the allocation was made for; `&mut self` means nobody else looks.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(at), bytes.len()) }
    }
}

fn write_into(chunks: &mut Chunks, offset: usize, bytes: Bulk<'_>) -> usize {
    match bytes {
        Bulk::Bytes(bytes) => chunks.write_at(offset, bytes),
        Bulk::Chunks(others) => chunks.write_chunks_at(offset, others),
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let shape = self.shape();
        if shape.flags & CHUNKED != 0 {
            let address = usize::from_ne_bytes(self.borrow().array(shape.value_at()));
            // SAFETY: the address came from `Box::into_raw` and this entry alone owns the box.
            drop(unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Chunks>(address)) });
        }
        let layout = shape.layout();
        // SAFETY: the allocation was made with exactly this layout and is owned alone.
        unsafe { alloc::dealloc(self.0.as_ptr(), layout) }
    }
}

impl std::fmt::Debug for EntryRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({} at {}, {} bytes)", self.key().escape_ascii(), self.version(), self.allocated_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_pair_takes_64_bytes() {
        let entry = Entry::new(&[b'k'; 16], Value::Bytes(&[b'v'; 32]), Version(1), 2, None);
        assert_eq!(entry.borrow().allocated_bytes(), 64);
        let number = Entry::new(&[b'k'; 16], Value::compact(b"12345678"), Version(1), 2, None);
        assert_eq!(number.borrow().allocated_bytes(), 40);
    }

    #[test]
    fn only_canonical_numbers_become_integers() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            ("", None),
            ("-", None),
            ("1 ", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_canonical(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn uses_are_counted_up_to_seven_and_ever_more_rarely() {
        let entry = Entry::new(b"key", Value::Bytes(b"value"), Version(1), 0, None);
        let entry = entry.borrow();
        let (mut random, mut reached) = (0u64, Vec::new());
        for use_number in 1..=10_000 {
            let before = entry.uses();
            entry.note_use(|| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random >> 40
            });
            if entry.uses() != before {
                reached.push(use_number);
            }
        }
        assert_eq!(entry.uses(), USES_MAX);
        assert_eq!((reached.len(), reached[0], reached[1]), (7, 1, 2), "{reached:?}");
        assert!((20..400).contains(&reached[6]), "{reached:?}");
        (0..9).for_each(|_| entry.forget_use());
        assert_eq!((entry.uses(), entry.key(), entry.value()), (0, &b"key"[..], Value::Bytes(b"value")));
    }

    #[test]
    fn uses_survive_what_changes_the_value_and_not_a_new_entry() {
        let mut entry = Entry::new(b"key", Value::Bytes(b"value"), Version(1), 0, None);
        entry.borrow().note_use(|| 0);
        entry.borrow().note_use(|| 0);
        assert!(entry.overwrite(Value::Bytes(b"other"), None));
        entry.write_value_at(60_000, Bulk::Bytes(b"!"));
        entry.write_value_at(100_000, Bulk::Bytes(b"!"));
        assert_eq!((entry.borrow().uses(), entry.borrow().with_key(b"name").borrow().uses()), (2, 2));
        assert_eq!(Entry::new(b"key", Value::Bytes(b"value"), Version(1), 0, None).borrow().uses(), 0);
    }

    #[test]
    fn a_moved_entry_is_the_same() {
        let mut entry = Entry::new(b"key", Value::Bytes(b"value"), Version(3), 4, Some(5));
        entry.borrow().note_use(|| 0);
        let before = (entry.borrow().version(), entry.borrow().created(), entry.borrow().uses());
        entry.move_allocation();
        let moved = entry.borrow();
        assert_eq!((moved.version(), moved.created(), moved.uses()), before);
        assert_eq!((moved.key(), moved.value(), moved.expire_at()), (&b"key"[..], Value::Bytes(b"value"), Some(5)));
    }

    #[test]
    fn a_long_value_is_in_chunks_that_copies_share() {
        let long = vec![7; 10 * CHUNKED_FROM];
        let mut entry = Entry::new(b"key", Value::Bytes(&long), Version(1), 0, Some(9));
        let copy = entry.borrow().with_key(b"another");
        let (Value::Chunks(of_entry), Value::Chunks(of_copy)) = (entry.borrow().value(), copy.borrow().value()) else {
            panic!("it is in chunks")
        };
        assert_eq!(of_entry.shared_with(of_copy), (10, 10));
        assert!(entry.borrow().allocated_bytes() > long.len() && entry.borrow().copied_bytes() < 1000);
        assert_eq!(entry.write_value_at(5, Bulk::Bytes(b"x")), CHUNKED_FROM, "one chunk is copied");
        assert!(copy.borrow().value().is_text(&long) && !entry.borrow().value().is_text(&long));
        assert!(!entry.overwrite(Value::Bytes(b"8 bytes!"), Some(9)), "the whole entry is replaced");
        assert!(!entry.overwrite(Value::Bytes(&long), Some(9)));
        entry.move_allocation();
        assert_eq!((entry.borrow().value().len(), entry.borrow().expire_at()), (long.len(), Some(9)));
        let short = Entry::new(b"key", Value::Bytes(&long[1..CHUNKED_FROM]), Version(1), 0, None);
        assert!(matches!(short.borrow().value(), Value::Bytes(_)));
        let cold = entry.borrow().with_cold_value(Location { block: 1, size_code: 2 });
        assert_eq!(cold.borrow().cold_value_bytes(), Some(long.len()));
        assert!(entry.borrow().bytes_in_value() > long.len());
    }

    #[test]
    fn readers_that_count_at_once_never_touch_the_other_flags() {
        let entry = Entry::new(&[b'k'; 300], Value::Integer(7), Version(1), 0, Some(9));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000u64 {
                        entry.borrow().note_use(|| 0);
                        if round % 3 == 0 {
                            entry.borrow().forget_use();
                        }
                        assert_eq!(entry.borrow().expire_at(), Some(9));
                    }
                });
            }
        });
        assert_eq!((entry.borrow().key().len(), entry.borrow().value()), (300, Value::Integer(7)));
    }

    #[test]
    fn a_cold_entry_keeps_everything_but_its_value() {
        let value = [b'v'; 1000];
        let hot = Entry::new(b"key", Value::Bytes(&value), Version(3), 4, Some(5));
        hot.borrow().note_use(|| 0);
        let location = Location { block: 0x0102_0304, size_code: 77 };
        let mut cold = hot.borrow().with_cold_value(location);
        let all = |entry: &Entry| {
            let entry = entry.borrow();
            (entry.key().to_vec(), entry.version(), entry.created(), entry.expire_at(), entry.uses())
        };
        assert_eq!(all(&cold), all(&hot));
        assert_eq!((cold.borrow().location(), hot.borrow().location()), (Some(location), None));
        assert_eq!(hot.borrow().bytes_in_value(), hot.borrow().allocated_bytes() - cold.borrow().allocated_bytes());
        assert_eq!(cold.borrow().bytes_in_value(), 0);
        cold.set_block(9);
        assert_eq!(cold.borrow().location(), Some(Location { block: 9, ..location }));
        assert_eq!((cold.borrow().cold_value_bytes(), hot.borrow().cold_value_bytes()), (Some(1024), None));
    }

    #[test]
    fn a_value_written_over_a_cold_one_is_not_cold() {
        let mut entry = Entry::cold(b"key", (Location { block: 1, size_code: 2 }, 9), Version(3), 4, None);
        assert!(entry.overwrite(Value::Bytes(b"8 bytes!"), None), "both take the same allocation");
        assert_eq!((entry.borrow().is_cold(), entry.borrow().value()), (false, Value::Bytes(b"8 bytes!")));
    }

    #[test]
    #[should_panic(expected = "a cold value is fetched before it is read")]
    fn a_cold_value_cannot_be_read_from_memory() {
        let entry = Entry::cold(b"key", (Location { block: 1, size_code: 2 }, 9), Version(3), 4, None);
        entry.borrow().value();
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_what_it_was_made_of(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..200),
            version: u64, created: u32, expire_at: Option<u64>,
        ) {
            let entry = Entry::new(&key, Value::compact(&value), Version(version), created, expire_at);
            prop_assert_eq!(entry.borrow().key(), &key[..]);
            prop_assert_eq!(entry.borrow().value().to_vec(), value);
            prop_assert_eq!(entry.borrow().version(), Version(version));
            prop_assert_eq!(entry.borrow().created(), created);
            prop_assert_eq!(entry.borrow().expire_at(), expire_at);
        }

        #[test]
        fn integers_survive(number: i64) {
            let entry = Entry::new(b"k", Value::Integer(number), Version(1), 0, Some(7));
            prop_assert_eq!(entry.borrow().value(), Value::Integer(number));
            prop_assert_eq!(entry.borrow().value().len(), number.to_string().len());
        }

        #[test]
        fn a_written_value_keeps_the_rest(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            front in proptest::collection::vec(any::<u8>(), 0..200), writes in proptest::collection::vec(
                (0usize..200_000, proptest::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..5),
            expire_at: Option<u64>, small: bool,
        ) {
            let mut entry = Entry::new(&key, Value::compact(&front), Version(3), 4, expire_at);
            let mut expected = front.clone();
            for (at, bytes, in_chunks) in writes {
                let at = if small { at % 300 } else { at };
                let before = entry.borrow().with_key(&key);
                let chunks = Chunks::copy_of(&bytes);
                entry.write_value_at(at, if in_chunks { Bulk::Chunks(&chunks) } else { Bulk::Bytes(&bytes) });
                prop_assert!(before.borrow().value().to_vec() == expected, "a copy stays as it was");
                expected.resize(expected.len().max(at + bytes.len()), 0);
                expected[at..at + bytes.len()].copy_from_slice(&bytes);
                prop_assert!(entry.borrow().value().to_vec() == expected);
                prop_assert!(entry.borrow().allocated_bytes() >= expected.len());
            }
            prop_assert_eq!(entry.borrow().key(), &key[..]);
            prop_assert_eq!(entry.borrow().expire_at(), expire_at);
        }

        #[test]
        fn an_overwrite_changes_value_and_expiry_alone(
            old in proptest::collection::vec(any::<u8>(), 0..40), new in proptest::collection::vec(any::<u8>(), 0..40),
            before: Option<u64>, after: Option<u64>,
        ) {
            let mut entry = Entry::new(b"key", Value::compact(&old), Version(3), 4, before);
            let fits = entry.overwrite(Value::compact(&new), after);
            prop_assert_eq!(entry.borrow().value().to_vec(), if fits { new } else { old });
            prop_assert_eq!(entry.borrow().expire_at(), if fits { after } else { before });
            prop_assert_eq!(entry.borrow().key(), b"key");
            prop_assert_eq!(entry.borrow().created(), 4);
        }
    }
}
