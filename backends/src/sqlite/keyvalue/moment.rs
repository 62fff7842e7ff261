//! The moment whose state a query sees, and what is deleted there though its rows are still in the
//! file.

use rusqlite::{Connection, Row};

use super::removals::{self, Removal, Seen, Unfinished};
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::sqlite::file::schema::{blob, version_of};

/// One for each query. At first it is taken for granted that nothing is to be hidden, if that was
/// so before the query; its first statement fixes the moment, and [`Moment::holds`] says whether it
/// was so then, too. If not, the query runs again in a snapshot in which that is looked up.
pub(super) struct Moment<'r> {
    unfinished: &'r Unfinished,
    assumed: Option<Seen>,
    has_moved: bool,
    removals: Vec<Removal>,
}

impl<'r> Moment<'r> {
    /// Before the query. `begins` says that no snapshot was begun before.
    pub(super) fn begin(unfinished: &'r Unfinished, begins: bool) -> Moment<'r> {
        let assumed = unfinished.none().filter(|_| begins);
        Moment {
            unfinished,
            assumed,
            has_moved: false,
            removals: Vec::new(),
        }
    }

    /// Whether the query can run without looking anything up.
    pub(super) fn is_known(&self) -> bool {
        self.assumed.is_some()
    }

    /// To be asked when the query's first statement has found its first row, or none; later it
    /// costs nothing. If not, the query must not go on.
    pub(super) fn holds(&mut self) -> bool {
        if let Some(seen) = self.assumed.take() {
            self.has_moved = !self.unfinished.is_still(seen);
        }
        !self.has_moved
    }

    /// Whether the query must run again.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Looks up what is to be hidden of a namespace, or of one id, in the connection's snapshot.
    pub(super) fn look_up(
        &mut self,
        connection: &Connection,
        namespace: NamespaceId,
        id: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.has_moved = false;
        self.removals = removals::unfinished(connection, namespace, id)?;
        Ok(())
    }

    pub(super) fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// Whether a row is deleted; its version is in column 6.
    pub(super) fn hides(
        &self,
        namespace: NamespaceId,
        id: &[u8],
        key: &[u8],
        row: &Row<'_>,
    ) -> Result<bool, StoreError> {
        if self.removals.is_empty() {
            return Ok(false);
        }
        let version = version_of(blob(row, 6)?)?;
        let mut about = self
            .removals
            .iter()
            .filter(|one| one.is_about(namespace, id, key));
        Ok(about.any(|one| version < one.version))
    }
}
