//! Several changes that happen together or not at all.

/// Puts and deletes for [`Store::write`](super::Store::write).
///
/// ```
/// # fn main() -> bowline::Result<()> {
/// # let directory = tempfile::tempdir().expect("a temporary directory");
/// # let store = bowline::Store::open(bowline::Options::new(directory.path()))?;
/// let mut batch = bowline::Batch::new();
/// batch.put(b"from", b"50").put(b"to", b"150").delete(b"pending");
/// store.write(&batch)?; // all of it, or nothing
/// # store.close()
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a put.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Batch {
        self.changes.push((key.to_vec(), Some(value.to_vec())));
        self
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) -> &mut Batch {
        self.changes.push((key.to_vec(), None));
        self
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
