//! What is said of a command: the columns of its row, and finding rows by name.

use std::fmt;

/// How many arguments a command takes, its own name counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Just so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether `arguments` are right, the name counted.
    #[inline]
    pub fn allows(self, arguments: usize) -> bool {
        match self {
            Arity::Exactly(wanted) => arguments == wanted,
            Arity::AtLeast(wanted) => arguments >= wanted,
        }
    }

    /// As COMMAND INFO tells it: negative for "at least".
    pub fn as_number(self) -> i64 {
        match self {
            Arity::Exactly(wanted) => wanted as i64,
            Arity::AtLeast(wanted) => -(wanted as i64),
        }
    }
}

/// Where a command's keys, or values, stand among its arguments (0 is the name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPositions {
    /// Position of the first key; 0 when there is none.
    pub first: usize,
    /// Position of the last key; negative counts from the end (-1 is the last argument).
    pub last: isize,
    /// Distance between keys.
    pub step: usize,
}

impl KeyPositions {
    /// No key.
    pub const NONE: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
    /// The first argument.
    pub const FIRST: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
    /// The second argument.
    pub const SECOND: KeyPositions = KeyPositions { first: 2, last: 2, step: 1 };
    /// The first two arguments.
    pub const FIRST_TWO: KeyPositions = KeyPositions { first: 1, last: 2, step: 1 };
    /// Every argument.
    pub const EVERY: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
    /// Every other argument, from the second: the values of pairs.
    pub const VALUES_OF_PAIRS: KeyPositions = KeyPositions { first: 2, last: -1, step: 2 };
    /// Every other argument, from the first.
    pub const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };

    /// The positions, where the command has `arguments` arguments (its name counted).
    #[inline]
    pub fn of(self, arguments: usize) -> impl Iterator<Item = usize> + use<> {
        let end = if self.last < 0 { arguments.saturating_add_signed(self.last) } else { self.last as usize };
        let end = if self.first == 0 { 0 } else { (end + 1).min(arguments) };
        (self.first..end).step_by(self.step.max(1))
    }
}

/// Facts about a command, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Nothing special.
    pub const NONE: Flags = Flags(0);
    /// Takes a short, bounded time.
    pub const FAST: Flags = Flags(1);
    /// Is about a whole database or all of them, not about keys named in its arguments.
    pub const WHOLE: Flags = Flags(1 << 1);
    /// Only gives room back: goes on when the disk is full.
    pub const FREES: Flags = Flags(1 << 2);
    /// May log as much as the values of its keys, beyond its arguments.
    pub const LOGS_VALUES: Flags = Flags(1 << 3);
    /// May log a number of up to 5 KiB, beyond its arguments.
    pub const LOGS_NUMBER: Flags = Flags(1 << 9);
    /// May make more data: refused when memory is short.
    pub const ADDS: Flags = Flags(1 << 10);
    /// For operators.
    pub const ADMIN: Flags = Flags(1 << 4);
    /// Can do harm to everybody's data or service.
    pub const DANGEROUS: Flags = Flags(1 << 5);
    /// May be called before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 6);
    /// Not allowed between MULTI and EXEC.
    pub const NO_MULTI: Flags = Flags(1 << 7);
    /// Reads a whole database segment by segment, and all at once only in a transaction.
    pub const BY_SEGMENT: Flags = Flags(1 << 11);
    /// Its first argument is the name of a subcommand.
    pub const CONTAINER: Flags = Flags(1 << 8);

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#b})", self.0)
    }
}

/// Which chapter of the manual a command belongs to (Redis's groups).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// MULTI and friends.
    Transactions,
    /// The connection itself.
    Connection,
    /// The server itself.
    Server,
}

impl Group {
    /// As COMMAND DOCS names it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
        }
    }
}

/// What is said of a command; dispatch, arity errors, COMMAND DOCS, INFO and GETKEYS and the client's help follow from it.
#[derive(Clone, Copy, Debug)]
pub struct CommandInfo {
    /// In lower case.
    pub name: &'static str,
    /// How many arguments.
    pub arity: Arity,
    /// Which of them are keys.
    pub keys: KeyPositions,
    /// Facts.
    pub flags: Flags,
    /// Chapter.
    pub group: Group,
    /// The arguments as a manual writes them.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The release of Bowline that brought it.
    pub since: &'static str,
}

/// Finds rows by name, in any case of letters: an open-addressing table that is built once.
pub struct NameTable<T: 'static> {
    slots: Vec<Option<(&'static str, &'static T)>>,
}

impl<T> NameTable<T> {
    /// A table of these rows.
    ///
    /// # Panics
    /// When two rows have one name.
    pub fn new(rows: impl Iterator<Item = (&'static str, &'static T)>) -> NameTable<T> {
        let rows: Vec<_> = rows.collect();
        let mut slots = vec![None; (rows.len() * 4).next_power_of_two()];
        for (name, row) in rows {
            let mut index = slot_of(name.as_bytes(), slots.len());
            while let Some((taken, _)) = slots[index] {
                assert_ne!(taken, name, "two rows for one command");
                index = (index + 1) % slots.len();
            }
            slots[index] = Some((name, row));
        }
        NameTable { slots }
    }

    /// The row of a name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&'static T> {
        let mut index = slot_of(name, self.slots.len());
        while let Some((found, row)) = self.slots[index] {
            if found.len() == name.len() && found.as_bytes().eq_ignore_ascii_case(name) {
                return Some(row);
            }
            index = (index + 1) % self.slots.len();
        }
        None
    }
}

/// Mixes length, first, middle and last letters without regard to case.
#[inline]
fn slot_of(name: &[u8], slots: usize) -> usize {
    let letter = |index: usize| name.get(index).map_or(0, |byte| u32::from(byte | 0x20));
    let mixed = letter(0) | letter(name.len() / 2) << 8 | letter(name.len().wrapping_sub(1)) << 16;
    let mixed = (mixed ^ letter(1) << 12 ^ letter(3) << 5 ^ (name.len() as u32) << 26).wrapping_mul(0x9e37_79b1);
    (mixed >> 12) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_positions_follow_the_number_of_arguments() {
        let of = |keys: KeyPositions, arguments| keys.of(arguments).collect::<Vec<_>>();
        assert_eq!(of(KeyPositions::FIRST, 3), [1]);
        assert_eq!(of(KeyPositions::FIRST, 1), [0usize; 0]);
        assert_eq!(of(KeyPositions::EVERY, 4), [1, 2, 3]);
        assert_eq!(of(KeyPositions::PAIRS, 5), [1, 3]);
        assert_eq!(of(KeyPositions::PAIRS, 4), [1, 3]);
        assert_eq!(of(KeyPositions::FIRST_TWO, 2), [1]);
        assert_eq!(of(KeyPositions::NONE, 9), [0usize; 0]);
    }

    #[test]
    fn names_are_found_in_any_case() {
        let table = NameTable::new([("get", &1), ("getset", &2), ("bl.cas", &3)].into_iter());
        assert_eq!(table.find(b"GeTsEt"), Some(&2));
        assert_eq!(table.find(b"BL.CAS"), Some(&3));
        assert_eq!(table.find(b"ge"), None);
        assert_eq!(table.find(b""), None);
    }
}
