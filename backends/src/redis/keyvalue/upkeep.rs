//! The namespaces of the store, and the sweep, which several gateways may do at once.

use redis::Pipeline;

use super::{KeyValue, LIVE};
use crate::api::keyvalue::{Remembers, Sweep, Upkeep};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::redis::connect::{Fault, Link, bytes, entries, number, refusal};
use crate::redis::script::{self, Script};

/// Promises of Redis for KeyValue, as far as its settings allow: [`Upkeep::offer`] says what the
/// server's acknowledgement means once one was seen.
pub const KEYVALUE: Offer = Offer {
    api: Api::KeyValue,
    acked: Acked::DurableOnSync,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::SWAPS)
        .and(Features::SCANS)
        .and(Features::TOMBSTONES),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

/// Numbers of the namespaces that take data, or whose data has yet to go.
const NAMESPACES: &str = "prism:namespaces";

/// Namespaces of one step of a sweep. Each takes a few microseconds if nothing is due there.
const SWEPT_TOGETHER: usize = 256;

impl Upkeep for KeyValue {
    fn offer(&self) -> Offer {
        match self.links.facts() {
            Some(facts) => Offer {
                acked: facts.acked(),
                ..KEYVALUE
            },
            None => KEYVALUE,
        }
    }

    /// Deletes are bounded by the server's memory and the window only.
    fn remembers(&self) -> Remembers {
        Remembers {
            window_ms: self.links.window_ms(),
            deletes_max: usize::MAX,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let name = format!("{}ns", script::prefix(namespace));
        let mut asked = redis::pipe();
        asked.cmd("SADD").arg(NAMESPACES).arg(namespace.0);
        asked.cmd("SET").arg(&name).arg(LIVE).arg("NX");
        asked.cmd("GET").arg(&name);
        let answers = self.links.ask(&asked).await?;
        match bytes(answers.get(2)).map_err(Fault::into_store)? {
            LIVE => Ok(()),
            _ => Err(StoreError::DroppedNamespace(namespace)),
        }
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let name = format!("{}ns", script::prefix(namespace));
        let mut asked = redis::pipe();
        asked.cmd("SADD").arg(NAMESPACES).arg(namespace.0);
        asked.cmd("SET").arg(&name).arg("1");
        self.links.ask(&asked).await.map(drop)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let (namespaces, is_round) = self.some_namespaces().await?;
        let window_ms = self.links.window_ms();
        let make = |link: &Link| {
            let mut asked = Pipeline::with_capacity(namespaces.len());
            for namespace in &namespaces {
                let mut call = script::call(link.name_of(Script::Sweep), *namespace);
                call.arg(now.0).arg(window_ms).arg(budget.max(1));
                asked.add_command(call);
            }
            asked
        };
        let mut sweep = Sweep {
            more: !is_round,
            ..Sweep::default()
        };
        if namespaces.is_empty() {
            return Ok(sweep);
        }
        let answers = self.links.run(make).await.map_err(Fault::into_store)?;
        let mut gone = Vec::new();
        for (namespace, answer) in namespaces.iter().zip(&answers) {
            if let Some(fault) = refusal(answer) {
                return Err(fault.into_store());
            }
            let counts = entries(Some(answer)).map_err(Fault::into_store)?;
            let count = |at: usize| number(counts.get(at)).map_err(Fault::into_store);
            sweep.examined += count(0)?.unsigned_abs() as usize;
            sweep.removed += count(1)?.unsigned_abs() as usize;
            sweep.more |= count(2)? == 1;
            if count(2)? == 2 {
                gone.push(*namespace);
            }
        }
        if !gone.is_empty() {
            let mut asked = redis::pipe();
            asked.cmd("SREM").arg(NAMESPACES);
            for namespace in gone {
                asked.arg(namespace.0);
            }
            self.links.ask(&asked).await?;
        }
        Ok(sweep)
    }
}

impl KeyValue {
    /// The next namespaces of the round, and whether the round ends with them.
    async fn some_namespaces(&self) -> Result<(Vec<NamespaceId>, bool), StoreError> {
        let mut asked = redis::pipe();
        asked
            .cmd("SSCAN")
            .arg(NAMESPACES)
            .arg(self.links.sweep_cursor.get())
            .arg("COUNT")
            .arg(SWEPT_TOGETHER);
        let answers = self.links.ask(&asked).await?;
        let answer = entries(answers.first()).map_err(Fault::into_store)?;
        let parse = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        let cursor = bytes(answer.first()).map_err(Fault::into_store)?;
        let cursor = parse(cursor).unwrap_or(0);
        self.links.sweep_cursor.set(cursor);
        let mut namespaces = Vec::new();
        for member in entries(answer.get(1)).map_err(Fault::into_store)? {
            let number = parse(bytes(Some(member)).map_err(Fault::into_store)?);
            let number = number.and_then(|number| u32::try_from(number).ok());
            namespaces.extend(number.map(NamespaceId));
        }
        Ok((namespaces, cursor == 0))
    }
}
