//! Reads: pages of items, written straight into the response message.

use prism_backends::{
    GetQuery, ItemRef, ItemSink, NamespaceId, PageToken, PredicateRef, ScanQuery, Selection, StoreError,
    UnixMillis, Version, api::keyvalue::Reads,
};
use prism_codec::{
    grpc::Status,
    message::{
        common::DurationView,
        keyvalue::{self as wire, GetView, ItemView, PredicateView, SelectionView},
    },
};
use smallvec::SmallVec;

use crate::call::{context::Context, error};

/// Serves a Get with the given reader.
pub(crate) fn get(
    view: &GetView<'_>,
    context: &Context,
    out: &mut Vec<u8>,
    read: impl FnOnce(&GetQuery<'_>, &mut GetSink<'_>) -> Result<Option<PageToken>, StoreError>,
) -> Result<(), Box<Status>> {
    let keys = keys_of(view);
    let query = query(view, context, &keys);
    let mut sink = GetSink::new(out, context.now);
    let next = read(&query, &mut sink);
    sink.end(next)
}

/// Serves a Get from a store that answers later.
pub(crate) async fn get_later(
    view: &GetView<'_>,
    context: &Context,
    out: &mut Vec<u8>,
    store: &impl Reads,
) -> Result<(), Box<Status>> {
    let keys = keys_of(view);
    let query = query(view, context, &keys);
    let mut sink = GetSink::new(out, context.now);
    let next = store.get(&query, context.now, &mut sink).await;
    sink.end(next)
}

/// Keys that a Get names.
fn keys_of<'a>(view: &GetView<'a>) -> SmallVec<[&'a [u8]; 8]> {
    match &view.predicate {
        PredicateView::Keys(all) => all.iter().collect(),
        PredicateView::All | PredicateView::Range { .. } => SmallVec::new(),
    }
}

/// The query of a Get with the keys that it names.
fn query<'q>(view: &GetView<'q>, context: &Context, keys: &'q [&'q [u8]]) -> GetQuery<'q> {
    let predicate = match view.predicate {
        PredicateView::All => PredicateRef::All,
        PredicateView::Keys(_) => PredicateRef::Keys(keys),
        PredicateView::Range { start, end } => PredicateRef::Range { start, end },
    };
    GetQuery {
        namespace: context.namespace,
        id: view.id,
        predicate,
        selection: selection(&view.selection),
    }
}

/// Reads one page of a Scan with the given reader. Returns the next page's token, empty at the end.
pub(crate) fn scan_page(
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    read: impl FnOnce(&ScanQuery<'_>, &mut ScanSink<'_>) -> Result<Option<PageToken>, StoreError>,
) -> Result<Vec<u8>, Box<Status>> {
    let mut sink = ScanSink::new(out, now);
    let next = read(&ScanQuery { namespace, selection }, &mut sink);
    sink.end(next)
}

/// Reads one page of a Scan from a store that answers later.
pub(crate) async fn scan_page_later(
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    store: &impl Reads,
) -> Result<Vec<u8>, Box<Status>> {
    let mut sink = ScanSink::new(out, now);
    let query = ScanQuery { namespace, selection };
    let next = store.scan(&query, now, &mut sink).await;
    sink.end(next)
}

/// The selection of a request as a store takes it.
pub(crate) fn selection<'a>(view: &SelectionView<'a>) -> Selection<'a> {
    Selection {
        page_bytes: view.page_bytes,
        item_limit: view.item_limit,
        page_token: view.page_token,
    }
}

/// Writes the items of a Get straight into the response message.
pub(crate) struct GetSink<'a> {
    writer: wire::GetResponseWriter<'a>,
    now: UnixMillis,
}

impl<'a> GetSink<'a> {
    fn new(out: &'a mut Vec<u8>, now: UnixMillis) -> Self {
        Self {
            writer: wire::GetResponseWriter::new(out),
            now,
        }
    }

    fn end(self, next: Result<Option<PageToken>, StoreError>) -> Result<(), Box<Status>> {
        let next = next.map_err(|cause| error::from_store(&cause))?;
        self.writer.finish(next.as_ref().map_or(&[], PageToken::as_bytes));
        Ok(())
    }
}

impl ItemSink for GetSink<'_> {
    fn item(&mut self, item: &ItemRef<'_>, version: Version) {
        self.writer.item(&item_view(item, &version.to_bytes(), self.now));
    }
}

/// Writes the entries of a Scan straight into the response message.
pub(crate) struct ScanSink<'a> {
    writer: wire::ScanResponseWriter<'a>,
    now: UnixMillis,
}

impl<'a> ScanSink<'a> {
    fn new(out: &'a mut Vec<u8>, now: UnixMillis) -> Self {
        Self {
            writer: wire::ScanResponseWriter::new(out),
            now,
        }
    }

    fn end(self, next: Result<Option<PageToken>, StoreError>) -> Result<Vec<u8>, Box<Status>> {
        let next = next.map_err(|cause| error::from_store(&cause))?;
        self.writer.finish(&[]);
        Ok(next.map(|token| token.as_bytes().to_vec()).unwrap_or_default())
    }
}

impl ItemSink for ScanSink<'_> {
    fn id(&mut self, id: &str) {
        self.writer.entry(id);
    }

    fn item(&mut self, item: &ItemRef<'_>, version: Version) {
        self.writer.item(&item_view(item, &version.to_bytes(), self.now));
    }
}

pub(super) fn item_view<'a>(item: &ItemRef<'a>, version: &'a [u8], now: UnixMillis) -> ItemView<'a> {
    ItemView {
        key: item.key,
        value: item.value,
        ttl: item
            .expires_at
            .map(|at| DurationView::from_millis(at.0.saturating_sub(now.0))),
        compression: i32::from(item.compression),
        version,
    }
}
