//! How far the logs of gateways are applied here. A position is noted by the script that applies
//! its records, so that after a crash the server has both or neither. Whether they
//! are on disk then depends on its settings: see [`Facts`](super::Facts).

use redis::Value;

use super::connect::{Fault, bytes};
use super::{Redis, script};
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId};

/// Name of a position among those of its namespace: its log, and its lane.
pub(super) fn field(at: &LogPosition) -> String {
    field_of(at.log, at.lane)
}

fn field_of(LogId(log): LogId, lane: u32) -> String {
    format!("{log:032x}.{lane}")
}

impl Redis {
    /// Position that is noted of one lane in a namespace.
    pub async fn position(
        &self,
        log: LogId,
        lane: u32,
        namespace: NamespaceId,
    ) -> Result<Option<LogPosition>, StoreError> {
        let mut asked = redis::pipe();
        asked
            .cmd("HGET")
            .arg(format!("{}applied", script::prefix(namespace)))
            .arg(field_of(log, lane));
        let answers = self.links.ask(&asked).await?;
        if matches!(answers.first(), None | Some(Value::Nil)) {
            return Ok(None);
        }
        let text = bytes(answers.first()).map_err(Fault::into_store)?;
        let lsn = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let lsn = lsn.ok_or_else(|| StoreError::Corrupt {
            detail: "redis: a position that is no number".to_owned(),
        })?;
        Ok(Some(LogPosition {
            log,
            lane,
            namespace,
            lsn,
        }))
    }

    /// Forgets the position of one lane in a namespace: its records are gone for good.
    pub async fn forget(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        let mut asked = redis::pipe();
        asked
            .cmd("HDEL")
            .arg(format!("{}applied", script::prefix(namespace)))
            .arg(field_of(log, lane));
        self.links.ask(&asked).await.map(drop)
    }
}
