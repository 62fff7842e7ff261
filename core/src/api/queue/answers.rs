//! Answers to workers and onlookers: messages of a store straight into response messages.

use prism_backends::{
    NamespaceId, StoreError, UnixMillis,
    api::queue::{Counts, Held, Late, Peek, Reads, Receive, Shown, Sink, State},
};
use prism_codec::{
    grpc::Status,
    message::{
        common::{StatusOut, TimestampView},
        queue::{
            ExtendResponseWriter, ExtendView, MessageOut, PeekResponseWriter, PeekView, PeekedOut,
            ReceiveResponseWriter, ReceiveView, ReceivedOut, encode_stats, peeked_encoded_len,
            received_encoded_len,
        },
    },
};

use super::{receipt, writes};
use crate::call::{error, receipt::with_wire_form};

/// Bytes of an answer's messages.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The ask of a Receive to a store.
pub(super) fn receive<'a>(namespace: NamespaceId, view: &ReceiveView<'a>) -> Receive<'a> {
    Receive {
        namespace,
        call: view.token.map(|token| token.token).unwrap_or_default(),
        messages_max: view.messages_max as usize,
        lease_ms: view.lease_ms,
    }
}

/// An answer to Receive while it is written.
pub(super) struct Answer<'o> {
    namespace: NamespaceId,
    out: &'o mut Vec<u8>,
    bytes: usize,
}

impl<'o> Answer<'o> {
    pub(super) fn new(namespace: NamespaceId, out: &'o mut Vec<u8>) -> Self {
        Self {
            namespace,
            out,
            bytes: 0,
        }
    }
}

impl Sink for Answer<'_> {
    fn message(&mut self, shown: &Shown<'_>) -> bool {
        let mut held = Vec::with_capacity(96);
        receipt::encode(
            self.namespace,
            &Held {
                id: shown.id,
                attempt: shown.item.attempt(),
            },
            &mut held,
        );
        let one = ReceivedOut {
            message_id: shown.id,
            message: message(shown),
            receipt: &held,
            attempt: shown.item.spent,
            lease_end_time: timestamp(shown.item.at),
            send_time: timestamp(shown.item.sent_at),
            last_failure: shown.failure,
        };
        let bytes = self.bytes + received_encoded_len(&one);
        if bytes > ANSWER_BYTES_MAX && self.bytes > 0 {
            return false;
        }
        self.bytes = bytes;
        ReceiveResponseWriter::new(self.out).message(&one);
        true
    }
}

fn message<'a>(shown: &Shown<'a>) -> MessageOut<'a> {
    MessageOut {
        payload: shown.payload,
        ordering_key: shown.key,
        attributes: shown.attributes,
        attempts_max: shown.item.attempts_max,
    }
}

fn timestamp(time: UnixMillis) -> TimestampView {
    TimestampView::from_unix_nanos(
        i64::try_from(time.0)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000),
    )
}

/// The attempts of a request that was checked.
pub(super) fn held<'a>(namespace: NamespaceId, view: &ExtendView<'a>) -> Vec<Held<'a>> {
    let one = |bytes: &'a [u8]| receipt::decode(namespace, bytes);
    view.receipts.iter().filter_map(one).collect()
}

/// Writes the answer to Extend.
pub(super) fn encode_extended(ends: &[Result<UnixMillis, Late>], out: &mut Vec<u8>) {
    let mut writer = ExtendResponseWriter::new(out);
    for end in ends {
        match end {
            Ok(end) => writer.result(&StatusOut::default(), Some(timestamp(*end))),
            Err(late) => {
                with_wire_form(&writes::too_late(*late), |status| writer.result(status, None));
            }
        }
    }
}

/// Serves a Peek by a store's own.
pub(super) fn peek(
    namespace: NamespaceId,
    view: &PeekView<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    look: impl FnOnce(&Peek<'_>, &mut dyn FnMut(&Shown<'_>) -> bool) -> Result<Option<u64>, StoreError>,
) -> Result<(), Box<Status>> {
    let states = states_of(view);
    let mut page = Page { now, out, bytes: 0 };
    let next = look(&ask(namespace, view, &states), &mut |shown| page.message(shown));
    page.finish(namespace, next)
}

/// Serves a Peek by a store that answers later.
pub(super) async fn peek_later(
    namespace: NamespaceId,
    view: &PeekView<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    store: &impl Reads,
) -> Result<(), Box<Status>> {
    let states = states_of(view);
    let mut page = Page { now, out, bytes: 0 };
    let next = store.peek(&ask(namespace, view, &states), now, &mut page).await;
    page.finish(namespace, next)
}

fn states_of(view: &PeekView<'_>) -> Vec<State> {
    let wanted = |state: &State| match view.states {
        0 => state.is_undone(),
        bits => bits & 1 << writes::view_of(*state).number() != 0,
    };
    State::ALL.into_iter().filter(wanted).collect()
}

fn ask<'a>(namespace: NamespaceId, view: &PeekView<'a>, states: &'a [State]) -> Peek<'a> {
    Peek {
        namespace,
        states,
        key: view.ordering_key,
        after: receipt::decode_page(namespace, view.page_token).unwrap_or(0),
        messages_max: view.page_size as usize,
        with_payload: !view.without_payload,
    }
}

/// An answer to Peek while it is written.
struct Page<'o> {
    now: UnixMillis,
    out: &'o mut Vec<u8>,
    bytes: usize,
}

impl Sink for Page<'_> {
    fn message(&mut self, shown: &Shown<'_>) -> bool {
        let one = PeekedOut {
            message_id: shown.id,
            message: message(shown),
            state: writes::view_of(shown.item.state(self.now)),
            attempt: shown.item.spent,
            send_time: timestamp(shown.item.sent_at),
            state_time: timestamp(shown.item.state_time(self.now)),
            last_failure: shown.failure,
        };
        let bytes = self.bytes + peeked_encoded_len(&one);
        if bytes > ANSWER_BYTES_MAX && self.bytes > 0 {
            return false;
        }
        self.bytes = bytes;
        PeekResponseWriter::new(self.out).message(&one);
        true
    }
}

impl Page<'_> {
    fn finish(
        self,
        namespace: NamespaceId,
        next: Result<Option<u64>, StoreError>,
    ) -> Result<(), Box<Status>> {
        if let Some(after) = next.map_err(|cause| error::from_store(&cause))? {
            PeekResponseWriter::new(self.out).finish(&receipt::encode_page(namespace, after));
        }
        Ok(())
    }
}

/// Writes the answer to Stats.
pub(super) fn encode_counts(counts: &Counts, out: &mut Vec<u8>) {
    let counts = State::ALL.into_iter().zip(counts);
    let some = counts.filter(|(_, count)| count.messages > 0);
    encode_stats(
        out,
        some.map(|(state, count)| {
            (
                writes::view_of(state),
                count.messages,
                count.oldest.map(timestamp),
            )
        }),
    );
}
