//! Unary calls: through the gate, and to the place that answers.

use std::time::Instant;

use prism_codec::{
    grpc::Status,
    method::{Effect, Method},
};

use super::{
    Destination, Dispatcher, Progress,
    claims::unary,
    finish::{Pass, code_of},
    gate::Arrival,
    logged::LoggedCall,
    pending::Pending,
    waits::wait_until,
    way::{Way, way},
};
use crate::{
    api::service::{Request, Service},
    call::{
        context::Context,
        job::Work,
        ticket::{Stamp, Ticket},
    },
    namespace::spec::{Home, NamespaceSpec, Path},
};

/// A unary call that the gate has let in.
struct Admitted<'r, 'm, S: Service> {
    method: S::Method,
    request: &'r S::Request<'m>,
    message: &'m [u8],
    ticket: Ticket,
    now: Instant,
    deadline: Option<Instant>,
    wait_until: Option<Instant>,
    context: Context,
    home: Home,
    path: Path,
    pass: Pass,
}

impl<S: Service> Admitted<'_, '_, S> {
    /// Makes the call one whose answer comes later.
    fn pending(self) -> Pending {
        Pending::new(self.ticket, self.now, self.deadline, Some(self.pass))
    }
}

impl Dispatcher {
    /// Starts a unary call of an API.
    pub(super) fn start_call<S: Service>(
        &mut self,
        method: S::Method,
        mut ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        message: &[u8],
    ) -> Progress {
        let request = match S::decode(method, message) {
            Ok(request) => request,
            Err(status) => return Progress::Done(Err(status)),
        };
        let arrival = Arrival {
            method: method.into(),
            caller: ticket.caller,
            bytes: message.len(),
            deadline,
        };
        let pass = match self.admit(&arrival, &request) {
            Ok(pass) => pass,
            Err(status) => return Progress::Done(Err(status)),
        };
        let spec = &pass.namespace().spec;
        ticket.namespace = spec.id;
        let context = self.context(spec);
        let (home, path) = (spec.home, spec.path);
        let token_owner = self.token_owner::<S>(spec, &request);
        let owners = || self.owners(context.namespace, &request);
        let effect = method.into().spec().effect;
        let way = way(home, path, spec.unapplied, effect, owners, self.shard);
        let call = Admitted::<S> {
            method,
            request: &request,
            message,
            ticket,
            now,
            deadline,
            wait_until: wait_until(request.wait(), now, deadline),
            context,
            home,
            path,
            pass,
        };
        if let Some(owner) = token_owner {
            if owner != self.shard {
                return self.start_at_token_owner(owner, &way, call);
            }
            let token = request.call_token();
            if let Some(Err(status)) = token.map(|token| self.claim((home, path), context.namespace, &token))
            {
                self.finish(call.pass, status.code, 0);
                return Progress::Done(Err(status));
            }
        }
        match way {
            Way::Inline => self.answer(call),
            Way::Queue => {
                let result = self.queue::<S>((ticket, now), method, &request, &context, message);
                self.finish(call.pass, code_of(&result), self.reply.len());
                Progress::Done(result)
            }
            way => self.pass_on(way, call),
        }
    }

    /// Facts about a namespace and the time for a call that arrives now.
    fn context(&mut self, spec: &NamespaceSpec) -> Context {
        let stamp = Stamp {
            time_ns: self.stamper.stamp(),
            shard: self.shard,
            gateway: self.stamper.gateway(),
        };
        Context {
            namespace: spec.id,
            default_ttl_ms: spec.ttl_ms,
            now: self.stamper.wall_millis(),
            stamp,
        }
    }

    /// Sends a call to the shard that knows to which call its token belongs.
    fn start_at_token_owner<S: Service>(
        &mut self,
        owner: u16,
        way: &Way,
        call: Admitted<'_, '_, S>,
    ) -> Progress {
        let (namespace, request, bytes) = (call.context.namespace, call.request, call.message.len());
        let body = (call.message, call.wait_until);
        let work = unary(call.method.into(), &call.context, call.path, body, false);
        let pending = Box::new(call.pending());
        if *way == Way::Queue {
            return self.start_queued_claim(owner, pending, bytes, work);
        }
        let owners = self.owners(namespace, request);
        self.start_claim(owner, pending, &owners, work)
    }

    /// Answers a call from the memory of this shard, or keeps it where it waits for something.
    #[inline]
    fn answer<S: Service>(&mut self, call: Admitted<'_, '_, S>) -> Progress {
        let (context, method) = (call.context, call.method);
        let memory = &mut self.places.memory;
        let result = S::serve(memory, method, call.request, &context, &mut self.reply);
        if S::FEEDS_STREAMS {
            self.serve_asks(context.namespace);
        }
        let found_nothing = result.is_ok() && self.reply.is_empty() && self.serving;
        if let Some(until) = call.wait_until.filter(|_| found_nothing) {
            let message = call.message;
            return self.wait_here(call.pending(), method.into(), &context, message, until);
        }
        self.finish(call.pass, code_of(&result), self.reply.len());
        let reply = std::mem::take(&mut self.reply);
        self.serve_waiting(context.namespace);
        self.reply = reply;
        Progress::Done(result)
    }

    /// Gives a call to this shard's log, to its store, or to the shards that own its keys.
    fn pass_on<S: Service>(&mut self, way: Way, call: Admitted<'_, '_, S>) -> Progress {
        let (method, request, context) = (call.method, call.request, call.context);
        let (place, body) = ((call.home, call.path), (call.message, call.wait_until));
        let (ticket, deadline) = (call.ticket, call.deadline);
        let mut pending = Box::new(call.pending());
        let result = match way {
            Way::Log => self.take_place(&pending).and_then(|()| {
                let call = LoggedCall {
                    ticket,
                    deadline,
                    method,
                    part: None,
                };
                self.start_logged::<S>(&call, request, body.0, &context)
            }),
            way => self.forward(way, place, &context, method.into(), body, &mut pending),
        };
        match result {
            Ok(()) => {
                self.watch_deadline(&mut pending);
                Progress::Waiting(pending)
            }
            Err(status) => {
                self.end(&mut pending, status.code, 0);
                Progress::Done(Err(status))
            }
        }
    }

    /// Sends a unary request to its store, to the shard that owns its key, or to several shards if
    /// it has many.
    fn forward(
        &mut self,
        way: Way,
        (home, path): (Home, Path),
        context: &Context,
        method: Method,
        (message, wait_until): (&[u8], Option<Instant>),
        pending: &mut Pending,
    ) -> Result<(), Box<Status>> {
        let path = path.of_call(method.spec().effect);
        let work = |part| unary(method, context, path, (message, wait_until), part);
        match (way, home) {
            (Way::Store, Home::Store(store)) => {
                let to = match method.spec().effect {
                    Effect::None => Destination::Reader(store),
                    Effect::Certain | Effect::Judged | Effect::Direct => Destination::Writer(store),
                };
                pending.waits_at = wait_until.map(|_| to);
                self.submit(to, pending, work(false))
            }
            (Way::Inline | Way::Log | Way::Store | Way::Queue, _) => {
                self.submit(Destination::Shard(self.shard), pending, work(false))
            }
            (Way::Peer(shard), _) => {
                let to = Destination::Shard(shard);
                pending.waits_at = wait_until.map(|_| to);
                self.submit(to, pending, work(false))
            }
            (Way::Peers(shards), _) => self.send_parts(&shards, pending, work),
        }
    }

    /// Sends the parts of a call to the shards that own its keys.
    fn send_parts(
        &mut self,
        shards: &[u16],
        pending: &mut Pending,
        work: impl Fn(bool) -> Work,
    ) -> Result<(), Box<Status>> {
        pending.gather(shards.len());
        for (sent, shard) in shards.iter().enumerate() {
            let result = self.submit(Destination::Shard(*shard), pending, work(true));
            if sent == 0 {
                result?;
            } else if result.is_err() {
                // The parts in flight take effect; this one had no effect, and its items show that.
                pending.part_failed();
            }
        }
        Ok(())
    }
}
