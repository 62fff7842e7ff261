//! The scripts, and the calls of them.

use redis::Cmd;

use crate::ids::NamespaceId;

/// A script, by its place in [`SCRIPTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Write,
    Read,
    Scan,
    Sweep,
}

/// All of them.
pub(super) const SCRIPTS: [Script; 4] = [Script::Write, Script::Read, Script::Scan, Script::Sweep];

/// The text of a script.
pub(super) fn source(script: Script) -> String {
    const COMMON: &str = include_str!("scripts/common.lua");
    let own = match script {
        Script::Write => include_str!("scripts/write.lua"),
        Script::Read => include_str!("scripts/read.lua"),
        Script::Scan => include_str!("scripts/scan.lua"),
        Script::Sweep => include_str!("scripts/sweep.lua"),
    };
    [COMMON, own].concat()
}

/// Beginning of the keys of a namespace. All of them lie in one slot of a cluster.
pub(super) fn prefix(NamespaceId(number): NamespaceId) -> String {
    format!("prism:{{{number}}}:")
}

/// A call of the script of this name, for one namespace, without arguments yet.
pub(super) fn call(name: &str, namespace: NamespaceId) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(name).arg(1).arg(prefix(namespace));
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_their_places() {
        for (at, script) in SCRIPTS.into_iter().enumerate() {
            assert_eq!(script as usize, at);
            assert!(source(script).contains("KEYS[1]"), "{script:?}");
        }
        assert_eq!(prefix(NamespaceId(7)), "prism:{7}:");
    }
}
