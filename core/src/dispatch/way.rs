//! The way of a call: one table over the home of its namespace, the path of its writes, how its
//! reads treat records that the store lacks, the call's effect, and the owners of its keys.
//!
//! | home | path | effect | way |
//! |---|---|---|---|
//! | shards | – | any | inline if all keys are here, else the peers that own them |
//! | store | log first | certain, judged | the log if the owner is here, else the owner's |
//! | store | log first | none, and unapplied writes count | as above: the owner knows what the store lacks |
//! | store | log first | none, and they do not · direct | the store |
//! | store | store only, store then log | any | the store, from whichever shard took the call |
//! | store | queued | certain | the store's queue, from whichever shard took the call; others: the store |

use prism_codec::method::Effect;
use smallvec::SmallVec;

use crate::namespace::spec::{Home, Path, Unapplied};

/// The shards that own the keys of a call, in order, each once.
pub(super) type Shards = SmallVec<[u16; 4]>;

/// The way of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Answered at once, from the memory of this shard.
    Inline,
    /// Through this shard's log.
    Log,
    /// To the shard that owns its keys.
    Peer(u16),
    /// To several shards that own its keys, a part each.
    Peers(Shards),
    /// To the threads of the store.
    Store,
    /// The same, and answered when it is with them.
    Queue,
}

/// Decides the way of a call. `owners` is called only where keys have owners; no owner stands for
/// any shard.
#[inline]
pub(super) fn way(
    home: Home,
    path: Path,
    unapplied: Unapplied,
    effect: Effect,
    owners: impl FnOnce() -> Shards,
    here: u16,
) -> Way {
    let at_owner = match home {
        Home::Shards => Way::Inline,
        Home::Store(_) => {
            let through_log = match (path, effect) {
                (Path::LogFirst, Effect::Certain | Effect::Judged) => true,
                (Path::LogFirst, Effect::None) => unapplied != Unapplied::Ignore,
                (Path::Queued, Effect::Certain) => return Way::Queue,
                (Path::LogFirst, Effect::Direct)
                | (Path::StoreOnly | Path::Queued | Path::StoreThenLog, _) => false,
            };
            if !through_log {
                return Way::Store;
            }
            Way::Log
        }
    };
    let owners = owners();
    match owners[..] {
        [] => at_owner,
        [one] if one == here => at_owner,
        [one] => Way::Peer(one),
        _ => Way::Peers(owners),
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::namespace::spec::StoreId;

    const HERE: u16 = 1;
    const EFFECTS: [Effect; 4] = [Effect::None, Effect::Certain, Effect::Judged, Effect::Direct];

    /// The row of the table, written by hand.
    fn expected(home: Home, path: Path, unapplied: Unapplied, effect: Effect) -> Way {
        match (home, path, effect, unapplied) {
            (Home::Shards, ..) => Way::Inline,
            (Home::Store(_), Path::LogFirst, Effect::Certain, _) => Way::Log,
            (Home::Store(_), Path::LogFirst, Effect::Judged, _) => Way::Log,
            (Home::Store(_), Path::LogFirst, Effect::None, Unapplied::Wait) => Way::Log,
            (Home::Store(_), Path::LogFirst, Effect::None, Unapplied::Overlay) => Way::Log,
            (Home::Store(_), Path::LogFirst, Effect::None, Unapplied::Ignore) => Way::Store,
            (Home::Store(_), Path::LogFirst, Effect::Direct, _) => Way::Store,
            (Home::Store(_), Path::StoreOnly | Path::StoreThenLog, ..) => Way::Store,
            (Home::Store(_), Path::Queued, Effect::Certain, _) => Way::Queue,
            (Home::Store(_), Path::Queued, ..) => Way::Store,
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let mut rows = 0;
        for home in [Home::Shards, Home::Store(StoreId(0)), Home::Store(StoreId(3))] {
            for path in [Path::StoreOnly, Path::Queued, Path::StoreThenLog, Path::LogFirst] {
                for unapplied in [Unapplied::Ignore, Unapplied::Wait, Unapplied::Overlay] {
                    for effect in EFFECTS {
                        let row = expected(home, path, unapplied, effect);
                        let owners: [(Shards, Way); 5] = [
                            (smallvec![], row.clone()),
                            (smallvec![HERE], row.clone()),
                            (smallvec![0], Way::Peer(0)),
                            (smallvec![0, HERE], Way::Peers(smallvec![0, HERE])),
                            (smallvec![0, 2], Way::Peers(smallvec![0, 2])),
                        ];
                        for (owners, at_owner) in owners {
                            let expected = match row {
                                Way::Store | Way::Queue => row.clone(),
                                _ => at_owner,
                            };
                            let found = way(home, path, unapplied, effect, || owners.clone(), HERE);
                            assert_eq!(
                                found, expected,
                                "{home:?} {path:?} {unapplied:?} {effect:?} {owners:?}"
                            );
                            rows += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(rows, 3 * 4 * 3 * 4 * 5);
    }

    #[test]
    fn owners_are_not_asked_where_the_store_takes_all() {
        let home = Home::Store(StoreId(0));
        for effect in EFFECTS {
            let owners = || panic!("the hash of a key costs time");
            assert_eq!(
                way(home, Path::StoreThenLog, Unapplied::Ignore, effect, owners, HERE),
                Way::Store
            );
        }
    }
}
