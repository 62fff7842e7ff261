//! Tokens that name one call in a whole namespace, whatever its keys are.
//!
//! Owners of keys see only the calls about their own keys, so none of them could tell that a token
//! belongs to another call. A token has an owner among the shards, too: it remembers the call that
//! came first, refuses others before anything is promised, and passes the call on to the owners of
//! its keys.

use std::time::Instant;

use prism_backends::NamespaceId;
use prism_codec::{grpc::Status, method::Method};

use super::{Destination, Dispatcher, Progress, pending::Pending, way::Shards};
use crate::{
    api::{
        service::{Request, Service},
        with_service,
    },
    call::{
        context::Context,
        error,
        footprint::CallToken,
        job::{Job, Reply, Work},
        owner::owner_of_token,
        ticket::Ticket,
    },
    log::window::TokenReused,
    namespace::spec::{Home, NamespaceSpec, Path},
};

impl Dispatcher {
    /// The shard that knows to which call the token of a request belongs; `None` where one place
    /// sees all calls anyway.
    #[inline]
    pub(super) fn token_owner<S: Service>(
        &self,
        spec: &NamespaceSpec,
        request: &S::Request<'_>,
    ) -> Option<u16> {
        if !S::TOKENS_SPAN_KEYS {
            return None;
        }
        let token = request.token()?;
        let is_judged_later = match (spec.home, spec.path) {
            (Home::Shards, _) | (Home::Store(_), Path::LogFirst) => self.shard_count() > 1,
            // Its store judges it after the acknowledgement.
            (Home::Store(_), Path::Queued) => true,
            (Home::Store(_), Path::StoreOnly | Path::StoreThenLog) => false,
        };
        is_judged_later.then(|| owner_of_token(spec.id, token.token, self.shard_count()))
    }

    /// Remembers to which call a token belongs, as its owner.
    ///
    /// # Errors
    /// It belongs to another call.
    pub(super) fn claim(
        &mut self,
        (home, path): (Home, Path),
        namespace: NamespaceId,
        token: &CallToken<'_>,
    ) -> Result<(), Box<Status>> {
        let claims = match (home, path) {
            (Home::Shards, _) | (Home::Store(_), Path::Queued) => &mut self.claims,
            (Home::Store(_), _) => match self.places.log.as_mut().and_then(|log| log.claims()) {
                Some(claims) => claims,
                // A lane that is held must not hold up the calls of others. The store's memory is
                // left.
                None => return Ok(()),
            },
        };
        let call = claims.hasher().call(namespace, token);
        match claims.first(call) {
            Err(TokenReused) => Err(error::token_reused()),
            Ok(Some(())) => Ok(()),
            Ok(None) => {
                claims.remember(call, ());
                Ok(())
            }
        }
    }

    /// Sends a call by the owner of its token, which passes it on to the `owners` of its keys.
    pub(super) fn start_claim(
        &mut self,
        token_owner: u16,
        mut pending: Box<Pending>,
        owners: &Shards,
        work: Work,
    ) -> Progress {
        if owners.len() > 1 {
            pending.gather(owners.len());
        }
        let mut taken = 0;
        let mut result = Ok(());
        while taken < owners.len() && result.is_ok() {
            result = self.take_place(&pending);
            taken += usize::from(result.is_ok());
        }
        let result = result.and_then(|()| {
            let work = Work::Claim(Box::new(work));
            self.submit_without_place(Destination::Shard(token_owner), &pending, work)
        });
        match result {
            Ok(()) => {
                self.watch_deadline(&mut pending);
                Progress::Waiting(pending)
            }
            Err(status) => {
                (0..taken).for_each(|_| self.answer_received(&pending.ticket));
                self.end(&mut pending, status.code, 0);
                Progress::Done(Err(status))
            }
        }
    }

    /// Judges the token of a call that another shard took, and passes the call on.
    pub(super) fn execute_claim(&mut self, ticket: Ticket, deadline: Option<Instant>, call: Work) {
        let Work::Unary {
            method,
            namespace,
            default_ttl_ms,
            body,
            stamp,
            path,
            wait_until,
            ..
        } = call
        else {
            return;
        };
        if path == Path::Queued {
            let context = Context {
                namespace,
                default_ttl_ms,
                now: self.wall_millis(),
                stamp,
            };
            return self.queue_claimed(ticket, method, &context, &body);
        }
        let home = self.namespaces.spec_of(namespace).map(|spec| spec.home);
        let claimed = with_service!(
            method,
            S, method => S::decode(method, &body).map(|request| {
                let owners = self.owners(namespace, &request);
                let claimed = match (home, request.call_token()) {
                    (Some(home), Some(token)) => self.claim((home, path), namespace, &token),
                    // Its owners say that it is gone.
                    _ => Ok(()),
                };
                (owners, claimed)
            }),
            else Err(error::not_served(method))
        );
        let (owners, claimed) = match claimed {
            Ok(claimed) => claimed,
            // It was decoded by the shard that took it, so this does not happen.
            Err(status) => (Shards::from_elem(self.shard, 1), Err(status)),
        };
        for shard in &owners {
            let sent = claimed.clone().and_then(|()| {
                let work = Work::Unary {
                    method,
                    namespace,
                    default_ttl_ms,
                    body: body.clone(),
                    stamp,
                    part: owners.len() > 1,
                    path,
                    overlay: Vec::new(),
                    wait_until,
                };
                let job = Job {
                    ticket,
                    deadline,
                    work,
                };
                if *shard == self.shard {
                    self.execute(job);
                } else if !self.send_job(Destination::Shard(*shard), job) {
                    self.metrics.shed.add(1);
                    return Err(error::overloaded("the owner's mailbox is full"));
                }
                Ok(())
            });
            if let Err(status) = sent {
                self.send_reply(Reply {
                    ticket,
                    result: Err(status),
                });
            }
        }
    }
}

/// A unary call, or the part of one, for the mailbox of who is to execute it.
pub(super) fn unary(
    method: Method,
    context: &Context,
    path: Path,
    (message, wait_until): (&[u8], Option<Instant>),
    part: bool,
) -> Work {
    Work::Unary {
        method,
        namespace: context.namespace,
        default_ttl_ms: context.default_ttl_ms,
        body: message.to_vec(),
        stamp: context.stamp,
        part,
        path,
        overlay: Vec::new(),
        wait_until,
    }
}
