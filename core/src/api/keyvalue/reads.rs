//! Reads: pages of items, written straight into the response message.

use prism_backends::{
    GetQuery, ItemRef, ItemSink, NamespaceId, PageToken, PredicateRef, ScanQuery, Selection, StoreError,
    UnixMillis,
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
    let keys: SmallVec<[&[u8]; 8]>;
    let predicate = match &view.predicate {
        PredicateView::All => PredicateRef::All,
        PredicateView::Keys(all) => {
            keys = all.iter().collect();
            PredicateRef::Keys(&keys)
        }
        PredicateView::Range { start, end } => PredicateRef::Range { start, end },
    };
    let query = GetQuery {
        namespace: context.namespace,
        id: view.id,
        predicate,
        selection: selection(&view.selection),
    };
    let mut sink = GetSink {
        writer: wire::GetResponseWriter::new(out),
        now: context.now,
    };
    let next = read(&query, &mut sink).map_err(|cause| error::from_store(&cause))?;
    sink.writer.finish(next.as_ref().map_or(&[], PageToken::as_bytes));
    Ok(())
}

/// Reads one page of a Scan with the given reader. Returns the next page's token, empty at the end.
pub(crate) fn scan_page(
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    read: impl FnOnce(&ScanQuery<'_>, &mut ScanSink<'_>) -> Result<Option<PageToken>, StoreError>,
) -> Result<Vec<u8>, Box<Status>> {
    let mut sink = ScanSink {
        writer: wire::ScanResponseWriter::new(out),
        now,
    };
    let next =
        read(&ScanQuery { namespace, selection }, &mut sink).map_err(|cause| error::from_store(&cause))?;
    sink.writer.finish(&[]);
    Ok(next.map(|token| token.as_bytes().to_vec()).unwrap_or_default())
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

impl ItemSink for GetSink<'_> {
    fn item(&mut self, item: &ItemRef<'_>) {
        self.writer.item(&item_view(item, self.now));
    }
}

/// Writes the entries of a Scan straight into the response message.
pub(crate) struct ScanSink<'a> {
    writer: wire::ScanResponseWriter<'a>,
    now: UnixMillis,
}

impl ItemSink for ScanSink<'_> {
    fn id(&mut self, id: &str) {
        self.writer.entry(id);
    }

    fn item(&mut self, item: &ItemRef<'_>) {
        self.writer.item(&item_view(item, self.now));
    }
}

pub(super) fn item_view<'a>(item: &ItemRef<'a>, now: UnixMillis) -> ItemView<'a> {
    ItemView {
        key: item.key,
        value: item.value,
        ttl: item
            .expires_at
            .map(|at| DurationView::from_millis(at.0.saturating_sub(now.0))),
        compression: i32::from(item.compression),
    }
}
