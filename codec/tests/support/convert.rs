//! Conversion of views to the prost types of the same message, so that they can be compared.

use prism_codec::{
    message::{
        common::{DurationView, StatusView, TimestampView, TokenView, WriteResultView},
        keyvalue::*,
    },
    proto::{
        google::rpc,
        prism::{common::v1 as common, keyvalue::v1 as kv},
    },
};

pub(crate) fn duration(view: DurationView) -> prost_types::Duration {
    prost_types::Duration {
        seconds: view.seconds,
        nanos: view.nanos,
    }
}

pub(crate) fn timestamp(view: TimestampView) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: view.seconds,
        nanos: view.nanos,
    }
}

pub(crate) fn token(view: TokenView<'_>) -> common::IdempotencyToken {
    common::IdempotencyToken {
        generation_time: view.generation_time.map(timestamp),
        token: view.token.into(),
    }
}

pub(crate) fn result(view: WriteResultView) -> common::WriteResult {
    common::WriteResult {
        durability: view.durability,
        lane: view.lane,
        lsn: view.lsn,
        applied: view.applied,
    }
}

pub(crate) fn item(view: ItemView<'_>) -> kv::Item {
    let ttl = view.ttl.map(duration);
    kv::Item {
        key: view.key.into(),
        value: view.value.into(),
        ttl,
        compression: view.compression,
        version: view.version.into(),
    }
}

pub(crate) fn predicate(view: PredicateView<'_>) -> kv::Predicate {
    let kind = match view {
        PredicateView::All => kv::predicate::Kind::All(kv::All {}),
        PredicateView::Keys(keys) => {
            assert_eq!(keys.iter().count(), keys.len());
            kv::predicate::Kind::Keys(kv::KeySet {
                keys: keys.iter().map(Into::into).collect(),
            })
        }
        PredicateView::Range { start, end } => kv::predicate::Kind::Range(kv::KeyRange {
            start: start.into(),
            end: end.into(),
        }),
    };
    kv::Predicate { kind: Some(kind) }
}

pub(crate) fn selection(view: SelectionView<'_>) -> kv::Selection {
    kv::Selection {
        page_bytes: view.page_bytes,
        item_limit: view.item_limit,
        page_token: view.page_token.into(),
    }
}

pub(crate) fn put(view: PutView<'_>) -> kv::PutRequest {
    assert_eq!(view.items.iter().count(), view.items.len());
    kv::PutRequest {
        namespace: view.namespace.into(),
        id: view.id.into(),
        idempotency_token: view.token.map(token),
        items: view.items.iter().map(item).collect(),
    }
}

pub(crate) fn get(view: GetView<'_>) -> kv::GetRequest {
    kv::GetRequest {
        namespace: view.namespace.into(),
        id: view.id.into(),
        predicate: Some(predicate(view.predicate)),
        selection: Some(selection(view.selection)),
    }
}

pub(crate) fn delete(view: DeleteView<'_>) -> kv::DeleteRequest {
    kv::DeleteRequest {
        namespace: view.namespace.into(),
        id: view.id.into(),
        idempotency_token: view.token.map(token),
        predicate: Some(predicate(view.predicate)),
    }
}

pub(crate) fn scan(view: ScanView<'_>) -> kv::ScanRequest {
    kv::ScanRequest {
        namespace: view.namespace.into(),
        selection: Some(selection(view.selection)),
    }
}

/// `None`: the mutation breaks a limit.
pub(crate) fn mutation(view: MutationView<'_>) -> Option<kv::Mutation> {
    let operation = match view.operation {
        Ok(MutationOperation::Put(items)) => kv::mutation::Operation::Put(kv::PutItems {
            items: items.iter().map(item).collect(),
        }),
        Ok(MutationOperation::Delete(view)) => kv::mutation::Operation::Delete(kv::DeleteItems {
            predicate: Some(predicate(view)),
        }),
        Err(error) => {
            assert!(error.is_limit(), "{error}");
            return None;
        }
    };
    Some(kv::Mutation {
        id: view.id.into(),
        operation: Some(operation),
    })
}

pub(crate) fn compare_and_swap(view: CompareAndSwapView<'_>) -> kv::CompareAndSwapRequest {
    let expected = match view.expected {
        ExpectedView::Absent => kv::compare_and_swap_request::Expected::Absent(kv::Absent {}),
        ExpectedView::Value(value) => kv::compare_and_swap_request::Expected::Value(value.into()),
        ExpectedView::Version(version) => kv::compare_and_swap_request::Expected::Version(version.into()),
    };
    kv::CompareAndSwapRequest {
        namespace: view.namespace.into(),
        id: view.id.into(),
        key: view.key.into(),
        idempotency_token: view.token.map(token),
        item: view.item.map(item),
        expected: Some(expected),
    }
}

pub(crate) fn get_response(view: GetResponseView<'_>) -> kv::GetResponse {
    kv::GetResponse {
        items: view.items.iter().map(item).collect(),
        next_page_token: view.next_page_token.into(),
    }
}

pub(crate) fn scan_response(view: ScanResponseView<'_>) -> kv::ScanResponse {
    let entry = |entry: ScanEntryView<'_>| kv::ScanEntry {
        id: entry.id.into(),
        items: entry.items.iter().map(item).collect(),
    };
    kv::ScanResponse {
        entries: view.entries.iter().map(entry).collect(),
        next_page_token: view.next_page_token.into(),
    }
}

pub(crate) fn status(view: StatusView<'_>) -> rpc::Status {
    let details = view
        .details
        .iter()
        .map(|any| prost_types::Any {
            type_url: any.type_url.into(),
            value: any.value.into(),
        })
        .collect();
    rpc::Status {
        code: view.code,
        message: view.message.into(),
        details,
    }
}

pub(crate) fn mutate_response(view: MutateResponseView<'_>) -> kv::MutateResponse {
    let one = |one: MutationResultView<'_>| kv::MutationResult {
        status: one.status.map(status),
        result: one.result.map(result),
    };
    kv::MutateResponse {
        results: view.results.iter().map(one).collect(),
    }
}

pub(crate) fn compare_and_swap_response(view: CompareAndSwapResponseView<'_>) -> kv::CompareAndSwapResponse {
    kv::CompareAndSwapResponse {
        swapped: view.swapped,
        current: view.current.map(item),
        result: view.result.map(result),
    }
}
