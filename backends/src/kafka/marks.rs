//! The topic of marks: the catalog that owns the topics, the state of each namespace, and how far
//! the logs of gateways are applied. The last record of a key counts; the others go.
//!
//! ```text
//!   catalog               0123…           the catalog that numbers the namespaces
//!   namespace/7           making | live | dropped
//!   position/7/LOG/LANE   LSN OFFSET      record LSN is applied, look for later ones from OFFSET on
//! ```

use std::rc::Rc;

use rdkafka::producer::BaseRecord;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::unbounded_channel;

use super::cluster::Cluster;
use super::feed::Feed;
use super::link::{ANSWER_MAX, Link, Report};
use super::topics;
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId};

/// Marks as this shard has read them.
#[derive(Default)]
pub(super) struct Marks {
    feed: Feed,
    all: FxHashMap<String, String>,
    /// Offset up to which they were read.
    read: u64,
    /// Positions that are not written yet.
    due: FxHashMap<String, String>,
}

/// State of a namespace, as the marks say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A number that was never used.
    Unknown,
    /// It is being made.
    Making,
    /// It is in use.
    Live,
    /// It was dropped.
    Dropped,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            State::Unknown => "",
            State::Making => "making",
            State::Live => "live",
            State::Dropped => "dropped",
        }
    }
}

/// Key of the catalog's mark.
pub(super) const CATALOG: &str = "catalog";

fn namespace_key(NamespaceId(namespace): NamespaceId) -> String {
    format!("namespace/{namespace}")
}

fn position_key(LogId(log): LogId, lane: u32, NamespaceId(namespace): NamespaceId) -> String {
    format!("position/{namespace}/{log:032x}/{lane}")
}

impl Marks {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.all.get(key).map(String::as_str)
    }

    pub(super) fn state(&self, namespace: NamespaceId) -> State {
        let all = [State::Making, State::Live, State::Dropped];
        let text = self.get(&namespace_key(namespace));
        let found = text.and_then(|text| all.into_iter().find(|state| state.name() == text));
        found.unwrap_or(State::Unknown)
    }

    /// Record and offset of a position.
    pub(super) fn position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Option<(u64, u64)> {
        let (lsn, offset) = self.get(&position_key(log, lane, namespace))?.split_once(' ')?;
        Some((lsn.parse().ok()?, offset.parse().ok()?))
    }

    /// Notes a position, which is written at the next [`flush`].
    pub(super) fn is_at(&mut self, at: &LogPosition, offset: u64) {
        let key = position_key(at.log, at.lane, at.namespace);
        self.due.insert(key, format!("{} {offset}", at.lsn));
    }

    /// Reads what was written since.
    pub(super) async fn refresh(&mut self, link: &Rc<Link>) -> Result<(), StoreError> {
        let (low, head) = topics::watermarks(link, link.own()).await?;
        if head < self.read {
            // The topic was made anew.
            *self = Marks::default();
        }
        while self.read < head {
            let offset = self.read.max(low);
            let taken = self.feed.at(link, link.own(), offset, low).await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let key = text(&taken.key);
            // Of two gateways that come at once the first one's catalog counts.
            if key != CATALOG || !self.all.contains_key(CATALOG) {
                self.all.insert(key, text(&taken.payload));
            }
            self.read = taken.offset + 1;
        }
        Ok(())
    }

    /// Writes a mark, and waits until the brokers have it.
    pub(super) async fn write(&mut self, link: &Rc<Link>, key: &str, value: &str) -> Result<(), StoreError> {
        self.write_all(link, &[(key.to_owned(), value.to_owned())])
            .await?;
        if key != CATALOG {
            self.all.insert(key.to_owned(), value.to_owned());
        }
        Ok(())
    }

    async fn write_all(&mut self, link: &Rc<Link>, marks: &[(String, String)]) -> Result<(), StoreError> {
        let (to, mut reports) = unbounded_channel();
        for (index, (key, value)) in marks.iter().enumerate() {
            let report = Box::new(Report {
                index,
                to: to.clone(),
            });
            let record = BaseRecord::with_opaque_to(link.own(), report)
                .partition(0)
                .key(key)
                .payload(value);
            let sent = link.producer().send(record);
            sent.map_err(|(error, _)| link.failed(&error))?;
        }
        let lost = |reason: String| StoreError::Io {
            detail: format!("kafka: a mark may not have been written: {reason}"),
        };
        for _ in marks {
            let delivered = tokio::select! {
                delivered = reports.recv() => delivered,
                reason = link.closed() => {
                    // What was not sent must not come after later marks.
                    link.close(&reason);
                    return Err(lost(reason));
                }
                () = tokio::time::sleep(ANSWER_MAX) => {
                    let reason = format!("no answer within {} s", ANSWER_MAX.as_secs());
                    link.close(&reason);
                    return Err(lost(reason));
                }
            };
            if let Some(Err(code)) = delivered.map(|one| one.result) {
                link.close(&code.to_string());
                return Err(lost(code.to_string()));
            }
        }
        Ok(())
    }
}

/// Writes the state of a namespace.
pub(super) async fn set_state(
    cluster: &Cluster,
    link: &Rc<Link>,
    namespace: NamespaceId,
    state: State,
) -> Result<(), StoreError> {
    let mut marks = cluster.marks.lock().await;
    marks.write(link, &namespace_key(namespace), state.name()).await
}

/// Writes a position at once.
pub(super) async fn set_position(
    cluster: &Cluster,
    link: &Rc<Link>,
    at: &LogPosition,
    offset: u64,
) -> Result<(), StoreError> {
    let mut marks = cluster.marks.lock().await;
    let key = position_key(at.log, at.lane, at.namespace);
    marks.due.remove(&key);
    marks.write(link, &key, &format!("{} {offset}", at.lsn)).await
}

/// Writes the positions that have changed since the last time.
pub(super) async fn flush(cluster: &Cluster, link: &Rc<Link>) -> Result<(), StoreError> {
    let mut marks = cluster.marks.lock().await;
    if marks.due.is_empty() {
        return Ok(());
    }
    let due: Vec<_> = marks
        .due
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    marks.write_all(link, &due).await?;
    for (key, value) in due {
        if marks.due.get(&key) == Some(&value) {
            marks.due.remove(&key);
        }
        marks.all.insert(key, value);
    }
    Ok(())
}

/// State of a namespace: as it is known, or if it is not live there, as the marks say now.
pub(super) async fn state(
    cluster: &Cluster,
    link: &Rc<Link>,
    namespace: NamespaceId,
    is_fresh: bool,
) -> Result<State, StoreError> {
    let mut marks = cluster.marks.lock().await;
    if is_fresh || marks.state(namespace) != State::Live {
        marks.refresh(link).await?;
    }
    Ok(marks.state(namespace))
}
