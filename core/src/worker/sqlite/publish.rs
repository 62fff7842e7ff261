//! Publishing calls at the writer: many of them in one transaction, each with its answer.

use std::time::Instant;

use prism_backends::{StoreError, UnixMillis, api::pubsub::Outcome};
use prism_codec::{
    grpc::{Code, Status},
    method::PubSubMethod,
};

use super::{ROOM_FOR_ANSWERS, WriterThread};
use crate::{
    api::pubsub::{
        Request,
        writes::{self, Writes},
    },
    call::{
        context::Context,
        error::{self, Stage},
        job::{Answer, Job, PubSubWork, Reply, Work},
        receipt,
        record::LoggedWrite,
    },
};

/// A publishing call with its messages.
struct Prepared<'a> {
    method: PubSubMethod,
    context: Context,
    body: &'a [u8],
    log: bool,
    writes: Writes<'a>,
}

impl WriterThread {
    /// Stores the messages of many calls in one transaction, answers each, and sends their records
    /// to the logs.
    pub(super) fn publish(&mut self, batch: &[Job]) {
        let (now, wall_now) = (Instant::now(), self.wall.unix_millis());
        let prepared: Vec<Result<Prepared<'_>, Box<Status>>> =
            batch.iter().map(|job| prepare(job, now, wall_now)).collect();
        let all = || prepared.iter().flatten();
        let stamps = all().map(|prepared| prepared.context.stamp.time_ns);
        self.writer.expect_stamp(stamps.max().unwrap_or(i64::MIN));
        let messages: Vec<_> = all().flat_map(|prepared| prepared.writes.messages()).collect();
        let mut outcomes = Vec::with_capacity(messages.len());
        let published = match messages.is_empty() {
            true => Ok(()),
            false => self.writer.publish_at(&messages, &[], &mut outcomes),
        };
        drop(messages);
        if let Err(cause) = &published {
            tracing::warn!(error = %cause, calls = batch.len(), "the store refused messages");
        }
        let mut outcomes = outcomes.into_iter();
        for (job, prepared) in batch.iter().zip(prepared) {
            let result = prepared.and_then(|prepared| self.answer(prepared, &published, &mut outcomes));
            let sent = self.shards.replies[usize::from(job.ticket.shard)].push(Reply {
                ticket: job.ticket,
                result,
            });
            debug_assert!(sent.is_ok(), "{ROOM_FOR_ANSWERS}");
        }
        self.committed.hand_over(&self.shards.logs);
        for (replies, log) in self.shards.replies.iter().zip(&self.shards.logs) {
            replies.wake();
            log.mailbox.wake();
        }
    }

    fn answer(
        &mut self,
        prepared: Prepared<'_>,
        published: &Result<(), StoreError>,
        outcomes: &mut impl Iterator<Item = Outcome>,
    ) -> Result<Answer, Box<Status>> {
        if let Err(cause) = published {
            return Err(error::from_store(cause));
        }
        let Prepared {
            method,
            context,
            body,
            log,
            writes,
        } = prepared;
        let own: Vec<Outcome> = outcomes.by_ref().take(writes.changes.len()).collect();
        let mut durability = receipt::BEST_EFFORT;
        if log {
            durability = receipt::EVENTUAL;
            let record = LoggedWrite {
                method: method.into(),
                part: None,
                decided: &[],
                context,
                body,
            };
            let published = writes.changes.iter().zip(&own);
            let published = published.filter(|(_, outcome)| **outcome == Outcome::Published);
            self.committed
                .push(&record, published.map(|(change, _)| change.key()));
        }
        let mut message = Vec::new();
        let result = receipt::applied(durability);
        writes::encode_outcomes(method, writes, own.into_iter(), &result, &mut message)?;
        Ok(Answer::Message(message))
    }
}

fn prepare(job: &Job, now: Instant, wall_now: UnixMillis) -> Result<Prepared<'_>, Box<Status>> {
    if job.deadline.is_some_and(|deadline| deadline <= now) {
        return Err(error::deadline_exceeded(Stage::Store));
    }
    let Work::PubSub(PubSubWork::Publish {
        method,
        context,
        body,
        log,
        ..
    }) = &job.work
    else {
        return Err(error::status(Code::Internal, "an ask was sent to the writer"));
    };
    let context = Context {
        now: wall_now,
        ..*context
    };
    let request = Request::decode(*method, body)?;
    Ok(Prepared {
        method: *method,
        context,
        body,
        log: *log,
        writes: writes::writes(&request, &context, |_| true),
    })
}
