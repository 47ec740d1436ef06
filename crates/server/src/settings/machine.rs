//! How much memory there is for this process: the machine's, or less where a control group limits it.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory of the machine or the limit of a cgroup that this process is in, whichever is less, bytes. Where the system tells
/// nothing, as much as can be.
pub(super) fn memory_bytes() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limit(&groups, Path::new("/sys/fs/cgroup"));
    machine_bytes().unwrap_or(u64::MAX).min(limit.unwrap_or(u64::MAX))
}

fn machine_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The least limit of the groups named in `groups` (the text of /proc/self/cgroup) and of those above them, both versions.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        // A group outside of the container that we are in: what limits it is seen at the root, if at all.
        let path = if path.split('/').any(|part| part == "..") { "" } else { path };
        match controllers {
            "" => least(root, path, "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                least(&root.join("memory"), path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

/// The least number in files of this name in the folder `path` below `root` and in all folders above it.
fn least(root: &Path, path: &str, name: &str) -> Option<u64> {
    let folder = root.join(path);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(root)).map(PathBuf::from);
    folders.filter_map(|folder| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).expect("made");
        assert_eq!(group_limit("0::/a/b\n", root.path()), None);
        fs::write(folder.join("memory.max"), "max\n").expect("written");
        fs::write(root.path().join("a/memory.max"), "1048576\n").expect("written");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(1 << 20));
        fs::write(folder.join("memory.max"), "4096\n").expect("written");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(4096));
        assert_eq!(group_limit("1:cpu:/a\n0::/../a\n", root.path()), None, "no folder outside is looked into");
    }

    #[test]
    fn the_first_version_of_groups_is_read_where_it_has_the_memory() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("memory/box");
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("memory.limit_in_bytes"), "2048\n").expect("written");
        assert_eq!(group_limit("5:cpu,cpuacct:/box\n4:memory:/box\n", root.path()), Some(2048));
    }

    #[test]
    fn there_is_some_memory() {
        assert!(memory_bytes() > 1 << 20);
    }
}
