//! gRPC framing and the protobuf views: results do not depend on the cuts, memory is bounded, and
//! prost agrees.

use prism_codec::error::{DecodeError, DecodeErrorKind};
use prism_codec::grpc::{self, Deframer, Encoding, Status};
use prism_codec::message::keyvalue::{
    CompareAndSwapView, DeleteView, GetView, ItemView, MutateView, PutView, ScanView,
};
use prism_codec::message::pubsub::{
    CommitView, DeleteGroupView, ListGroupsView, PublishBatchView, PublishView, ResetGroupView, SubscribeView,
};
use prism_codec::proto::prism::{keyvalue::v1 as proto, pubsub::v1 as pubsub};
use prost::Message;

use super::pieces;

const MESSAGE_MAX: usize = 4 << 10;
const INFLATED_MAX: usize = 64 << 10;

/// Input: a byte that seeds the cuts, then the DATA of one stream; the same bytes serve as header
/// values.
pub fn grpc(input: &[u8]) {
    let Some((&cut, data)) = input.split_first() else {
        return;
    };
    let whole = deframe([data].into_iter());
    assert_eq!(
        whole,
        deframe(pieces(data, cut)),
        "how the stream is cut does not matter"
    );

    let mut out = b"kept".to_vec();
    for encoding in [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Zstd,
    ] {
        let accepted = grpc::decompress(encoding, data, INFLATED_MAX, &mut out).is_ok();
        assert!(out.len() <= 4 + INFLATED_MAX && (accepted || out == b"kept"));
        out.truncate(4);
    }
    let fits = data.len() <= INFLATED_MAX;
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        out.clear();
        if grpc::Compressor::default().compress(encoding, data, &mut out) {
            let mut inflated = Vec::new();
            assert_eq!(
                grpc::decompress(encoding, &out, INFLATED_MAX, &mut inflated).is_ok(),
                fits
            );
            assert!(!fits || inflated == data);
        }
    }

    if let Some(timeout) = grpc::parse_timeout(data) {
        let written = grpc::format_timeout(timeout);
        let again = grpc::parse_timeout(written.as_bytes()).expect("what we write is a timeout");
        assert!(again.abs_diff(timeout) <= timeout / 10_000 + std::time::Duration::from_nanos(1));
    }
    let text = grpc::decode_message(data);
    let mut encoded = Vec::new();
    grpc::encode_message(&text, &mut encoded);
    assert!(
        encoded.iter().all(|byte| (b' '..0x7f).contains(byte)),
        "a legal header value"
    );
    assert_eq!(grpc::decode_message(&encoded), text);
    assert_eq!(
        grpc::decode_binary(grpc::encode_binary(data).as_bytes()).as_deref(),
        Ok(data)
    );
    let _ = Status::from_trailers(Some(data), Some(data), Some(data)).reason();
    let _ = (grpc::is_content_type(data), Encoding::parse(data));
}

/// Messages of a stream that arrives in these pieces, and how it ended.
fn deframe<'a>(stream: impl Iterator<Item = &'a [u8]>) -> (Vec<(bool, Vec<u8>)>, String) {
    let mut deframer = Deframer::new(MESSAGE_MAX);
    let mut messages = Vec::new();
    for mut piece in stream {
        loop {
            match deframer.next(&mut piece) {
                Ok(Some(frame)) => {
                    assert!(frame.bytes.len() <= MESSAGE_MAX);
                    messages.push((frame.compressed, frame.bytes.to_vec()));
                }
                Ok(None) => break,
                Err(error) => return (messages, format!("{error:?}")),
            }
        }
        assert!(piece.is_empty() && deframer.buffered_bytes() <= MESSAGE_MAX + grpc::PREFIX_BYTES);
    }
    let end = format!("{:?}", deframer.finish());
    (messages, end)
}

/// Input: a byte that chooses the message, then its bytes. A message accepted by a view has the
/// same values in prost; a message accepted by prost alone breaks a limit of the API.
pub fn views(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    match choice % 13 {
        0 => agree(
            PutView::decode(bytes),
            proto::PutRequest::decode(bytes),
            |view, message| {
                let token = view.token.map(|token| format!("{token:?}"));
                assert_eq!((view.namespace, view.id), (&*message.namespace, &*message.id));
                assert_eq!(token.is_some(), message.idempotency_token.is_some());
                same_items(view.items.iter(), &message.items);
            },
        ),
        1 => agree(
            GetView::decode(bytes),
            proto::GetRequest::decode(bytes),
            |view, message| {
                assert_eq!((view.namespace, view.id), (&*message.namespace, &*message.id));
            },
        ),
        2 => agree(
            DeleteView::decode(bytes),
            proto::DeleteRequest::decode(bytes),
            |view, message| {
                assert_eq!((view.namespace, view.id), (&*message.namespace, &*message.id));
                assert_eq!(view.token.is_some(), message.idempotency_token.is_some());
            },
        ),
        3 => agree(
            ScanView::decode(bytes),
            proto::ScanRequest::decode(bytes),
            |view, message| {
                assert_eq!(view.namespace, &*message.namespace);
            },
        ),
        4 => agree(
            MutateView::decode(bytes),
            proto::MutateRequest::decode(bytes),
            |view, message| {
                assert_eq!(view.namespace, &*message.namespace);
                assert_eq!(view.mutations.len(), message.mutations.len());
                for (mutation, expected) in view.mutations.iter().zip(&message.mutations) {
                    assert_eq!(mutation.id, &*expected.id);
                }
            },
        ),
        5 => agree(
            PublishView::decode(bytes),
            pubsub::PublishRequest::decode(bytes),
            |view, message| {
                assert_eq!(view.namespace, &*message.namespace);
                let message = message.message.as_ref().expect("required");
                assert_eq!(
                    (view.message.topic, view.message.payload),
                    (&*message.topic, &*message.payload)
                );
                assert_eq!(view.message.attributes.len(), message.attributes.len());
            },
        ),
        6 => agree(
            PublishBatchView::decode(bytes),
            pubsub::PublishBatchRequest::decode(bytes),
            |view, message| {
                assert_eq!(view.messages.len(), message.messages.len());
                for (ours, theirs) in view.messages.iter().zip(&message.messages) {
                    assert_eq!(ours.message.ordering_key, &*theirs.ordering_key);
                }
            },
        ),
        7 => agree(
            SubscribeView::decode(bytes),
            pubsub::SubscribeRequest::decode(bytes),
            |view, message| {
                assert!(view.topics.iter().eq(message.topics.iter().map(|topic| &**topic)));
                assert_eq!(view.group, &*message.group);
            },
        ),
        choice @ 8..=11 => group_views(choice, bytes),
        _ => agree(
            CompareAndSwapView::decode(bytes),
            proto::CompareAndSwapRequest::decode(bytes),
            |view, message| {
                assert_eq!((view.namespace, view.id), (&*message.namespace, &*message.id));
                assert_eq!(view.key, &*message.key);
            },
        ),
    }
}

/// The requests about groups of subscribers.
fn group_views(choice: u8, bytes: &[u8]) {
    match choice {
        8 => agree(
            CommitView::decode(bytes),
            pubsub::CommitRequest::decode(bytes),
            |view, message| {
                assert_eq!((view.group, view.position), (&*message.group, &*message.position));
            },
        ),
        9 => agree(
            ListGroupsView::decode(bytes),
            pubsub::ListGroupsRequest::decode(bytes),
            |view, message| {
                assert_eq!(view.page_token, &*message.page_token);
            },
        ),
        10 => agree(
            ResetGroupView::decode(bytes),
            pubsub::ResetGroupRequest::decode(bytes),
            |view, message| {
                assert!(view.topics.iter().eq(message.topics.iter().map(|topic| &**topic)));
                assert_eq!(view.group, &*message.group);
            },
        ),
        _ => agree(
            DeleteGroupView::decode(bytes),
            pubsub::DeleteGroupRequest::decode(bytes),
            |view, message| {
                assert_eq!(
                    (view.namespace, view.group),
                    (&*message.namespace, &*message.group)
                );
            },
        ),
    }
}

fn agree<V, M>(
    view: Result<V, DecodeError>,
    message: Result<M, prost::DecodeError>,
    compare: impl FnOnce(&V, &M),
) {
    match (&view, &message) {
        (Ok(view), Ok(message)) => compare(view, message),
        (Ok(_), Err(error)) => panic!("the view accepts what prost refuses: {error}"),
        // prost does not check the wire type of a map's entries.
        (Err(error), Ok(_)) => assert!(
            error.is_limit() || error.kind() == DecodeErrorKind::WrongWireType,
            "prost accepts, the view says {error}"
        ),
        (Err(_), Err(_)) => {}
    }
}

fn same_items<'a>(ours: impl ExactSizeIterator<Item = ItemView<'a>>, theirs: &[proto::Item]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.zip(theirs) {
        assert_eq!((ours.key, ours.value), (&theirs.key[..], &theirs.value[..]));
        assert_eq!(
            (ours.ttl.is_some(), ours.compression),
            (theirs.ttl.is_some(), theirs.compression)
        );
    }
}
