//! Database numbers and what they stand for.
//!
//! A number of SELECT maps to a physical id; entries are logged and kept under the id. SWAPDB exchanges two ids and
//! FLUSHDB gives a number a fresh one, so each is one small effect whatever the size of the data. The map changes only
//! while all segments are locked for changes, so a reader that holds any segment sees one state of it.

use super::segment::DoesNotFit;
use std::sync::atomic::{AtomicU32, Ordering};

/// Most database numbers there can be. Bounded because every number has a slot in memory; a larger `SELECT` is refused.
pub const DATABASES_MAX: usize = 1024;

/// What a database number stands for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId(pub u32);

/// What a map of databases is at one moment, as a checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseIds {
    /// The numbers that stand for another id than their own, ascending.
    pub exchanged: Vec<(u32, DatabaseId)>,
    /// The next fresh id.
    pub next: u32,
}

/// The map from numbers to ids.
pub struct DatabaseMap {
    ids: Box<[AtomicU32]>,
    next: AtomicU32,
}

impl Default for DatabaseMap {
    fn default() -> DatabaseMap {
        let ids = (0..DATABASES_MAX as u32).map(AtomicU32::new).collect();
        DatabaseMap { ids, next: AtomicU32::new(DATABASES_MAX as u32) }
    }
}

impl DatabaseMap {
    /// The id of a number.
    ///
    /// # Panics
    /// If `number` is not below [`DATABASES_MAX`].
    pub fn id(&self, number: u32) -> DatabaseId {
        DatabaseId(self.ids[number as usize].load(Ordering::Relaxed))
    }

    /// The number that stands for `id` now, if any.
    pub fn number_of(&self, id: DatabaseId) -> Option<u32> {
        self.ids.iter().position(|slot| slot.load(Ordering::Relaxed) == id.0).map(|number| number as u32)
    }

    /// An id that no database has had since the last reset.
    pub fn fresh_id(&self) -> DatabaseId {
        DatabaseId(self.next.load(Ordering::Relaxed))
    }

    /// Lets `number` stand for `id`. Only while every segment is locked for changes.
    pub fn assign(&self, number: u32, id: DatabaseId) {
        self.ids[number as usize].store(id.0, Ordering::Relaxed);
        self.next.fetch_max(id.0 + 1, Ordering::Relaxed);
    }

    /// Exchanges two databases. Only while every segment is locked for changes.
    pub fn swap(&self, first: u32, second: u32) {
        let (a, b) = (self.id(first), self.id(second));
        self.assign(first, b);
        self.assign(second, a);
    }

    /// The map as it is now.
    pub fn to_ids(&self) -> DatabaseIds {
        let numbers = self.ids.iter().enumerate().map(|(number, slot)| (number as u32, slot.load(Ordering::Relaxed)));
        let exchanged =
            numbers.filter(|(number, id)| number != id).map(|(number, id)| (number, DatabaseId(id))).collect();
        DatabaseIds { exchanged, next: self.next.load(Ordering::Relaxed) }
    }

    /// Back to what [`DatabaseMap::to_ids`] gave. Only when no table is left.
    ///
    /// # Errors
    /// When that is no map: two numbers stand for one id, or an id is not below the next one.
    pub fn restore(&self, ids: &DatabaseIds) -> Result<(), DoesNotFit> {
        const NO_MAP: DoesNotFit = DoesNotFit("the map of databases is not one that this store writes");
        if ids.next < DATABASES_MAX as u32 {
            return Err(NO_MAP);
        }
        let mut map: Vec<u32> = (0..DATABASES_MAX as u32).collect();
        for &(number, id) in &ids.exchanged {
            let slot = map.get_mut(number as usize).filter(|_| id.0 < ids.next).ok_or(NO_MAP)?;
            *slot = id.0;
        }
        let mut sorted = map.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(NO_MAP);
        }
        self.ids.iter().zip(map).for_each(|(slot, id)| slot.store(id, Ordering::Relaxed));
        self.next.store(ids.next, Ordering::Relaxed);
        Ok(())
    }

    /// Back to the first state: each number is its own id. Only when no table is left.
    pub fn reset(&self) {
        for (number, slot) in self.ids.iter().enumerate() {
            slot.store(number as u32, Ordering::Relaxed);
        }
        self.next.store(DATABASES_MAX as u32, Ordering::Relaxed);
    }
}
