//! Calls with streams of replies: chunks of a source, the answers of server reflection,
//! keep-alives.

use prism_codec::{
    format::{Format, KEEP_ALIVE},
    grpc::{Code, Status},
    h2::StreamId,
};

use super::{Call, H2Session, KEEP_ALIVE_SECONDS, Phase, STREAM_QUEUE_BYTES, Weight, unary};
use crate::dispatch::{Dispatcher, reflection, route::Route, stream::StreamStep};

impl H2Session {
    /// Ends streams and waiting calls whose caller has lost its permission. A write that is under
    /// way goes on.
    pub(crate) fn check_again(&mut self, gateway: &mut Dispatcher) {
        for index in 0..self.calls.len() {
            let Some(call) = &self.calls[index] else { continue };
            let ticket = match &call.phase {
                Phase::Streaming(chunks) => *chunks.ticket(),
                Phase::Waiting(pending) if pending.waits_for_more() => pending.ticket,
                _ => continue,
            };
            let (stream, method) = (call.stream, call.head.route.method());
            let checked = method.map_or(Ok(()), |method| gateway.check_again(&ticket, method));
            let Err(status) = checked else { continue };
            let Some(mut call) = self.remove(stream) else {
                continue;
            };
            match &mut call.phase {
                Phase::Streaming(chunks) => drop(chunks.end_with(status.clone(), gateway)),
                Phase::Waiting(pending) => gateway.revoke(pending),
                _ => {}
            }
            self.fail(stream, &call, status, gateway);
        }
    }

    /// Moves a stream forward: sends the message that has arrived, and asks for the next one unless
    /// the client is slow.
    pub(super) fn pump_stream(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        self.pump(stream, false, gateway);
    }

    /// Like [`Self::pump_stream`]; `in_turn`: it is this stream's turn among the calls that wait
    /// for their client to read.
    pub(super) fn pump(&mut self, stream: StreamId, mut in_turn: bool, gateway: &mut Dispatcher) {
        loop {
            let admitted = std::mem::take(&mut in_turn)
                || self.backpressure.admits(Weight::Heavy, self.h2.queued_bytes());
            let may_ask = self.h2.stream_queued(stream) <= STREAM_QUEUE_BYTES;
            let Some(call) = self.call_mut(stream) else { return };
            let Phase::Streaming(chunks) = &mut call.phase else {
                return;
            };
            let head = call.head;
            if may_ask && !admitted && chunks.wants_chunk() {
                // The client reads this stream, but not others of the connection.
                return self.backpressure.hold(Weight::Heavy, stream);
            }
            let awaited = chunks.awaits_chunk();
            let step = chunks.step(may_ask, gateway);
            let asked = !awaited && chunks.awaits_chunk();
            let message = match step {
                StreamStep::Send { .. } => chunks.take_message(),
                StreamStep::Wait | StreamStep::Failed(_) => Vec::new(),
            };
            if asked {
                self.backpressure.read_began();
            }
            match step {
                StreamStep::Wait => return,
                StreamStep::Send { last } => {
                    self.backpressure.note_read(message.len());
                    if let Err(refused) = self.send_message(stream, head, &message, gateway) {
                        return self.give_up(stream, refused, gateway);
                    }
                    if last {
                        self.end_stream(stream, head, Ok(()));
                        self.remove(stream);
                        return;
                    }
                }
                StreamStep::Failed(status) => {
                    if let Some(call) = self.remove(stream) {
                        self.fail(stream, &call, status, gateway);
                    }
                    return;
                }
            }
        }
    }

    /// Answers the whole messages of a reflection call, and ends it after the last.
    pub(super) fn reflect(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        let clock = self.receive_clock;
        loop {
            let full = self.h2.queued_bytes() >= self.backpressure.max();
            let Some(call) = self.call_mut(stream) else { return };
            let (Phase::Reflecting(body, _), Route::Reflection { alpha }) =
                (&mut call.phase, call.head.route)
            else {
                return;
            };
            let head = call.head;
            let Some(length) = unary::whole_message_length(body) else {
                break;
            };
            if full {
                return self.backpressure.hold(Weight::Light, stream);
            }
            let rest = body.split_off(unary::PREFIX_BYTES + length);
            let envelope = std::mem::replace(body, rest);
            call.receiving_since = clock;
            self.body_bytes -= envelope.len();
            let answered = unary::message(head, None, &envelope, gateway)
                .and_then(|message| reflection::answer(&message, alpha, &mut gateway.reply));
            if let Err(status) = answered {
                return self.fail_dialogue(stream, status, gateway);
            }
            let answer = std::mem::take(&mut gateway.reply);
            let sent = self.send_message(stream, head, &answer, gateway);
            gateway.reply = answer;
            if let Err(refused) = sent {
                return self.give_up(stream, refused, gateway);
            }
        }
        let Some(Call {
            phase: Phase::Reflecting(rest, ended),
            receiving_since,
            head,
            ..
        }) = self.call_mut(stream)
        else {
            return;
        };
        let (head, complete, end_stream) = (*head, rest.is_empty(), *ended);
        if complete {
            *receiving_since = clock;
        }
        if end_stream && complete {
            self.begin_response(stream, gateway);
            self.drop_body(stream);
            self.end_stream(stream, head, Ok(()));
        } else if end_stream {
            let status = Status::new(Code::InvalidArgument, "the stream ends within a message");
            self.fail_dialogue(stream, Box::new(status), gateway);
        } else if complete && self.draining {
            self.end_idle_dialogue(stream, gateway);
        }
    }

    pub(super) fn fail_dialogue(&mut self, stream: StreamId, status: Box<Status>, gateway: &mut Dispatcher) {
        if let Some(call) = self.drop_body(stream) {
            self.fail(stream, &call, status, gateway);
        }
    }

    /// Sends keep-alives on streams of events that have been idle for long.
    pub(super) fn keep_streams_alive(&mut self, seconds: u32) {
        let seconds = u8::try_from(seconds).unwrap_or(u8::MAX);
        for call in self.calls.iter_mut().flatten() {
            if call.head.format != Format::Sse || !call.begun {
                continue;
            }
            call.keep_alive_in = call.keep_alive_in.saturating_sub(seconds);
            if call.keep_alive_in == 0 {
                call.keep_alive_in = KEEP_ALIVE_SECONDS;
                // A stream that is gone needs no keep-alive.
                let _ = self.h2.send_data(call.stream, KEEP_ALIVE, false);
            }
        }
    }
}
