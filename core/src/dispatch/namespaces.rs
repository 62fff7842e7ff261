//! A shard's view of the namespaces: what the control thread has told it.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use prism_backends::NamespaceId;
use prism_codec::method::{Api, Method};
use rustc_hash::FxHashMap;

use crate::{
    metrics::{NamespaceMetrics, Registry},
    namespace::{model::Durability, spec::NamespaceSpec},
};

/// A namespace as one shard sees it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) id: NamespaceId,
    /// Whose calls it takes.
    pub(crate) api: Api,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) value_bytes_max: usize,
    pub(crate) durability: Durability,
    pub(crate) metrics: Arc<NamespaceMetrics>,
    /// Calls of this shard that wait for an answer.
    pub(crate) waiting: Cell<usize>,
    /// Calls answered in the running batch, by method; their latency is recorded at its end.
    batch: Box<[Cell<u32>]>,
    in_batch: Cell<bool>,
}

impl Namespace {
    /// Notes a call that was answered in the running batch. Returns whether it is the first one there.
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

    pub(crate) fn by_name(&self, name: &str) -> Option<Rc<Namespace>> {
        self.by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: NamespaceId) -> Option<Rc<Namespace>> {
        self.by_id.get(&id.0).cloned()
    }

    pub(crate) fn add(&mut self, spec: &NamespaceSpec) {
        let namespace = Rc::new(Namespace {
            id: spec.id,
            api: spec.api,
            ttl_ms: spec.ttl_ms,
            value_bytes_max: spec.value_bytes_max,
            durability: spec.durability,
            metrics: self.registry.add_namespace(&spec.name, spec.api),
            waiting: Cell::new(0),
            batch: spec.api.methods().iter().map(|_| Cell::new(0)).collect(),
            in_batch: Cell::new(false),
        });
        self.by_id.insert(spec.id.0, namespace.clone());
        self.by_name.insert(spec.name.clone(), namespace);
    }

    /// Calls that already wait keep the namespace alive until they are answered.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(namespace) = self.by_name.remove(name) {
            self.by_id.remove(&namespace.id.0);
        }
    }
}
