//! A shard's view of the namespaces, as sent by the control thread.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use prism_backends::NamespaceId;
use prism_codec::{grpc::Status, method::Method};
use rustc_hash::FxHashMap;

use crate::{
    call::error,
    metrics::{NamespaceMetrics, Registry},
    namespace::{
        rates::{Bucket, Direction},
        spec::NamespaceSpec,
    },
};

/// A namespace on one shard: the snapshot that all shards share, and this one's counters.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) spec: Arc<NamespaceSpec>,
    pub(crate) metrics: Arc<NamespaceMetrics>,
    /// Calls of this shard that wait for an answer.
    pub(crate) waiting: Cell<usize>,
    /// Streams of this shard.
    pub(crate) streams: Cell<usize>,
    /// Bytes of writes of this shard that were acknowledged when they were queued, and that the
    /// store does not have yet.
    pub(crate) queued_bytes: Cell<usize>,
    /// Tokens that this shard holds, by direction, where a rate is declared.
    tokens: [Cell<u64>; 2],
    /// Calls answered in the running batch, by method; their latency is recorded at its end.
    batch: Box<[Cell<u32>]>,
    in_batch: Cell<bool>,
}

impl Namespace {
    /// Takes the tokens of a call, where the namespace declares a rate.
    ///
    /// # Errors
    /// The rate is used up, or the call asks for more than a full bucket holds.
    #[inline]
    pub(super) fn charge(&self, direction: Direction, items: u64) -> Result<(), Box<Status>> {
        let Some(bucket) = &self.spec.rates[direction as usize] else {
            return Ok(());
        };
        let held = &self.tokens[direction as usize];
        match held.get().checked_sub(items) {
            Some(left) => {
                held.set(left);
                Ok(())
            }
            None => self.refill(bucket, direction, items),
        }
    }

    fn refill(&self, bucket: &Bucket, direction: Direction, items: u64) -> Result<(), Box<Status>> {
        let (now, held) = (Instant::now(), &self.tokens[direction as usize]);
        let missing = items - held.get();
        let bundle = missing.max(bucket.bundle());
        // Near the limit there may be enough for this call, and not for a bundle.
        let taken = match bucket.take(now, bundle) {
            Ok(()) => Ok(bundle),
            Err(_) => bucket.take(now, missing).map(|()| missing),
        };
        match taken {
            Ok(taken) => {
                held.set(held.get() + taken - items);
                Ok(())
            }
            Err(wait) => {
                self.metrics.limited[direction as usize].add(1);
                let (name, key) = (&self.spec.name, direction.key());
                Err(match items > bucket.burst() {
                    true => error::batch_too_large(name, key, items, bucket.burst()),
                    false => error::rate_limited(name, key, bucket.rate(), spread(wait, now)),
                })
            }
        }
    }

    /// Notes a call that was answered in the running batch. Returns whether it is the namespace's
    /// first one.
    pub(super) fn note_in_batch(&self, method: Method) -> bool {
        let count = &self.batch[method.index()];
        count.set(count.get() + 1);
        !self.in_batch.replace(true)
    }

    /// Records the latency of the batch's calls.
    pub(crate) fn record_batch(&self, elapsed: Duration) {
        self.in_batch.set(false);
        for (count, metrics) in self.batch.iter().zip(self.metrics.methods()) {
            let count = count.take();
            if count > 0 {
                metrics.latency.record(elapsed, u64::from(count));
            }
        }
    }
}

/// A wait with up to a fifth more, by the clock's last digits, so that those who were refused
/// together do not come back together.
fn spread(wait: Duration, now: Instant) -> Duration {
    let digits = now.elapsed().subsec_nanos() ^ wait.subsec_nanos();
    wait + wait.mul_f64(f64::from(digits % 100) / 500.0)
}

/// All namespaces, by name and by number.
pub(crate) struct Namespaces {
    by_name: FxHashMap<String, Rc<Namespace>>,
    by_id: FxHashMap<u32, Rc<Namespace>>,
    registry: Arc<Registry>,
}

impl Namespaces {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            by_name: FxHashMap::default(),
            by_id: FxHashMap::default(),
            registry,
        }
    }

    #[inline]
    pub(crate) fn by_name(&self, name: &str) -> Option<Rc<Namespace>> {
        self.by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: NamespaceId) -> Option<Rc<Namespace>> {
        self.by_id.get(&id.0).cloned()
    }

    /// The snapshot of a namespace; `None` if it is not known.
    pub(crate) fn spec_of(&self, id: NamespaceId) -> Option<&NamespaceSpec> {
        self.by_id.get(&id.0).map(|namespace| &*namespace.spec)
    }

    /// Adds a namespace, or replaces its snapshot by the new one.
    pub(crate) fn set(&mut self, spec: Arc<NamespaceSpec>) {
        let before = self.by_id.get(&spec.id.0);
        let metrics = before.map(|before| before.metrics.clone());
        let namespace = Rc::new(Namespace {
            metrics: metrics.unwrap_or_else(|| self.registry.add_namespace(&spec.name, spec.api)),
            // Answers to earlier calls give their places back here.
            waiting: Cell::new(before.map_or(0, |before| before.waiting.get())),
            streams: Cell::new(before.map_or(0, |before| before.streams.get())),
            queued_bytes: Cell::new(before.map_or(0, |before| before.queued_bytes.get())),
            tokens: Default::default(),
            batch: spec.api.methods().iter().map(|_| Cell::new(0)).collect(),
            in_batch: Cell::new(false),
            spec,
        });
        self.by_id.insert(namespace.spec.id.0, namespace.clone());
        self.by_name.insert(namespace.spec.name.clone(), namespace);
    }

    /// Removes a deleted namespace. Waiting calls keep it alive until they are answered.
    pub(crate) fn forget(&mut self, id: NamespaceId) {
        if let Some(namespace) = self.by_id.remove(&id.0) {
            self.by_name.remove(&namespace.spec.name);
        }
    }
}
