//! The suite's harness for a store in this process, with a simulated clock. Its receipts hold the
//! fields that the store needs, and its ids are made as in the gateway.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::{Ask, Client, Failed, Harness, Kind, Peeked, Received, Sent, Which};
use crate::api::queue::{
    self, Act, Attempt, Change, Held, Late, NewMessage, Outcome, Peek, Reads, Receive, Shown, State, Terms,
    Upkeep, Verdict, Writes, backoff_ms,
};
use crate::behavior::join::run_to_end;
use crate::behavior::pubsub::local::{packed, unpacked};
use crate::behavior::{Failure, FailureKind, WriteToken};
use crate::digest::Digest;
use crate::ids::{NamespaceId, UnixMillis};
use crate::offer::Offer;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A store and its clock.
#[derive(Debug)]
pub struct LocalHarness<S> {
    shared: Rc<Shared<S>>,
    namespaces: u32,
}

/// Calls on one queue of a store in this process.
#[derive(Debug)]
pub struct LocalClient<S> {
    shared: Rc<Shared<S>>,
    namespace: NamespaceId,
    kind: Kind,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    now: Cell<UnixMillis>,
    /// Ids made for calls without a token.
    ids: Cell<u64>,
}

impl<S: Reads + Writes + Upkeep> LocalHarness<S> {
    /// Wraps a store for the suite. Namespaces are created from number 2,000 on.
    pub fn new(store: S) -> LocalHarness<S> {
        let shared = Shared {
            store,
            now: Cell::new(UnixMillis(1_700_000_000_000)),
            ids: Cell::new(0),
        };
        LocalHarness {
            shared: Rc::new(shared),
            namespaces: 2_000,
        }
    }

    /// Runs the cases of the suite whose features the store offers, by polling without a runtime.
    ///
    /// # Panics
    /// When a case fails.
    pub fn run(&mut self) {
        run_to_end(super::run(self));
    }
}

impl<S: Reads + Writes + Upkeep> Harness for LocalHarness<S> {
    type Client = LocalClient<S>;

    async fn client(&mut self, kind: Kind) -> LocalClient<S> {
        self.namespaces += 1;
        let namespace = NamespaceId(self.namespaces);
        let created = self.shared.store.create_namespace(namespace).await;
        created.expect("a new namespace");
        LocalClient {
            shared: self.shared.clone(),
            namespace,
            kind,
        }
    }

    async fn client_beside(&mut self, client: &LocalClient<S>) -> LocalClient<S> {
        LocalClient {
            shared: client.shared.clone(),
            ..*client
        }
    }

    fn now_ns(&mut self) -> i64 {
        self.shared.now.get().0 as i64 * 1_000_000
    }

    async fn pass(&mut self, time: Duration) {
        let now = self.shared.now.get().plus(time.as_millis() as u64);
        self.shared.now.set(now);
        // Sweeps a little, so that cases see states before, between and after.
        self.shared.store.sweep(now, 2).await.expect("a sweep");
    }

    fn offer(&self) -> Offer {
        self.shared.store.offer()
    }

    fn is_gateway(&self) -> bool {
        false
    }

    fn payload_bytes_max(&self) -> usize {
        self.offer().value_bytes_max
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn late(late: Late) -> Failure {
    Failure {
        kind: match late {
            Late::Lost => FailureKind::LeaseLost,
            Late::Gone => FailureKind::MessageGone,
            Late::TooLong => FailureKind::LeaseTooLong,
        },
        field: None,
        message: format!("{late:?}"),
    }
}

fn receipt(id: &[u8], attempt: Attempt) -> Vec<u8> {
    let mut receipt = attempt.sent_at.0.to_be_bytes().to_vec();
    receipt.extend_from_slice(&attempt.serial.to_be_bytes());
    receipt.extend_from_slice(id);
    receipt
}

fn held(receipt: &[u8]) -> Held<'_> {
    let (sent_at, rest) = receipt.split_first_chunk().expect("a receipt of this harness");
    let (serial, id) = rest.split_first_chunk().expect("a receipt of this harness");
    Held {
        id,
        attempt: Attempt {
            sent_at: UnixMillis(u64::from_be_bytes(*sent_at)),
            serial: u32::from_be_bytes(*serial),
        },
    }
}

impl<S: Writes> LocalClient<S> {
    async fn apply(&self, acts: Vec<Act<'_>>) -> Result<Vec<Outcome>, Failure> {
        let at = self.shared.now.get();
        let terms = Terms {
            ordered: self.kind.ordered,
            replay: self.kind.replay,
            ttl_ms: self.kind.ttl.map(millis),
            retention_ms: self.kind.retention.map_or(14 * 86_400_000, millis),
        };
        let changes: Vec<_> = acts
            .into_iter()
            .map(|act| Change {
                namespace: self.namespace,
                terms,
                at,
                act,
            })
            .collect();
        let mut outcomes = Vec::new();
        self.shared.store.apply(&changes, None, &mut outcomes).await?;
        assert_eq!(outcomes.len(), changes.len(), "one outcome for each change");
        Ok(outcomes)
    }

    async fn send_all(
        &self,
        token: Option<&WriteToken>,
        messages: &[Sent],
        is_batch: bool,
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        let attributes: Vec<_> = messages.iter().map(|one| packed(&one.attributes)).collect();
        let ids: Vec<_> = (0..messages.len() as u32)
            .map(|index| self.id(token, is_batch.then_some(index)))
            .collect();
        let mut digest = Digest::default();
        for message in messages {
            digest.bytes(message.key.as_bytes());
            digest.bytes(&message.payload);
        }
        let digest = token.map(|_| digest.finish());
        let acts = messages
            .iter()
            .zip(&ids)
            .zip(&attributes)
            .map(|((message, id), attributes)| {
                Act::Send(NewMessage {
                    id,
                    digest,
                    key: &message.key,
                    delay_ms: millis(message.delay),
                    attempts_max: if message.attempts_max == 0 {
                        10
                    } else {
                        message.attempts_max
                    },
                    attributes,
                    payload: &message.payload,
                })
            });
        let outcomes = self.apply(acts.collect()).await?;
        let one = |(outcome, id)| match outcome {
            Outcome::Sent | Outcome::Repeat => Ok(id),
            Outcome::Refused(cause) => Err(Failure::from(cause)),
            other => panic!("a Send has no outcome {other:?}"),
        };
        Ok(outcomes.into_iter().zip(ids).map(one).collect())
    }

    fn id(&self, token: Option<&WriteToken>, index: Option<u32>) -> Vec<u8> {
        let mut id = match token {
            Some(token) => token.token.clone(),
            None => {
                self.shared.ids.set(self.shared.ids.get() + 1);
                self.shared.ids.get().to_be_bytes().to_vec()
            }
        };
        if let Some(index) = index {
            id.extend_from_slice(&index.to_be_bytes());
        }
        id
    }

    async fn move_them(
        &self,
        token: Option<&WriteToken>,
        which: &Which,
        is_redrive: bool,
    ) -> Result<(u64, bool), Failure> {
        let call = self.id(token, None);
        let digest = token.map(|_| {
            let mut digest = Digest::default();
            digest.bytes(format!("{which:?}").as_bytes());
            digest.finish()
        });
        let ids: Vec<&[u8]>;
        let which = match which {
            Which::Ids(all) => {
                ids = all.iter().map(Vec::as_slice).collect();
                queue::Which::Ids(&ids)
            }
            Which::State(state) => queue::Which::State(*state),
        };
        let call = call.as_slice();
        let act = match is_redrive {
            true => Act::Redrive { call, digest, which },
            false => Act::Delete { call, digest, which },
        };
        match self.apply(vec![act]).await?.remove(0) {
            Outcome::Moved(moved, more) => Ok((moved, more)),
            Outcome::Refused(cause) => Err(cause.into()),
            other => panic!("a call that moves messages has no outcome {other:?}"),
        }
    }
}

impl<S: Reads + Writes> Client for LocalClient<S> {
    async fn send(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure> {
        let mut results = self.send_all(token, std::slice::from_ref(message), false).await?;
        results.remove(0)
    }

    async fn send_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        self.send_all(token, messages, true).await
    }

    async fn receive(&mut self, ask: &Ask) -> Result<Vec<Received>, Failure> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut sink = |shown: &Shown<'_>| {
            bytes += shown.payload.len();
            if bytes > ANSWER_BYTES_MAX && !messages.is_empty() {
                return false;
            }
            messages.push(Received {
                id: shown.id.to_vec(),
                key: shown.key.to_owned(),
                attributes: unpacked(shown.attributes),
                payload: shown.payload.to_vec(),
                receipt: receipt(shown.id, shown.item.attempt()),
                attempt: shown.item.spent,
                last_failure: shown.failure.to_owned(),
                lease_end_ms: shown.item.at.0,
            });
            true
        };
        let receive = Receive {
            namespace: self.namespace,
            call: ask.token.as_deref().unwrap_or_default(),
            messages_max: ask.messages_max as usize,
            lease_ms: millis(ask.lease),
        };
        let now = self.shared.now.get();
        let received = self.shared.store.receive(&receive, now, &mut sink).await?;
        assert_eq!(received.messages, messages.len());
        Ok(messages)
    }

    async fn ack(&mut self, receipts: &[&[u8]]) -> Result<Vec<Result<(), Failure>>, Failure> {
        let acts = receipts.iter().map(|receipt| Act::Ack(held(receipt))).collect();
        let one = |outcome| match outcome {
            Outcome::Acked => Ok(()),
            Outcome::Late(why) => Err(late(why)),
            Outcome::Refused(cause) => Err(cause.into()),
            other => panic!("an Ack has no outcome {other:?}"),
        };
        Ok(self.apply(acts).await?.into_iter().map(one).collect())
    }

    async fn nack(
        &mut self,
        receipts: &[&[u8]],
        failed: &Failed,
    ) -> Result<Vec<Result<State, Failure>>, Failure> {
        let mut acts = Vec::new();
        for receipt in receipts {
            let held = held(receipt);
            let by_number = || backoff_ms(held.attempt.serial, 7);
            acts.push(Act::Nack {
                held,
                verdict: Verdict {
                    delay_ms: failed.delay.map_or_else(by_number, millis),
                    dead: failed.dead,
                    uncounted: failed.uncounted,
                },
                reason: &failed.reason,
            });
        }
        let one = |outcome| match outcome {
            Outcome::Nacked(state) => Ok(state),
            Outcome::Late(why) => Err(late(why)),
            Outcome::Refused(cause) => Err(cause.into()),
            other => panic!("a Nack has no outcome {other:?}"),
        };
        Ok(self.apply(acts).await?.into_iter().map(one).collect())
    }

    async fn extend(
        &mut self,
        receipts: &[&[u8]],
        lease: Duration,
    ) -> Result<Vec<Result<u64, Failure>>, Failure> {
        let held: Vec<_> = receipts.iter().map(|receipt| held(receipt)).collect();
        let now = self.shared.now.get();
        let ends = self
            .shared
            .store
            .extend(self.namespace, &held, millis(lease), now)
            .await?;
        let one = |end: Result<UnixMillis, Late>| end.map(|end| end.0).map_err(late);
        Ok(ends.into_iter().map(one).collect())
    }

    async fn peek(
        &mut self,
        states: &[State],
        key: Option<&str>,
        page_size: u32,
        page_token: &[u8],
    ) -> Result<(Vec<Peeked>, Vec<u8>), Failure> {
        let now = self.shared.now.get();
        let mut messages = Vec::new();
        let mut sink = |shown: &Shown<'_>| {
            messages.push(Peeked {
                id: shown.id.to_vec(),
                key: shown.key.to_owned(),
                payload: shown.payload.to_vec(),
                state: shown.item.state(now),
                attempt: shown.item.spent,
                last_failure: shown.failure.to_owned(),
            });
            true
        };
        let undone = [State::Ready, State::Delayed, State::Leased];
        let peek = Peek {
            namespace: self.namespace,
            states: if states.is_empty() { &undone } else { states },
            key,
            after: page_token.try_into().map_or(0, u64::from_be_bytes),
            messages_max: page_size as usize,
            with_payload: true,
        };
        let next = self.shared.store.peek(&peek, now, &mut sink).await?;
        Ok((
            messages,
            next.map_or_else(Vec::new, |next| next.to_be_bytes().to_vec()),
        ))
    }

    async fn redrive(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure> {
        self.move_them(token, which, true).await
    }

    async fn delete(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure> {
        self.move_them(token, which, false).await
    }

    async fn stats(&mut self) -> Result<BTreeMap<State, u64>, Failure> {
        let counts = self
            .shared
            .store
            .stats(self.namespace, self.shared.now.get())
            .await?;
        let counts = State::ALL.into_iter().zip(counts);
        Ok(counts
            .filter(|(_, count)| count.messages > 0)
            .map(|(state, count)| (state, count.messages))
            .collect())
    }
}
