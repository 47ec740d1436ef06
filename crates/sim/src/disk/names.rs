//! The names of the simulated disk: which file a path leads to, now and after a power cut.
//!
//! A created, renamed or removed name is seen at once and kept for sure only after its directory was synced. A power
//! cut keeps of the changes since then none, all, the first ones, or any of them; a rename is kept whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// Number of a file, whatever its name.
pub(crate) type FileId = u64;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(FileId),
}

/// One change of names.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add { path: PathBuf, node: Node },
    Rename { from: PathBuf, to: PathBuf, node: Node },
    Remove { path: PathBuf },
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// A sync of its directory failed: it may be on the disk, and no later sync will bring it there.
    abandoned: bool,
}

/// The tree of names.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    cached: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Pending>,
}

impl Change {
    fn is_in(&self, directory: &Path) -> bool {
        match self {
            Change::Add { path, .. } | Change::Remove { path } => path.parent() == Some(directory),
            Change::Rename { to, .. } => to.parent() == Some(directory),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Add { path, node } => {
                names.insert(path.clone(), *node);
            }
            Change::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
            Change::Remove { path } => {
                names.remove(path);
            }
        }
    }

    fn touches(&self, other: &Path) -> bool {
        match self {
            Change::Add { path, .. } | Change::Remove { path } => path == other,
            Change::Rename { from, to, .. } => from == other || to == other,
        }
    }
}

impl Names {
    /// A disk that holds its root directory and nothing else.
    pub(crate) fn new() -> Names {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        Names { cached: root.clone(), durable: root, pending: Vec::new() }
    }

    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        self.cached.get(path).copied()
    }

    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(Pending { change, abandoned: false });
    }

    /// The files right below `directory`.
    pub(crate) fn files_in(&self, directory: &Path) -> Vec<(PathBuf, FileId)> {
        let children = self.cached.iter().filter(|(path, _)| path.parent() == Some(directory));
        children
            .filter_map(|(path, node)| match node {
                Node::File(file) => Some((path.clone(), *file)),
                Node::Directory => None,
            })
            .collect()
    }

    /// Every file that a name leads to, now.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, FileId)> {
        self.cached.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path.as_path(), *file)),
            Node::Directory => None,
        })
    }

    /// The names in `directory` become durable.
    pub(crate) fn sync(&mut self, directory: &Path) {
        let mut left = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if !pending.change.is_in(directory) || pending.abandoned {
                left.push(pending);
                continue;
            }
            pending.change.apply(&mut self.durable);
            // What this change went past cannot come after it.
            left.retain(|earlier: &Pending| !paths(&pending.change).any(|path| earlier.change.touches(path)));
        }
        self.pending = left;
    }

    /// A sync of `directory` failed: its changes may or may not be on the disk, whatever a later sync says.
    pub(crate) fn abandon(&mut self, directory: &Path) {
        for pending in self.pending.iter_mut().filter(|pending| pending.change.is_in(directory)) {
            pending.abandoned = true;
        }
    }

    /// A new process syncs what it finds; what an earlier one gave up counts as never tried.
    pub(crate) fn forget_failures(&mut self) {
        for pending in &mut self.pending {
            pending.abandoned = false;
        }
    }

    /// The names as they may stand after a power cut.
    pub(crate) fn after_power_cut(&self, random: &mut Random) -> Names {
        let mut names = self.durable.clone();
        let mode = random.below(4);
        let prefix = random.index(self.pending.len() + 1);
        for (place, pending) in self.pending.iter().enumerate() {
            let kept = match mode {
                0 => false,
                1 => true,
                2 => place < prefix,
                _ => random.chance(1, 2),
            };
            if kept {
                pending.change.apply(&mut names);
            }
        }
        remove_unreachable(&mut names);
        Names { cached: names.clone(), durable: names, pending: Vec::new() }
    }
}

fn paths(change: &Change) -> impl Iterator<Item = &Path> {
    let (first, second) = match change {
        Change::Add { path, .. } | Change::Remove { path } => (path.as_path(), None),
        Change::Rename { from, to, .. } => (from.as_path(), Some(to.as_path())),
    };
    std::iter::once(first).chain(second)
}

/// What lies in a directory that was not kept is not kept.
fn remove_unreachable(names: &mut BTreeMap<PathBuf, Node>) {
    loop {
        let lost: Vec<PathBuf> = names
            .keys()
            .filter(|path| path.parent().is_some_and(|parent| names.get(parent) != Some(&Node::Directory)))
            .cloned()
            .collect();
        if lost.is_empty() {
            return;
        }
        for path in lost {
            names.remove(&path);
        }
    }
}
