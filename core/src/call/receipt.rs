//! Replies to writes, made without knowing their API, by the rule of
//! [`prism_codec::message::receipt`].

use prism_codec::{
    grpc::Status,
    message::{
        common::{AnyView, StatusOut, WriteResultView},
        receipt::{ItemResultsWriter, encode_write_response},
    },
    proto::prism::common::v1::Durability,
};

use super::{
    event::RecordId,
    job::{Answer, PartOutcome},
};

/// Numbers of `prism.common.v1.Durability`.
pub(crate) const BEST_EFFORT: i32 = Durability::BestEffort as i32;
pub(crate) const EVENTUAL: i32 = Durability::Eventual as i32;
const STRONG: i32 = Durability::Strong as i32;

/// The number of a namespace's durability.
pub(crate) fn number_of(durability: crate::namespace::Durability) -> i32 {
    match durability {
        crate::namespace::Durability::BestEffort => BEST_EFFORT,
        crate::namespace::Durability::Eventual => EVENTUAL,
        crate::namespace::Durability::Strong => STRONG,
    }
}

/// The result of a write that the store has, without a number of a log.
pub(crate) fn applied(durability: i32) -> WriteResultView {
    WriteResultView {
        durability,
        lane: 0,
        lsn: 0,
        applied: true,
    }
}

/// The result of a write at `strong`. `first`: the record of the first call with its token.
pub(crate) fn logged(first: RecordId, applied: bool) -> WriteResultView {
    WriteResultView {
        durability: STRONG,
        lane: first.lane.0,
        lsn: first.lsn.0,
        applied,
    }
}

/// The reply to a logged write, as far as it is known before the write has a record.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// For a single write: its result, then further fields of its API.
    One { rest: Vec<u8> },
    /// For a batch: the items that were refused at once, and those that are logged.
    Each {
        refused: Vec<PartOutcome>,
        logged: Vec<LoggedItem>,
        /// Whether it is a shard's part of a batch, to be joined with others.
        part: bool,
    },
    /// For a judged call: the thread that applies its record makes the reply.
    Verdict,
}

/// A logged item of a batch.
#[derive(Debug)]
pub(crate) struct LoggedItem {
    /// Position in the request.
    pub(crate) index: u32,
    /// Further fields of its API.
    pub(crate) rest: Vec<u8>,
}

impl Receipt {
    /// The answer with this result; `None` for a judged call, whose answer is not known here.
    pub(crate) fn into_answer(self, result: WriteResultView) -> Option<Answer> {
        match self {
            Self::One { rest } => {
                let mut message = Vec::new();
                encode_write_response(&mut message, &result, &rest);
                Some(Answer::Message(message))
            }
            Self::Each {
                mut refused,
                logged,
                part,
            } => {
                refused.extend(logged.into_iter().map(|item| PartOutcome {
                    index: item.index,
                    outcome: Ok(result),
                    rest: item.rest,
                }));
                Some(answer_of_items(refused, part))
            }
            Self::Verdict => None,
        }
    }
}

/// The answer to a batch, or to a part of one.
pub(crate) fn answer_of_items(outcomes: Vec<PartOutcome>, part: bool) -> Answer {
    if part {
        return Answer::Part(outcomes);
    }
    let mut message = Vec::new();
    encode_items(outcomes, &mut message);
    Answer::Message(message)
}

/// The response to a batch; its parts may come in any order.
pub(crate) fn encode_items(mut parts: Vec<PartOutcome>, out: &mut Vec<u8>) {
    parts.sort_unstable_by_key(|part| part.index);
    let mut writer = ItemResultsWriter::new(out);
    for PartOutcome { outcome, rest, .. } in &parts {
        match outcome {
            Ok(result) => writer.result(Some(&StatusOut::default()), Some(result), rest),
            Err(status) => with_wire_form(status, |status| writer.result(Some(status), None, rest)),
        }
    }
}

/// Calls `write` with a status as it stands in a response.
pub(crate) fn with_wire_form(status: &Status, write: impl FnOnce(&StatusOut<'_>)) {
    let status = status.to_proto();
    let details: Vec<_> = status
        .details
        .iter()
        .map(|detail| AnyView {
            type_url: &detail.type_url,
            value: &detail.value,
        })
        .collect();
    write(&StatusOut {
        code: status.code,
        message: &status.message,
        details: &details,
    });
}

#[cfg(test)]
mod tests {
    use prism_codec::proto::prism::{
        common::v1::WriteResult,
        keyvalue::v1::{MutateResponse, PutResponse},
    };
    use prism_wal::ids::{LaneId, Lsn};
    use prost::Message;

    use super::*;
    use crate::call::error;

    fn message(answer: Option<Answer>) -> Vec<u8> {
        match answer {
            Some(Answer::Message(message)) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    #[test]
    fn receipts_are_the_responses_of_the_apis() {
        let first = RecordId {
            lane: LaneId(2),
            lsn: Lsn(9),
        };
        let expected = WriteResult {
            durability: STRONG,
            lane: 2,
            lsn: 9,
            applied: false,
        };
        // Field 15, a varint: an addition of another API, unknown to KeyValue's messages.
        let rest = || vec![0x78, 0x01];
        let one = message(Receipt::One { rest: rest() }.into_answer(logged(first, false)));
        assert!(one.ends_with(&rest()));
        assert_eq!(PutResponse::decode(&one[..]).unwrap().result, Some(expected));
        let item = |index| LoggedItem { index, rest: rest() };
        let each = |part| Receipt::Each {
            refused: vec![PartOutcome {
                index: 1,
                outcome: Err(error::invalid("mutations[1]", "is wrong")),
                rest: Vec::new(),
            }],
            logged: vec![item(2), item(0)],
            part,
        };
        let all = message(each(false).into_answer(logged(first, false)));
        let all = MutateResponse::decode(&all[..]).unwrap().results;
        let results: Vec<_> = all.iter().map(|one| one.result).collect();
        assert_eq!(results, [Some(expected), None, Some(expected)]);
        let codes: Vec<_> = all.iter().map(|one| one.status.as_ref().unwrap().code).collect();
        assert_eq!(codes, [0, 3, 0]);
        match each(true).into_answer(logged(first, false)) {
            Some(Answer::Part(parts)) => assert_eq!(parts.len(), 3),
            other => panic!("no part: {other:?}"),
        }
        assert!(Receipt::Verdict.into_answer(logged(first, true)).is_none());
    }
}
