//! KeyValue on Redis: what a call means there. Keys are in `STORE.md`.
//!
//! * [`writes`]: batches, one script call for each namespace, all of them sent together.
//! * [`reads`]: pages. A page fetches hardly more than it may hold.
//! * [`upkeep`]: namespaces, and the sweep.
//!
//! Whatever depends on stored data is decided by the scripts, which are in `../scripts`:
//! versions, remembered deletes, expectations of swaps and their first answers, positions.

mod reads;
mod upkeep;
mod writes;

use std::rc::Rc;

use redis::Value;

pub use self::upkeep::KEYVALUE;

use super::Redis;
use super::connect::{Fault, bytes, unexpected};
use super::links::Links;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::ItemRef;
use crate::version::{VERSION_BYTES, Version, version_of};

/// The cell. Its futures run on the thread of its connections, inside a tokio runtime with a
/// `LocalSet`. One that is dropped leaves the connection in order.
#[derive(Clone, Debug)]
pub struct KeyValue {
    links: Rc<Links>,
}

impl KeyValue {
    /// KeyValue over the connections of a store.
    pub fn new(store: &Redis) -> KeyValue {
        KeyValue {
            links: store.links.clone(),
        }
    }
}

/// State of a namespace that can be used, as it is stored.
const LIVE: &[u8] = b"0";

/// Whether the namespace of a script's answer can be used.
fn check_state(namespace: NamespaceId, state: Option<&Value>) -> Result<Result<(), StoreError>, Fault> {
    Ok(match bytes(state)? {
        LIVE => Ok(()),
        b"-" => Err(StoreError::UnknownNamespace(namespace)),
        _ => Err(StoreError::DroppedNamespace(namespace)),
    })
}

/// A moment as it is stored: digits, none for never.
fn digits(moment: Option<UnixMillis>) -> String {
    moment.map_or_else(String::new, |UnixMillis(moment)| {
        moment.min(i64::MAX as u64).to_string()
    })
}

/// An item of its row and value.
fn item_of<'a>(key: &'a [u8], row: &[u8], value: &'a [u8]) -> Result<(ItemRef<'a>, Version), Fault> {
    let parts = row
        .split_at_checked(VERSION_BYTES)
        .and_then(|(version, rest)| Some((version, rest.split_first()?)));
    let (version, (kind, moment)) = parts.ok_or_else(|| unexpected(None))?;
    let item = ItemRef {
        key,
        value,
        expires_at: moment_of(moment)?,
        compression: *kind,
    };
    Ok((item, version_of(version).map_err(Fault::Refused)?))
}

fn moment_of(digits: &[u8]) -> Result<Option<UnixMillis>, Fault> {
    if digits.is_empty() {
        return Ok(None);
    }
    let moment = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    moment
        .map(|moment| Some(UnixMillis(moment)))
        .ok_or_else(|| unexpected(None))
}
