//! The limit of open files: each connection is one, so it is raised to what `max_connections` needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::session::limits::OTHER_FILES;

/// Raises the limit of open files so that this many connections have room. What the system does not allow is logged with
/// its remedy; connections beyond it are refused when they come (`net::accept`), however high `max_connections` is.
pub(super) fn raise_limit(max_connections: u32) {
    let needed = u64::from(max_connections) + OTHER_FILES;
    let now = getrlimit(Resource::Nofile);
    let Some((current, maximum)) = limits(now) else { return };
    if current >= needed {
        return;
    }
    // A privileged process may raise the hard limit as well; others get as far as that.
    let raised = Rlimit { current: Some(needed), maximum: Some(maximum.max(needed)) };
    let reached = Rlimit { current: Some(needed.min(maximum)), maximum: Some(maximum) };
    if setrlimit(Resource::Nofile, raised).is_err() && setrlimit(Resource::Nofile, reached).is_err() {
        debug!("the limit of open files stays at {current}");
    }
    let now = limits(getrlimit(Resource::Nofile)).map_or(u64::MAX, |(current, _)| current);
    if now < needed {
        warn!(
            "max_connections is {max_connections}, but the limit of open files is {now}: connections beyond {} are \
             refused; raise it with `ulimit -n {needed}` or LimitNOFILE={needed} in the unit",
            now.saturating_sub(OTHER_FILES)
        );
    }
}

/// Soft and hard limit; `None` where the soft one does not limit.
fn limits(limit: Rlimit) -> Option<(u64, u64)> {
    limit.current.map(|current| (current, limit.maximum.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_needed_or_as_allowed() {
        let hard = limits(getrlimit(Resource::Nofile)).map_or(u64::MAX, |(_, maximum)| maximum);
        raise_limit(300);
        let soft = limits(getrlimit(Resource::Nofile)).map_or(u64::MAX, |(current, _)| current);
        assert!(soft >= (300 + OTHER_FILES).min(hard), "{soft}");
    }
}
